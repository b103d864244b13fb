"""Forms that other programs write: each becomes a store of its images, classes and split, or a note says why not."""

import csv
import gc
import gzip
import hashlib
import json
import shutil
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from encoding import encoded, fill, tarred, zipped
from PIL import Image
from test_records import FILES, IMAGES, LABELS, NAMES

from refusals import mistake, refusing
from unstir import UserError, pack
from unstir.data.disk import natural
from unstir.data.images import LEFT_OUT, UNLABELLED
from unstir.data.source import NUMBERED

TRAIN, TEST = slice(0, 18), slice(18, 24)


def stored(store):
    """The name of the class of each image, "" without one, by split and image."""
    names = {}
    for split in ("train", "held_out"):
        labels = store.labels(split)
        classes = [""] * store.count(split) if labels is None else [store.classes[int(label)] for label in labels]
        images = store.images(split).permute(0, 2, 3, 1).numpy()
        names |= {(split, image.tobytes()): name for image, name in zip(images, classes, strict=True)}
    return names


def wanted(names=NAMES, images=IMAGES, num_train=18):
    """The same of these images, the first of which are of train."""
    splits = ["train"] * num_train + ["held_out"] * (len(images) - num_train)
    of = [names[label] if names else "" for label in LABELS]
    return {(split, image.tobytes()): name for split, image, name in zip(splits, images, of, strict=True)}


def texts(store):
    return [note.text for note in store.notes]


def files(split=True):
    """The images of this module as files, in folders of their split, and the label of each."""
    names = [f"{'train' if number < 18 else 'test'}/{number:02d}.png" for number in range(24)]
    names = names if split else [f"{number:02d}.png" for number in range(24)]
    return dict(zip(names, FILES, strict=True)), [NAMES[label] for label in LABELS]


def table(rows):
    lines = [f"{','.join(map(str, row))}\n" for row in rows]
    return "".join(lines).encode()


def in_tar(file, content):
    return tarred(file, content.items(), "w:gz")


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("make", [fill, zipped, in_tar])
def test_a_table_beside_the_images_names_their_classes(tmp_path, make, name):
    images, labels = files()
    rows = [["file_name", "label", "age"], *([file, label, 3] for file, label in zip(images, labels, strict=True))]
    lines = [json.dumps(dict(zip(rows[0], row, strict=True))) + "\n" for row in rows[1:]]
    beside = {"metadata.csv": table(rows)} if name == "metadata.csv" else {name: "".join(lines).encode()}
    content = {f"x/{file}": data for file, data in (images | beside).items()}
    store = pack(make(tmp_path / "in", content), tmp_path / "store")
    assert stored(store) == wanted() and store.classes == tuple(NAMES)
    assert any(text.startswith(LEFT_OUT) and "column" in text for text in texts(store))


@pytest.mark.parametrize("make", [fill, zipped, in_tar])
@pytest.mark.parametrize("kind", ["npy", "csv"])
def test_a_file_says_what_describes_each_image(tmp_path, make, kind):
    images, labels = files()
    source, numbers, file = make(tmp_path / "in", images), np.arange(48.0).reshape(24, 2), tmp_path / f"rows.{kind}"
    by_image = dict(zip((IMAGES[FILES.index(data)].tobytes() for data in images.values()), numbers, strict=True))
    order = sorted(range(24), key=lambda i: natural([*images][i]))
    rows = [("file_name", "label", "dose", "age"), *zip(images, labels, *numbers.T, strict=True)]
    np.save(file, numbers[order]) if kind == "npy" else file.write_bytes(table(rows))
    store = pack(source, tmp_path / "store", conditions=file)
    for split in ("train", "held_out"):
        for image, row in zip(store.images(split), store.conditions(split), strict=True):
            assert row.tolist() == by_image[image.permute(1, 2, 0).numpy().tobytes()].tolist()
    np.save(file, numbers[1:]) if kind == "npy" else file.write_bytes(table(rows[:-1]))
    if make is fill and kind == "csv":
        (tmp_path / "in/metadata.csv").write_bytes(table(rows))
        noted = pack(source, tmp_path / "beside", conditions=tmp_path / "in/metadata.csv")
        assert noted.manifest["condition"] == [2] and not any("column" in text for text in texts(noted))
    for given, out, key in ((source, "other", "conditions"), (IMAGES, "arrays", "conditions"), (source, "store", "")):
        with refusing(key):
            pack(given, tmp_path / out, conditions=file)
    for wrong in ([("file_name", "label"), *zip(images, labels, strict=True)], [*rows, rows[1]]):
        (tmp_path / "wrong.csv").write_bytes(table(wrong))
        with refusing("conditions"):
            pack(source, tmp_path / "wrong", conditions=tmp_path / "wrong.csv")
    with (tmp_path / "wrong.npy").open("wb") as named:
        np.savez(named, numbers)
    with refusing("conditions"):
        pack(source, tmp_path / "wrong", conditions=tmp_path / "wrong.npy")


