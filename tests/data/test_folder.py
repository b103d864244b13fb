"""Folders and zips of images: what counts as a class, a split, an image, and what is refused; names of classes."""

import errno
import os
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from encoding import encoded, fill, flat, zipped
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from refusals import mistake, refusing
from unstir.data import pack
from unstir.data.classes import class_number
from unstir.data.disk import natural
from unstir.data.folder import arrange
from unstir.data.images import UNLABELLED, Refused
from unstir.data.listing import Entry, Items
from unstir.data.source import hold_out
from unstir.errors import UserError


def reds(store, split):
    return store.images(split)[:, 0, 0, 0].tolist()


def placed(paths, held_out=0.0):
    """Each path's class and whether it is held out."""
    a = arrange([Entry(path, 0, 0) for path in paths], held_out, 0)
    labels = [None] * len(a.items) if a.labels is None else [a.classes[i] for i in a.labels]
    return {path: (label, i >= a.num_train) for i, (path, label) in enumerate(zip(a.items, labels, strict=True))}


def test_class_folders_become_labels_in_natural_order():
    found = placed(["10/b.png", "9/img10.png", "9/img2.png", "9/deep/er/x.png"])
    assert list(found) == ["9/deep/er/x.png", "9/img2.png", "9/img10.png", "10/b.png"]
    assert [label for label, _ in found.values()] == ["9", "9", "9", "10"]


@pytest.mark.parametrize(
    ("paths", "classes"),
    [
        ("1.png ./2.png", [None, None]),
        ("photos/all/cat/1.png photos/all/dog/2.png", ["cat", "dog"]),  # wrapped
        ("cat/1.png cat/2.png", ["cat", "cat"]),
        ("cat/1.png cat/x/2.png", ["cat", "cat"]),  # half of them lie deeper: a class, with more a wrapper
        ("all/1.png all/x/2.png all/y/3.png", ["x", "y"]),
        ("cat/a/1.png dog/b/2.png", ["cat", "dog"]),
        ("all/cat/1.png", ["cat"]),
        ("1.png 2.png cat/3.png dog/4.png", ["cat", "dog"]),  # as many within class folders as outside
        ("1.png 2.png 3.png cat/4.png dog/5.png", [None] * 5),
    ],
)
def test_folders_are_classes_or_wrappers(paths, classes):
    assert [label for label, _ in placed(paths.split()).values()] == classes


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation", "held_out", "Test"])
def test_train_and_test_folders_become_the_split(name):
    found = placed(["train/cat/1.png", "train/dog/1.png", f"{name}/cat/2.png", "extra/3.png", "loose.png"], 0.5)
    assert found == {
        "train/cat/1.png": ("cat", False),
        "train/dog/1.png": ("dog", False),
        f"{name}/cat/2.png": ("cat", True),
    }


def test_a_class_named_train_is_a_class_where_no_folder_is_the_test_one():
    paths = [f"{name}/{name}/{i}.png" for name in ("ship", "train", "tram") for i in range(2)]
    assert placed(paths, 0.5).keys() == set(paths)
    assert {label for label, _ in placed(paths).values()} == {"ship", "train", "tram"}
    within = placed(["train/train/1.png", "train/ship/2.png", "test/train/3.png"])
    assert [label for label, _ in within.values()] == ["ship", "train", "train"]


@pytest.mark.parametrize("paths", ["test/1.png test/2.png", "all/test/a/1.png all/test/b/2.png"])
def test_a_test_folder_without_images_to_train_on_beside_it_is_trained_on_aloud(tmp_path, paths):
    (tmp_path / "in/train").mkdir(parents=True)
    fill(tmp_path / "in", {path: flat(9) for path in paths.split()})
    store = pack(tmp_path / "in", tmp_path / "store")
    assert store.count("train") and [note.examples for note in store.notes if "no split" in note.text] == [("test",)]