def test_each_split_may_have_its_table(tmp_path):
    images, labels = files()
    parts = {}
    for split in ("train", "test"):
        rows = [(file.split("/")[1], label) for file, label in zip(images, labels, strict=True) if split in file]
        parts[f"{split}/metadata.csv"] = table([("file_name", "label"), *rows])
    assert stored(pack(fill(tmp_path / "in", images | parts), tmp_path / "store")) == wanted()


def test_a_table_without_labels_leaves_the_folders_as_classes_and_images_that_it_lacks_are_refused(tmp_path):
    images, labels = files(split=False)
    in_folders = {f"{label}/{file}": data for (file, data), label in zip(images.items(), labels, strict=True)}
    rows = table([("file_name", "text"), *((file, "a pet") for file in in_folders)])
    store = pack(fill(tmp_path / "in", in_folders | {"metadata.csv": rows}), tmp_path / "store", held_out=0)
    assert stored(store) == wanted(num_train=24) and any("column" in text for text in texts(store))
    rows = table([("file_name", "label"), *((file, "wolf") for file in [*in_folders][:-1]), ("gone.png", "wolf")])
    store = pack(fill(tmp_path / "in", {"metadata.csv": rows}), tmp_path / "other", held_out=0)
    assert store.classes == ("wolf",) and [path for path, _ in store.refused] == ["dog/23.png"]
    with refusing(given=tmp_path / "store"):  # whose labels have changed
        pack(tmp_path / "in", tmp_path / "store", held_out=0)


@pytest.mark.parametrize(
    ("make", "labels"), [(fill, LABELS.tolist()), (zipped, LABELS.tolist()), (fill, None), (zipped, [[0.5, 1.0]] * 24)]
)
def test_the_folder_or_zip_that_stylegan_and_edm_write(tmp_path, make, labels):
    """Their folders count images and are no classes; labels may be null, or vectors."""
    images = {f"{number // 10:05d}/img{number:08d}.png": data for number, data in enumerate(FILES)}
    listed = None if labels is None else list(map(list, zip(images, labels, strict=True)))
    content = images | {"dataset.json": json.dumps({"labels": listed}).encode()}
    store = pack(make(tmp_path / "in", content), tmp_path / "store", held_out=0)
    classes = labels == LABELS.tolist()
    assert stored(store) == wanted("01" if classes else None, num_train=24)
    assert (NUMBERED in texts(store)) == classes
    assert labels != [[0.5, 1.0]] * 24 or any(text.startswith(UNLABELLED) for text in texts(store))


@pytest.mark.parametrize(("name", "data"), [
    ("metadata.jsonl", b'{"file_name": "a.png"\n'), ("metadata.jsonl", b'[]\n1\n'),
    ("metadata.csv", b"\xff\xfe\0"), ("metadata.csv", b"file_name,label\n\0,\x00\n"), ("metadata.csv", b"a,b\n"),
    ("dataset.json", b'{"labels": [['), ("dataset.json", b"[" * 10**6), ("dataset.json", b'{"labels": {"cat": 1}}'),
])  # fmt: skip
def test_a_damaged_file_of_labels_is_one_line_or_a_note(tmp_path, name, data):
    source = zipped(tmp_path / "x.zip", {"a.png": FILES[0], name: data})
    try:
        assert texts(pack(source, tmp_path / "store"))
    except UserError as error:
        assert name in str(error.given) and "\n" not in str(error)


def test_a_file_of_labels_that_is_a_bomb_is_not_unpacked_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("unstir.data.listing.MAX_FILE_BYTES", 1000)
    source = zipped(tmp_path / "x.zip", {"a.png": FILES[0], "dataset.json": b" " * 2000})
    assert mistake(pack, source, tmp_path / "store").given == f"{source}: dataset.json"


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def mnist(folder, pack_file=lambda data: data, ending=""):
    """The files of MNIST as its authors wrote them."""
    grey, labels = IMAGES[..., 0], LABELS.astype(np.uint8)
    arrays = {
        "train-images-idx3-ubyte": grey[TRAIN], "train-labels-idx1-ubyte": labels[TRAIN],
        "t10k-images-idx3-ubyte": grey[TEST], "t10k-labels-idx1-ubyte": labels[TEST],
    }  # fmt: skip
    return fill(folder, {f"{name}{ending}": pack_file(idx(array)) for name, array in arrays.items()})


GREY = IMAGES[..., :1].repeat(3, -1)


@pytest.mark.parametrize("place", ["", "raw", "FashionMNIST/raw"])
def test_a_folder_of_mnist_s_files_unpacked_or_gz(tmp_path, place):
    mnist(tmp_path / "in" / place, gzip.compress, ".gz")
    packed = pack(tmp_path / "in", tmp_path / "packed")
    mnist(tmp_path / "in" / place)  # beside the others, as torchvision leaves both
    store = pack(tmp_path / "in", tmp_path / "store")
    assert stored(packed) == stored(store) == wanted("01", GREY) and texts(store) == [NUMBERED]


@pytest.mark.slow
def test_torchvision_reads_the_same_files(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    mnist(tmp_path / "MNIST/raw")
    theirs = torchvision.datasets.MNIST(str(tmp_path), train=True)
    store = pack(tmp_path, tmp_path.parent / f"{tmp_path.name}-store", channels=1)
    assert torch.equal(store.images("train")[:, 0], theirs.data) and torch.equal(store.labels("train"), theirs.targets)
    store = pack(theirs, tmp_path.parent / f"{tmp_path.name}-object", channels=1, held_out=0)
    assert torch.equal(store.images("train")[:, 0], theirs.data) and store.classes[1] == "1 - one"


def test_idx_files_that_lack_something_are_one_line(tmp_path):
    folder = mnist(tmp_path / "in")
    with refusing(given=folder / "train-images-idx3-ubyte"):
        pack(folder / "train-images-idx3-ubyte", tmp_path / "store")
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS[TEST].astype(np.uint8))[:-1])
    assert mistake(pack, folder, tmp_path / "store").given == folder / "t10k-labels-idx1-ubyte"
    (folder / "t10k-labels-idx1-ubyte").unlink()
    assert mistake(pack, folder, tmp_path / "store").given == folder / "t10k-images-idx3-ubyte"
    mnist(tmp_path / "both/A/raw"), mnist(tmp_path / "both/B/raw")
    assert "A/raw, B/raw" in str(mistake(pack, tmp_path / "both", tmp_path / "store"))


def hub_table(folder, names=NAMES):
    """A data set whose parts are written as the Hub has them."""
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    features = datasets.Features({"image": datasets.Image(), "label": label, "id": datasets.Value("int64")})
    rows = {"image": [{"bytes": data, "path": None} for data in FILES], "label": LABELS.tolist(), "id": [*range(24)]}
    whole = datasets.Dataset.from_dict(rows, features=features)
    return datasets.DatasetDict({"train": whole.select(range(18)), "test": whole.select(range(18, 24))})


CARD = """---
license: mit
dataset_info:
  features:
  - {name: image, dtype: image}
  - name: label
    dtype: {class_label: {names: {'0': cat, '1': dog}}}
---
"""


@pytest.mark.slow
@pytest.mark.parametrize("by_card", [False, True])
@pytest.mark.parametrize("place", ["data/{}-00000-of-00001.parquet", "data/{}/0000.parquet", "plain_text/{}-0.parquet"])
def test_a_clone_of_a_data_set_of_the_hub(tmp_path, place, by_card):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "in/.git").mkdir(parents=True)
    (tmp_path / "in/README.md").write_text(CARD)
    for split, part in hub_table(tmp_path).items():
        file = tmp_path / "in" / place.format(split)
        file.parent.mkdir(parents=True, exist_ok=True)
        part.to_parquet(file)
        if by_card:
            pyarrow.write_table(pyarrow.read_table(file).replace_schema_metadata(None), file)
    store = pack(tmp_path / "in", tmp_path / "store")
    assert stored(store) == wanted() and store.classes == tuple(NAMES) and NUMBERED not in texts(store)
    assert json.loads((store.path / "origin.json").read_text())["license"] == "mit"
    assert any(text.startswith(LEFT_OUT) and "column" in text for text in texts(store))