def test_train_folder_alone_is_split_by_hash_like_the_folder_inside_it() -> None:
    names = [f"{label}/{i}.png" for label in "ab" for i in range(20)]
    inside = [path for path, (_, held) in placed(names, 0.1).items() if held]
    outside = [path for path, (_, held) in placed([f"train/{n}" for n in names], 0.1).items() if held]
    assert outside == [f"train/{path}" for path in inside] and len(inside) == 4


def test_image_beside_class_folders_is_refused():
    result = arrange([Entry(p, 0, 0) for p in ("cat/1.png", "dog/1.png", "stray.png")], 0, 0)
    assert [path for path, _ in result.refused] == ["stray.png"]


@given(st.lists(st.sampled_from("abc"), max_size=60), st.floats(0, 0.99), st.integers(0, 2**40))
def test_held_out_share_of_each_class(labels: list[str], fraction: float, seed: int) -> None:
    names = [str(i) for i in range(len(labels))]
    held = hold_out(names, labels, fraction, seed)
    assert held == hold_out(names, labels, fraction, seed)
    for label in set(labels):
        n, k = labels.count(label), sum(labels[i] == label for i in held)
        assert k == (min(max(1, round(n * fraction)), n - 1) if fraction else 0)


def test_held_out_images_depend_on_the_seed_and_not_on_their_order():
    names = [str(i) for i in range(100)]
    held = {names[i] for i in hold_out(names, [0] * 100, 0.2, 1)}
    turned = names[::-1]
    assert held == {turned[i] for i in hold_out(turned, [0] * 100, 0.2, 1)}
    assert held != {names[i] for i in hold_out(names, [0] * 100, 0.2, 2)}


@given(st.lists(st.text("a1/0B.é２", max_size=8), max_size=8))
def test_natural_order_is_total_and_stable(paths: list[str]) -> None:
    backwards = paths[::-1]
    assert sorted(paths, key=natural) == sorted(backwards, key=natural)


def test_natural_order_of_numbers_and_folders():
    paths = ["a/10", "a/9", "a/009b", "a1/0", "A/2", "a/" + "9" * 5000]
    assert sorted(paths, key=natural) == ["A/2", "a/9", "a/009b", "a/10", "a/" + "9" * 5000, "a1/0"]


def test_folder_is_packed_and_every_oddity_accounted_for(tmp_path):
    root = fill(tmp_path / "zoo", {
        "cat/1.png": flat(1), "cat/2.jpg": flat(2), "cat/noext": flat(3), "dog/1.png": flat(4),
        "dog/zero.png": b"", "dog/cut.png": flat(9)[:-30], "dog/text.png": b"not an image",
        "dog/photo.heic": b"\0\0\0\x18ftypheic", "dog/readme.txt": b"hello", "stray.png": flat(8),
        ".DS_Store": b"x", "__MACOSX/cat/._1.png": b"x", "cat/Thumbs.db": b"x", "cat/.hidden.png": flat(7),
    })  # fmt: skip
    (root / "cat/loop.png").symlink_to("loop.png")
    (root / "cat/broken.png").symlink_to("nowhere.png")
    (root / "cat/linked.png").symlink_to("1.png")
    (root / "again").symlink_to(root)
    os.mkfifo(root / "cat/pipe.png")
    store = pack(root, tmp_path / "store", held_out=0)
    assert store.classes == ("cat", "dog")
    assert reds(store, "train") == [1, 2, 1, 3, 4]
    labels = store.labels("train")
    assert labels is not None and labels.tolist() == [0, 0, 0, 0, 1]
    assert dict(store.refused).keys() == {
        "cat/broken.png", "cat/loop.png", "dog/cut.png", "dog/photo.heic", "dog/text.png", "dog/zero.png", "stray.png",
    }  # fmt: skip
    assert "itself" in dict(store.refused)["cat/loop.png"] and dict(store.refused)["dog/zero.png"] == "empty file"
    assert {note.text.split()[0]: (note.count, note.examples) for note in store.notes} == {
        "hidden": (4, (".DS_Store", "__MACOSX", "cat/.hidden.png", "cat/Thumbs.db")),
        "decoded": (2, ("cat/2.jpg", "cat/noext")),
        "left": (1, ("again",)),
        "device,": (1, ("cat/pipe.png",)),
        "not": (1, ("dog/readme.txt",)),
    }
    assert "(7)" in str(mistake(pack, root, tmp_path / "store", held_out=0, strict=True))