@pytest.mark.slow
def test_the_card_of_a_clone_may_name_its_configurations_and_the_files_of_their_splits(tmp_path):
    parts = hub_table(tmp_path)
    for place, part in {"a/one": "train", "a/two": "test", "b/one": "test", "../out": "test"}.items():
        (tmp_path / "in" / place).parent.mkdir(parents=True, exist_ok=True)
        parts[part].to_parquet(tmp_path / "in" / f"{place}.parquet")
    files = "[{split: train, path: a/one*}, {split: test, path: [a/two.parquet, ../out.parquet]}]"
    other = "{config_name: other, data_files: [{split: train, path: b/*}]}"
    card = f"---\nconfigs:\n- {{config_name: photos, default: true, data_files: {files}}}\n- {other}\n---\n"
    (tmp_path / "in/README.md").write_text(card)
    store = pack(tmp_path / "in", tmp_path / "store")
    assert stored(store) == wanted()
    assert [note.examples for note in store.notes if "configuration" in note.text] == [("b/one.parquet",)]
    (tmp_path / "in/README.md").write_text(card.replace("{split: test,", "{"))  # then the files tell
    assert "a, b" in str(mistake(pack, tmp_path / "in", tmp_path / "other"))
    (tmp_path / "in/README.md").write_text(card.replace("default: true, ", ""))
    assert "a, b" in str(mistake(pack, tmp_path / "in", tmp_path / "other"))


@pytest.mark.slow
def test_splits_of_a_clone_beside_train_and_test_are_left_out_aloud_and_without_train_others_are_it(tmp_path):
    parts = dict(zip(("train", "test", "extra"), [*hub_table(tmp_path).values()] * 2, strict=False))
    for names, counts in {("train", "test", "extra"): [18, 6], ("extra", "test"): [18, 6]}.items():
        folder = tmp_path / f"in-{len(names)}/data"
        folder.mkdir(parents=True)
        for name in names:
            parts[name].to_parquet(folder / f"{name}-00000-of-00001.parquet")
        store = pack(folder.parent, tmp_path / f"{len(names)}")
        assert [store.count(split) for split in ("train", "held_out")] == counts
        assert any("split extra" in text for text in texts(store)) == (len(names) == 3)


@pytest.mark.slow
def test_a_clone_without_its_large_files_or_with_several_configurations_is_one_line(tmp_path):
    pytest.importorskip("pyarrow.parquet")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    clone = fill(tmp_path / "in", {"README.md": b"---\n---\n", "data/train-0.parquet": pointer})
    assert "git lfs" in mistake(pack, clone, tmp_path / "store").remedy
    fill(clone, {"small/train-0.parquet": pointer})
    assert "data, small" in str(mistake(pack, clone, tmp_path / "store"))


@pytest.mark.slow
def test_data_sets_in_memory_bring_their_splits_and_names(tmp_path):
    both = hub_table(tmp_path)
    store = pack(both, tmp_path / "store")
    assert stored(store) == wanted() and store.manifest["kind"] == "datasets"
    assert pack(both, tmp_path / "store").manifest == store.manifest
    alone = pack(both["train"].with_format("torch"), tmp_path / "alone", held_out=0)
    assert alone.classes == tuple(NAMES) and alone.count("train") == 18
    assert mistake(pack, both["train"].to_iterable_dataset(), tmp_path / "stream").given == "the IterableDataset"


def test_a_folder_of_an_array_that_was_drawn_is_the_array_and_not_its_sheets(tmp_path):
    fill(tmp_path / "in", {"grid.png": FILES[0], "noise.png": FILES[1]})
    np.save(tmp_path / "in/images.npy", IMAGES)
    sha256 = hashlib.sha256((tmp_path / "in/images.npy").read_bytes()).hexdigest()
    (tmp_path / "in/settings.json").write_text(json.dumps({"format": "npy", "array": sha256}))
    assert stored(pack(tmp_path / "in", tmp_path / "store", held_out=0)) == wanted(None, num_train=24)


KERAS = {"x_train": (IMAGES, TRAIN), "y_train": (LABELS, TRAIN), "x_test": (IMAGES, TEST), "y_test": (LABELS, TEST)}
COLUMN = LABELS[:, None].astype(np.uint8)
MEDICAL = {
    "train_images": (IMAGES, TRAIN), "val_images": (IMAGES, slice(18, 21)), "test_images": (IMAGES, slice(21, 24)),
    "train_labels": (COLUMN, TRAIN), "val_labels": (COLUMN, slice(18, 21)), "test_labels": (COLUMN, slice(21, 24)),
}  # fmt: skip


@pytest.mark.parametrize("parts", [KERAS, MEDICAL])
def test_arrays_named_by_their_split(tmp_path, parts):
    arrays = {name: array[part] for name, (array, part) in parts.items()}
    np.savez(tmp_path / "x.npz", **arrays)
    for number, source in enumerate((tmp_path / "x.npz", arrays)):
        store = pack(source, tmp_path / f"{number}")
        assert stored(store) == wanted("01") and texts(store) == [NUMBERED]


@pytest.mark.parametrize("kind", [np.uint8, np.float32, bool])
def test_one_hot_labels_are_classes_which_is_noted(tmp_path, kind):
    one_hot = np.eye(2)[LABELS].astype(kind)
    store = pack((IMAGES, one_hot), tmp_path / "store", held_out=0)
    assert stored(store) == wanted("01", num_train=24) and any("one-hot" in text for text in texts(store))


SIGNED = IMAGES / np.float32(127.5) - 1


@pytest.mark.parametrize(
    ("images", "note"),
    [
        (SIGNED, "-1..1"),
        (torch.from_numpy(SIGNED), "-1..1"),
        (SIGNED.astype(np.float16), "-1..1"),
        (IMAGES.astype(np.int64), "int64"),
        (IMAGES.astype(np.uint16), "uint16"),
        (IMAGES.astype(np.uint16) * 257, "uint16 scaled"),
    ],
)
def test_values_of_other_ranges_are_brought_to_bytes_which_is_noted(tmp_path, images, note):
    for number, source in enumerate(((images, LABELS), [*zip(images, LABELS, strict=True)])):
        store = pack(source, tmp_path / f"{number}", held_out=0)
        assert stored(store) == wanted("01", num_train=24)
        assert [text for text in texts(store) if note in text]


def test_one_rule_holds_for_all_images_and_what_lies_outside_is_refused(tmp_path):
    """An image of the bright half alone is no other image for that; of items not all are looked at beforehand."""
    bright = np.concatenate([SIGNED, np.full((1, 6, 5, 3), 191 / 127.5 - 1, np.float32)])
    assert int(pack(bright, tmp_path / "bright", held_out=0).images("train")[-1, 0, 0, 0]) == 191
    items = [*IMAGES.astype(np.int64)]
    items[3] = items[3] + 256
    store = pack(items, tmp_path / "store", held_out=0)
    assert store.count("train") == 23 and [path for path, _ in store.refused] == ["items[3]"]


@pytest.mark.parametrize(
    ("values", "depth"), [(SIGNED * 0.99, "auto"), (SIGNED, "float"), (IMAGES.astype(np.uint16) * 200, "float")]
)
def test_values_that_are_not_8_bits_keep_their_units(tmp_path, values, depth):
    store = pack(values, tmp_path / "store", held_out=0, depth=depth)
    assert np.array_equal(store.images("train").numpy(), values.transpose(0, 3, 1, 2).astype(np.float32))
    assert not [text for text in texts(store) if "scaled" in text]


@pytest.mark.parametrize("pictures", [False, True])
def test_lists_of_images_of_several_sizes(tmp_path, pictures):
    cut = [image[: 4 + number % 3] for number, image in enumerate(IMAGES)]
    images = [Image.fromarray(image) for image in cut] if pictures else cut
    store = pack((images, [NAMES[label] for label in LABELS]), tmp_path / "store", size=4, held_out=0)
    assert store.count("train") == 24 and store.classes == tuple(NAMES)
    as_files = fill(tmp_path / "in", {f"{n:02d}.png": encoded(Image.fromarray(i)) for n, i in enumerate(cut)})
    whole = pack(as_files, tmp_path / "whole", size=4, held_out=0)
    assert torch.equal(store.images("train"), whole.images("train"))
    assert mistake(pack, (images, LABELS), tmp_path / "other").remedy == {"size": 4}