def test_file_that_may_not_be_opened_is_refused(tmp_path, monkeypatch):
    def closed(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", closed)
    with pytest.raises(Refused, match="permission denied"):
        Items(tmp_path).read("1.png")


def test_names_of_any_bytes_are_packed(tmp_path):
    root = fill(tmp_path / "in", {"é 😀\n.png": flat(1)})
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe.png")).write_bytes(flat(2))
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.txt.png")).write_bytes(b"x")
    store = pack(root, tmp_path / "store", held_out=0)
    assert store.count("train") == 2 and len(store.refused) == 1


def test_images_of_several_sizes_need_a_size(tmp_path):
    root = fill(tmp_path / "in", {"1.png": flat(1, 8), "2.png": flat(2, 9)})
    with pytest.raises(UserError, match=r"2\.png") as refused:
        pack(root, tmp_path / "store")
    assert refused.value.remedy == {"size": 8}
    assert pack(root, tmp_path / "store", size=8, channels=1).shape == (1, 8, 8)


@pytest.mark.parametrize("files", [{}, {"notes.txt": b"hello"}, {"1.png": b""}])
def test_folder_without_images_is_a_mistake(tmp_path, files):
    root = tmp_path / "in"
    root.mkdir()
    fill(root, files)
    for size in (None, 8):
        assert str(root) in str(mistake(pack, root, tmp_path / "store", size=size))
    assert not (tmp_path / "store").exists()


def test_zip_equals_the_folder_it_was_made_of(tmp_path):
    files = {
        f"data/{split}/{c}/{i}.png": flat(10 * i + ord(c) % 7)
        for split in ("train", "test")
        for c in "xy"
        for i in (1, 2)
    }
    folder = pack(fill(tmp_path / "in", files), tmp_path / "a")
    archive = pack(zipped(tmp_path / "in.zip", files), tmp_path / "b")
    assert archive.content_hash == folder.content_hash
    assert archive.classes == ("x", "y") and archive.count("held_out") == 4


def test_zip_members_that_escape_or_hide_are_refused(tmp_path):
    file = tmp_path / "evil.zip"
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("good.png", flat(1))
        for name in ("../up.png", "a/../../up.png", "/root.png", "..\\up.png", "C:/x.png"):
            archive.writestr(name, flat(2))
        archive.writestr(link, "/etc/passwd")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("good.png", flat(3))
        archive.writestr("__MACOSX/._good.png", b"x")
        archive.writestr("damaged.png", flat(4))
        archive.writestr("locked.png", flat(5))
    data = bytearray(file.read_bytes())
    for name, offset in ((b"locked.png", 8),):
        data[data.rindex(name) - 46 + offset] |= 1
    data[data.index(b"damaged.png") + 40] ^= 1
    file.write_bytes(data)
    before = sorted(tmp_path.rglob("*"))
    store = pack(file, tmp_path / "store", held_out=0)
    assert reds(store, "train") == [1]
    reasons = dict(store.refused)
    assert len(store.refused) == 9 and "encrypted" in reasons["locked.png"] and reasons["link.png"] == "a link"
    assert "damaged" in reasons["damaged.png"]
    assert {p for p in tmp_path.rglob("*") if p.parent != tmp_path / "store"} == {*before, tmp_path / "store"}


def test_pixels_are_those_of_the_files(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (7, 5, 6, 3), dtype=np.uint8)
    root = fill(tmp_path / "in", {f"{i}.png": encoded(Image.fromarray(x)) for i, x in enumerate(pixels)})
    store = pack(root, tmp_path / "store", held_out=0)
    assert np.array_equal(store.images("train").numpy(), pixels.transpose(0, 3, 1, 2))
    assert store.labels("train") is None and store.classes == ()


def test_a_stray_folder_beside_many_images_makes_no_classes(tmp_path):
    root = fill(tmp_path / "photos", {name: flat() for name in [*(f"{i}.png" for i in range(10)), "sub/11.png"]})
    store = pack(root, tmp_path / "store", held_out=0.0)
    assert store.classes == () and store.refused == () and store.count("train") == 11
    assert any(UNLABELLED in note.text for note in store.notes)


@pytest.mark.parametrize("make", [fill, zipped])
def test_the_sheets_beside_images_that_were_drawn_are_left_out(tmp_path, make):
    names = [*(f"{i:06d}.png" for i in range(10)), "grid.png", "noise.png", "mine.png"]
    names += [f"mine/{name}" for name in ("000000.png", "grid.png", "noise.png")]  # without settings: other photos
    files = {f"made/{name}": flat(i) for i, name in enumerate(names)} | {"made/settings.json": b"{}"}
    store = pack(make(tmp_path / "in", files), tmp_path / "store", held_out=0.0)
    assert store.count("train") == 14
    (left,) = [note for note in store.notes if "a sheet of images that are here one by one" in note.text]
    assert left.count == 2 and left.examples == ("made/grid.png", "made/noise.png")


@pytest.mark.parametrize("inside", ["", "store", "deep/er/store"])
def test_a_store_inside_its_own_source_is_refused(tmp_path, inside):
    root = fill(tmp_path / "photos", {f"{i}.png": flat() for i in range(4)})
    assert mistake(pack, root, root / inside).given == root / inside
    assert len(list(root.iterdir())) == 4


WOODS = ["forest", "Gänse", "sea ice", "日本"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("forest", 0), ("0", 0), ("03", 3), ("Gänse", 1), ("Ga\u0308nse", 1), (" sea ice ", 2), ("日本", 3)],
)
def test_name_or_number(text, number):
    assert class_number(WOODS, text) == number


@pytest.mark.parametrize(
    "text",
    ["forrest", "FOREST", "4", "-1", "1.0", "", "²", "9" * 5000, "name:1", "number:9"],
    ids=lambda text: text[:9],
)
def test_what_is_no_class_is_refused_with_what_there_is(text):
    refused = mistake(class_number, WOODS, text)
    assert (refused.key, refused.given) == ("label", text) and len(str(refused)) < 200
    assert refused.remedy.endswith("forest?" if text[:1] in ("f", "F") else ", ".join(WOODS))


def test_a_word_of_a_longer_name_leads_to_that_name():
    with refusing(remedy="did you mean big dogs, Small_Dogs?"):
        class_number(["big dogs", "dot", "Small_Dogs"], "dog")


def test_classes_named_by_digits_are_found_where_name_and_number_agree_or_one_alone_fits():
    assert [class_number("0123456789", digit) for digit in "0123456789"] == list(range(10))
    years = ["1999", "2000"]
    assert class_number(years, "2000") == 1
    assert class_number(years, "1") == 1


def test_name_that_is_the_number_of_another_class_is_refused_and_can_be_said_plainly():
    ratings = ["1", "2", "3"]
    with pytest.raises(UserError) as refused:
        class_number(ratings, "1", "labels")
    assert [class_number(ratings, remedy["labels"]) for remedy in refused.value.remedy] == [0, 1]
    assert class_number(ratings, "0") == 0
    assert class_number(ratings, "3") == 2


def test_data_without_classes_is_said():
    assert mistake(class_number, [], "0").remedy == {"label": None}


def test_many_classes_are_not_all_listed():
    assert mistake(class_number, [f"n{i}" for i in range(1000)], "zebra").remedy.endswith("n3, ...")


def test_names_that_differ_in_how_accents_are_kept_alone_are_told_apart():
    twins = ["Ga\u0308nse", "G\xe4nse"]
    assert [class_number(twins, name) for name in twins] == [0, 1]


COLOURS = {"cat": (250, 0, 0), "dog": (0, 250, 0), "bird": (0, 0, 250)}