def test_part_of_a_dataset_keeps_the_names_of_its_classes(tmp_path):
    class Whole(torch.utils.data.Dataset):
        classes = NAMES

        def __len__(self):
            return 24

        def __getitem__(self, index):
            return IMAGES[index], int(LABELS[index])

    part = torch.utils.data.Subset(Whole(), range(20))
    assert pack(part, tmp_path / "store").classes == tuple(NAMES)


def test_keys_of_items_that_are_no_image_and_no_label_are_noted(tmp_path):
    items = [{"image": image, "kind": int(label)} for image, label in zip(IMAGES, LABELS, strict=True)]
    (note,) = pack(items, tmp_path / "store").notes
    assert note.text.startswith(LEFT_OUT) and note.examples == ("items: kind",)


def test_large_files_of_a_tar_are_not_unpacked_and_a_bomb_ends_at_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr("unstir.data.tars.MAX_FILE_BYTES", 1000)
    images = [("cat/a.png", FILES[0]), ("dog/b.png", FILES[1]), ("cat/notes.bin", bytes(2000))]
    store = pack(tarred(tmp_path / "x.tgz", images, "w:gz"), tmp_path / "store", held_out=0)
    assert store.classes == tuple(NAMES)
    assert [(note.text[:8], list(note.examples)) for note in store.notes] == [(LEFT_OUT, ["x.tgz: cat/notes.bin"])]
    monkeypatch.undo()
    bomb = tarfile.TarInfo("a.png")
    bomb.size = 1 << 20
    file = tarred(tmp_path / "bomb.tgz", [("b.png", FILES[0]), ("", bomb)], "w:gz")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 19))
    assert "are free" in str(mistake(pack, file, tmp_path / "other"))
    assert not list(tmp_path.glob(".*"))


def test_a_sample_whose_json_has_no_label_is_packed_without_one_aloud(tmp_path):
    samples = [(f"{n}.{kind}", data) for n in range(4) for kind, data in (("png", FILES[n]), ("json", b'{"url": "x"}'))]
    store = pack(tarred(tmp_path / "x.tar.gz", samples, "w:gz"), tmp_path / "store")
    assert not store.labelled
    assert [(note.text.partition(":")[0], note.count) for note in store.notes] == [(UNLABELLED, 4)]


def test_a_folder_of_nothing_known_says_what_it_holds(tmp_path):
    with pytest.raises(UserError, match=r"\.mat, \.txt"):
        pack(fill(tmp_path / "in", {"a.mat": b"x", "sub/b.txt": b"x"}), tmp_path / "store")


@pytest.mark.slow
def test_webdataset_writes_the_same_samples(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    for split, part in (("train", TRAIN), ("test", TEST)):
        with webdataset.TarWriter(str(tmp_path / f"{split}-000.tar.gz")) as out:
            for number in range(24)[part]:
                out.write({"__key__": f"{number:03d}", "png": FILES[number], "json": {"label": NAMES[LABELS[number]]}})
    assert stored(pack(tmp_path, tmp_path.parent / f"{tmp_path.name}-store")) == wanted()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")  # its own
def test_datasets_reads_the_same_folder_with_its_table(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    images, labels = files()
    fill(tmp_path / "in", images)
    for split in ("train", "test"):
        rows = [(file[len(split) + 1 :], label) for file, label in zip(images, labels, strict=True) if split in file]
        with open(tmp_path / "in" / split / "metadata.csv", "w", newline="") as out:
            csv.writer(out).writerows([("file_name", "label"), *rows])
    theirs = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "in"))
    read = {(split, np.asarray(row["image"]).tobytes()): row["label"] for split in theirs for row in theirs[split]}
    gc.collect()
    ours = stored(pack(tmp_path / "in", tmp_path / "store"))
    assert {image: name for (_, image), name in read.items()} == {image: name for (_, image), name in ours.items()}