def image(name):
    return {"bytes": encoded(Image.new("RGB", (4, 4), COLOURS[name])), "path": None}


def table(datasets, shown, names, labels=None):
    """Images of what is ``shown``, labelled by their places in ``names``, or by ``labels`` where there is no list."""
    label = datasets.ClassLabel(names=names) if names else datasets.Value("string" if labels is None else "int64")
    labels = ([names.index(name) for name in shown] if names else shown) if labels is None else labels
    features = datasets.Features({"image": datasets.Image(), "label": label})
    return datasets.Dataset.from_dict({"image": list(map(image, shown)), "label": labels}, features=features)


def found(store):
    """How often each name is given, of images that are what it says; an image under another name fails."""
    counts = dict.fromkeys(store.classes, 0)
    for split in ("train", "held_out"):
        for pixels, label in zip(store.images(split), store.labels(split), strict=True):
            name = store.classes[int(label)]
            assert tuple(pixels[:, 0, 0].tolist()) == COLOURS[name]
            counts[name] += 1
    return counts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lists", "classes"),
    [
        ((["cat", "dog"], ["dog", "cat"]), ("cat", "dog")),
        ((["dog", "cat"], ["bird", "cat"]), ("dog", "cat", "bird")),
        ((["dog", "cat"], None), ("dog", "cat", "bird")),  # labels as text
        ((None, ["dog", "cat"]), ("dog", "cat", "bird")),
        ((["dog", "cat", "bird"], ["dog", "cat", "bird"]), ("dog", "cat", "bird")),
    ],
)
def test_each_file_names_its_own_labels(tmp_path, lists, classes):
    datasets = pytest.importorskip("datasets")
    (tmp_path / "in").mkdir()
    for number, names in enumerate(lists):
        shown = [*(names or ["bird", "cat"])] * 5
        table(datasets, shown, names).to_parquet(tmp_path / f"in/part-{number}.parquet")
    store = pack(tmp_path / "in", tmp_path / "store", held_out=0.2)
    assert store.classes == classes
    counts = {name: 5 * sum(name in (names or ["bird", "cat"]) for names in lists) for name in classes}
    assert found(store) == counts
    held_out = np.bincount(store.labels("held_out").numpy(), minlength=len(classes)).tolist()
    assert held_out == [counts[name] // 5 for name in classes]  # a fifth of each name, not of each number
    assert pack(tmp_path / "in", tmp_path / "store", held_out=0.2).manifest == store.manifest


@pytest.mark.slow
@pytest.mark.parametrize(("names", "labels"), [(None, [0, 1]), (["dog", "cat"], [0, 7])])
def test_a_number_that_its_own_file_gives_no_name_is_refused(tmp_path, names, labels):
    datasets = pytest.importorskip("datasets")
    pyarrow = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "in").mkdir()
    table(datasets, ["cat", "dog"], ["cat", "dog"]).to_parquet(tmp_path / "in/a.parquet")
    table(datasets, ["cat", "dog"], names, [0, 1]).to_parquet(tmp_path / "in/b.parquet")
    written = pyarrow.read_table(tmp_path / "in/b.parquet")
    changed = written.set_column(1, written.schema.field(1), [labels])
    pyarrow.write_table(changed.replace_schema_metadata(written.schema.metadata), tmp_path / "in/b.parquet")
    assert mistake(pack, tmp_path / "in", tmp_path / "store").given.endswith("b.parquet")


@pytest.mark.slow
def test_each_split_of_a_saved_data_set_names_its_own_labels(tmp_path):
    datasets = pytest.importorskip("datasets")
    lists = {"train": ["cat", "dog"], "test": ["dog", "bird", "cat"]}
    splits = {split: table(datasets, names * 2, names) for split, names in lists.items()}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "in")
    store = pack(tmp_path / "in", tmp_path / "store")
    assert store.classes == ("cat", "dog", "bird") and store.count("held_out") == 6
    assert found(store) == {"cat": 4, "dog": 4, "bird": 2}
