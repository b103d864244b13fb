"""Arrays, tables, tars and data sets in memory become the store that a folder of the same images becomes."""

import json
import random
import re
import shutil
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from encoding import encoded, fill, options, tarred
from PIL import Image

from refusals import mistake
from unstir import Store, UserError, pack
from unstir.data.images import LEFT_OUT, UNLABELLED
from unstir.data.manifest import read_origin
from unstir.data.packing import origin_of

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (24, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(24) % 2
NAMES = ["cat", "dog"]


FILES = [encoded(Image.fromarray(image)) for image in IMAGES]


class Items(torch.utils.data.Dataset):
    """As torchvision's: ToTensor's floats, a label, the names of classes."""

    classes = NAMES

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, index):
        return torch.from_numpy(IMAGES[index]).permute(2, 0, 1) / 255, int(LABELS[index])


def npy(folder):
    np.save(folder / "x.npy", IMAGES)
    return folder / "x.npy"


def npz(folder):
    np.savez(folder / "x.npz", x=IMAGES.transpose(0, 3, 1, 2), y=LABELS)
    return folder / "x.npz"


def shards(folder):
    rows = list(zip(FILES, LABELS, strict=True))
    for part in (0, 1):
        parts = [(f"{i:03d}.png", data) for i, (data, _) in enumerate(rows) if i // 12 == part]
        names = [(f"{i:03d}.cls", NAMES[label].encode()) for i, (_, label) in enumerate(rows) if i // 12 == part]
        tarred(folder / f"part-{part}.tar", [each for pair in zip(parts, names, strict=True) for each in pair])
    return folder


def table(folder):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    rows = {"image": [{"bytes": data, "path": None} for data in FILES], "label": LABELS.tolist()}
    return datasets.Dataset.from_dict(rows, features=features)


def parquet(folder):
    table(folder).to_parquet(folder / "train-00000-of-00001.parquet", batch_size=7)
    return folder / "train-00000-of-00001.parquet"


def saved(folder):
    table(folder).save_to_disk(folder / "saved")
    return folder / "saved"


FORMS = {
    "npy": npy, "npz": npz, "shards": shards, "parquet": parquet, "saved": saved,
    "arrays": lambda folder: (IMAGES, LABELS), "mapping": lambda folder: {"image": IMAGES, "label": LABELS},
    "dataset": lambda folder: Items(),
}  # fmt: skip
KINDS = {"npy": "numpy", "npz": "numpy", "shards": "tar", "saved": "datasets", "mapping": "arrays"}


OF_LIBRARIES = [pytest.param(form, marks=pytest.mark.slow) for form in ("parquet", "saved")]


@pytest.mark.parametrize("form", [*(form for form in FORMS if form not in ("parquet", "saved")), *OF_LIBRARIES])
def test_every_form_gives_the_same_pixels_and_labels(tmp_path, form):
    (tmp_path / "in").mkdir()
    source = FORMS[form](tmp_path / "in")
    store = pack(source, tmp_path / "store", held_out=0.25, license="MIT")
    store.verify()
    assert store.manifest["kind"] == KINDS.get(form, form) and read_origin(store.path).license == "MIT"
    found = {}
    for split, count in {"train": 18, "held_out": 6}.items():
        labels = store.labels(split) if store.labelled else torch.zeros(count)
        assert len(labels) == store.count(split) == count
        found |= {image.numpy().tobytes(): int(label) for image, label in zip(store.images(split), labels, strict=True)}
    labels = [0] * 24 if form == "npy" else LABELS.tolist()
    assert found == {i.transpose(2, 0, 1).tobytes(): n for i, n in zip(IMAGES, labels, strict=True)}
    named = form in ("shards", "parquet", "saved", "dataset")
    assert store.classes == (tuple(NAMES) if named else () if form == "npy" else ("0", "1"))
    assert pack(source, tmp_path / "store", held_out=0.25).manifest == store.manifest


def test_of_two_layouts_that_fit_the_square_one_is_meant(tmp_path):
    images = RANDOM.integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    for number, given in enumerate((images, images.transpose(0, 2, 3, 1), images[:, :1])):
        store = pack(given, tmp_path / f"{number}", channels=given.shape[1] if number == 2 else 3, held_out=0)
        expected = images if number == 1 else given
        assert np.array_equal(store.images("train"), expected)


NAMED = np.array(NAMES)[LABELS]
DAYS = np.array(["2020-01-01", "2020-01-02"])
BYTES = np.array([b"\xe8", b"\xe9"])  # no UTF-8


def objects(labels):
    held = np.empty(len(labels), object)
    held[:] = labels
    return held


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        *((labels, NAMES) for labels in (NAMED.tolist(), NAMED.astype("S"), NAMED.astype(object))),
        (BYTES[LABELS], ["\\xe8", "\\xe9"]),
        (DAYS.astype("datetime64[D]")[LABELS], DAYS.tolist()),
        *((objects([kind(n) for n in LABELS]), ["0", "1"]) for kind in (np.int64, np.float32, np.array, torch.tensor)),
    ],
)
def test_labels_of_any_kind_name_the_classes(tmp_path, labels, classes):
    store = pack((IMAGES, labels), tmp_path / "store", held_out=0)
    items = pack(list(zip(IMAGES, list(labels), strict=True)), tmp_path / "items", held_out=0)
    assert store.classes == tuple(classes) and store.labels("train").tolist() == LABELS.tolist()
    assert items.classes == store.classes or "-" in classes[0]  # dates are text in an array alone
    again, other = (origin_of(options((IMAGES, labels))) for _ in "ab")
    assert again.stamp() == other.stamp()  # that of objects too, wherever they lie


def test_rows_of_which_some_have_no_label_are_refused(tmp_path):
    assert "12 of 24" in str(mistake(pack, (IMAGES, np.where(LABELS, np.nan, 1.0)), tmp_path / "nan"))


@pytest.mark.parametrize(
    "labels",
    [
        [[0, 1]] * 24,  # a list
        torch.eye(24),
        np.tri(24),
        np.arange(24) / 7 + 0.01,  # a temperature
        np.full(24, np.nan),
    ],
)
def test_labels_that_name_no_class_are_left_out_aloud(tmp_path, labels):
    items = pack(list(zip(IMAGES, labels, strict=True)), tmp_path / "items")
    stores = [items] if isinstance(labels, list | torch.Tensor) else [items, pack((IMAGES, labels), tmp_path / "store")]
    for store in stores:
        assert not store.labelled and store.notes[0].count == 24 and UNLABELLED in store.notes[0].text
        assert store.count("held_out") == 2


@pytest.mark.slow
def test_labels_of_lists_in_a_table_are_left_out_aloud_and_those_beyond_its_classes_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    lists = pyarrow.table({"image": pyarrow.array(FILES, pyarrow.binary()), "label": [[0, 1]] * 24})
    files.write_table(lists, tmp_path / "x.parquet")
    assert UNLABELLED in pack(tmp_path / "x.parquet", tmp_path / "lists").notes[0].text
    written = files.read_table(source := parquet(tmp_path))
    files.write_table(written.set_column(1, written.schema.field(1), [[0] * 23 + [7]]), source)
    assert mistake(pack, source, tmp_path / "store").given == f"{source}: {source.name}"


def test_further_arrays_of_a_file_are_left_out_aloud(tmp_path):
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=LABELS, mask=LABELS, depth=IMAGES)
    (note,) = [note for note in pack(tmp_path / "x.npz", tmp_path / "store").notes if note.text.startswith(LEFT_OUT)]
    assert note.examples == ("x.npz: mask", "x.npz: depth")


def test_levels_that_rounding_takes_are_counted(tmp_path):
    """300 levels between 0 and 30 of 255: 31 are left; the first image has only two of them."""
    values = np.linspace(0, 30 / 255, 300).reshape(1, 20, 15).repeat(2, 0)
    values[0] = np.where(values[0] > 0.06, 0.1, 0.101)
    (note,) = pack(values, tmp_path / "store", held_out=0, depth="8").notes
    assert note.count == 2
    assert [re.findall(r"\d+", text) for text in note.examples] == [["0", "1", "2"], ["1", "31", "300"]]
    assert pack(IMAGES / np.float32(255), tmp_path / "exact").notes == ()


@pytest.mark.parametrize("targets", [None, LABELS.tolist()])
@pytest.mark.parametrize(("first", "unreadable"), [(5, 1), (5, 10), (5, 11), (0, 1)])
def test_a_few_unreadable_rows_are_left_out_and_more_end_the_packing(tmp_path, first, unreadable, targets):
    class Torn(Items):
        def __getitem__(self, index):
            if first <= index < first + unreadable:
                raise (OSError, SyntaxError)[index % 2]("image file is truncated")
            return super().__getitem__(index)

    Torn.targets = targets

    if unreadable > 10:
        with pytest.raises(UserError, match="10 images") as refused:
            pack(Torn(), tmp_path / "store")
        assert refused.value.given == "the Torn" and not (tmp_path / "store").exists()
        return
    store = pack(Torn(), tmp_path / "store", size=5, held_out=0)
    assert store.count("train") == 24 - unreadable and len(store.refused) == unreadable
    assert store.refused[0][0] == ("items[10]" if unreadable > 5 else f"items[{first}]")
    assert store.refused[0][1].endswith("is truncated")
    assert pack(Torn(), tmp_path / "store", size=5, held_out=0).manifest == store.manifest


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["struct", "large", "view"])
def test_columns_of_bytes_as_other_writers_of_parquet_type_them(tmp_path, kind):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    struct = pyarrow.struct([("bytes", pyarrow.large_binary()), ("path", pyarrow.large_string())])
    types = {"struct": struct, "large": pyarrow.large_binary(), "view": pyarrow.binary_view()}
    values = [{"bytes": data, "path": None} for data in FILES] if kind == "struct" else FILES
    parquet.write_table(pyarrow.table({"image": pyarrow.array(values, types[kind])}), tmp_path / "x.parquet")
    store = pack(tmp_path / "x.parquet", tmp_path / "store", held_out=0)
    assert np.array_equal(store.images("train"), IMAGES.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("with_targets", [True, False])
def test_a_data_set_whose_labels_changed_is_not_taken_for_the_packed_one(tmp_path, with_targets):
    """Its stamp reads 17 items of 24; the label that changes here is of another."""
    items, targets = Items(), LABELS.tolist()
    if with_targets:
        items.targets = targets
    else:
        items.__class__ = type("Items", (Items,), {"__getitem__": lambda self, i: (IMAGES[i], targets[i])})
    store = pack(items, tmp_path / "store")
    assert pack(items, tmp_path / "store").manifest == store.manifest
    stamp = origin_of(options(items)).stamp()
    targets[3] = 0
    assert (origin_of(options(items)).stamp() != stamp) is with_targets
    assert mistake(pack, items, tmp_path / "store").given == tmp_path / "store"


@pytest.mark.slow
def test_a_split_and_a_licence_that_the_data_brings_are_kept(tmp_path):
    datasets = pytest.importorskip("datasets")
    both = table(tmp_path).train_test_split(4, shuffle=False)
    for part in both.values():
        part.info.license = "cc-by-4.0"
    datasets.DatasetDict(both).save_to_disk(tmp_path / "both")
    store = pack(tmp_path / "both", tmp_path / "store", size=4)
    assert [store.count(split) for split in ("train", "held_out")] == [20, 4] and store.shape == (3, 4, 4)
    assert store.manifest["held_out_rule"].endswith("named test")
    assert read_origin(store.path)[0::2] == (str(tmp_path / "both"), "cc-by-4.0")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_a_test_split_whose_labels_are_withheld_is_left_out(tmp_path, form):
    """As the Hub has it: -1 for each of them."""
    datasets = pytest.importorskip("datasets")
    train, test = table(tmp_path).train_test_split(4, shuffle=False).values()
    test = test.map(lambda row: {"label": -1})
    (tmp_path / "in").mkdir()
    if form == "saved":
        datasets.DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "in")
    else:
        train.to_parquet(tmp_path / "in/train-0.parquet")
        test.to_parquet(tmp_path / "in/test-0.parquet")
    store = pack(tmp_path / "in", tmp_path / "store", held_out=0.2)
    assert store.classes == tuple(NAMES) and store.manifest["held_out_rule"].startswith("by class, 0.2 of each")
    assert [store.count(split) for split in ("train", "held_out")] == [16, 4]
    assert [(note.text.split(":")[0], note.count) for note in store.notes] == [(LEFT_OUT, 4)]
    alone = pack(in_one(test, tmp_path / "alone"), tmp_path / "none", held_out=0)
    assert alone.classes == () and alone.count("train") == 4
    mixed = in_one(datasets.concatenate_datasets([train, test]), tmp_path / "mixed")
    assert "4 of 24" in str(mistake(pack, mixed, tmp_path / "refused"))


def in_one(rows, folder):
    rows.save_to_disk(folder)
    return folder


def of_hub(monkeypatch, load, card=None):
    """The library datasets, whose data set of any name is what is loaded, with such a card."""
    from unstir.data import columns

    datasets = pytest.importorskip("datasets")
    cards = SimpleNamespace(load=lambda name: SimpleNamespace(data=card or {}))
    library = SimpleNamespace(
        Image=datasets.Image, config=datasets.config, DatasetCard=cards, load_dataset=lambda *name: load(datasets, name)
    )
    monkeypatch.setattr(columns, "library", lambda name, *_: library)
    return datasets


@pytest.mark.slow
def test_a_data_set_named_by_its_id_is_loaded_by_the_library(tmp_path, monkeypatch):
    names = []
    of_hub(monkeypatch, lambda _, name: names.append(name) or {"train": table(tmp_path)}, {"license": "its card's"})
    store = pack("hf:me/animals:small", tmp_path / "store")
    assert store.classes == tuple(NAMES) and read_origin(store.path).license == "its card's"
    assert read_origin(store.path).source == "hf:me/animals:small" and names == [("me/animals", "small")]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "pictures"])
def test_the_library_itself_loads_what_hf_names(tmp_path, monkeypatch, form):
    """A data set in a folder of this machine, whose files lie in the library's cache or in that folder."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "in").mkdir()
    if form == "parquet":
        parquet(tmp_path / "in")
    for number, (data, label) in enumerate(zip(FILES, LABELS, strict=True)):
        if form == "pictures":
            (tmp_path / "in" / NAMES[label]).mkdir(exist_ok=True)
            (tmp_path / "in" / NAMES[label] / f"{number}.png").write_bytes(data)
    store = pack(f"hf:{tmp_path / 'in'}", tmp_path / "store", held_out=0)
    assert store.classes == tuple(NAMES) and store.refused == ()
    read = zip(store.images("train"), store.labels("train"), strict=True)
    found = {image.numpy().tobytes(): int(label) for image, label in read}
    assert found == {image.transpose(2, 0, 1).tobytes(): int(n) for image, n in zip(IMAGES, LABELS, strict=True)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")  # its own
def test_webdataset_reads_the_same_tars(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    shards(tmp_path)
    samples = [*webdataset.WebDataset(str(tmp_path / "part-{0..1}.tar"), shardshuffle=False)]
    theirs = {sample["png"]: sample["cls"] for sample in samples}
    store = pack(tmp_path, tmp_path.parent / f"{tmp_path.name}-store", held_out=0)
    ours = zip(store.images("train").permute(0, 2, 3, 1).numpy(), store.labels("train"), strict=True)
    assert {encoded(Image.fromarray(image)): store.classes[label].encode() for image, label in ours} == theirs


def broken(folder):
    data = bytearray(FILES[0])
    data[40:] = data[:-40]
    return tarred(folder / "b.tar", [("a.png", FILES[1]), ("b.png", bytes(data)), ("c.jpg", b""), ("d.png", FILES[2])])


def test_items_that_differ_each_time_are_refused_and_nothing_is_kept(tmp_path):
    class Random(Items):
        def __getitem__(self, index):
            return torch.rand(3, 6, 5), 0

    assert "the Random" in str(mistake(pack, Random(), tmp_path / "store"))
    assert not any(tmp_path.iterdir())


def test_broken_images_are_refused_by_their_name(tmp_path):
    store = pack(broken(tmp_path), tmp_path / "store", held_out=0)
    assert store.count("train") == 2 and [path for path, _ in store.refused] == ["b.png", "c.jpg"]


@pytest.mark.slow
def test_a_table_names_files_below_its_own_folder_and_no_others(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    fill(tmp_path, {"in/sub/a.png": FILES[0], "private.png": FILES[1], "in/c.png": FILES[2]})
    (tmp_path / "in/link.png").symlink_to(tmp_path / "private.png")
    paths = ["sub/a.png", "../private.png", str(tmp_path / "private.png"), "link.png", "c.png"]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    images = pyarrow.array([{"bytes": None, "path": path} for path in paths], kind)
    about = {b"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}}).encode()}
    parquet.write_table(pyarrow.table({"image": images}).replace_schema_metadata(about), tmp_path / "in/x.parquet")
    store = pack(tmp_path / "in/x.parquet", tmp_path / "store", held_out=0)
    assert [path for path, _ in store.refused] == ["x.parquet[1]", "x.parquet[2]", "x.parquet[3]"]
    assert store.count("train") == 2


@pytest.mark.slow
def test_a_saved_data_set_names_no_file_outside_its_folder(tmp_path):
    """The library keeps the images themselves in it; one that was written by hand may name any file."""
    pyarrow, datasets = pytest.importorskip("pyarrow"), pytest.importorskip("datasets")
    (tmp_path / "private.png").write_bytes(FILES[0])
    features = datasets.Features({"image": datasets.Image()})
    rows = [{"bytes": data, "path": str(tmp_path / "private.png")} for data in (FILES[1], None)]
    datasets.Dataset.from_dict({"image": rows[:1]}, features).save_to_disk(tmp_path / "in")
    schema = features.arrow_schema
    table = pyarrow.table({"image": pyarrow.array(rows, schema.field("image").type)})
    (file,) = (tmp_path / "in").glob("*.arrow")
    with pyarrow.OSFile(str(file), "wb") as out, pyarrow.ipc.new_stream(out, schema) as writer:
        writer.write_table(table.cast(schema))
    store = pack(tmp_path / "in", tmp_path / "store", held_out=0)
    assert store.count("train") == 1 and [path for path, _ in store.refused] == ["train[1]"]


@pytest.mark.slow
def test_a_data_set_of_the_hub_names_files_of_the_library_s_caches_alone(tmp_path, monkeypatch):
    fill(tmp_path, {"cache/fetched.png": FILES[0], "private.png": FILES[1]})
    paths = [str(tmp_path / name) for name in ("cache/fetched.png", "private.png", "cache/../private.png")]

    def load(datasets, _):
        features = datasets.Features({"image": datasets.Image(decode=False)})
        return datasets.Dataset.from_dict({"image": [{"bytes": None, "path": path} for path in paths]}, features)

    datasets = of_hub(monkeypatch, load)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    store = pack("hf:me/animals", tmp_path / "store", held_out=0)
    assert store.count("train") == 1 and [path for path, _ in store.refused] == ["train[1]", "train[2]"]


def other_columns(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": ["a"], "blob": [b"no image"]}), folder / "x.parquet")
    return folder / "x.parquet"


def mixed(folder):
    return tarred(folder / "m.tar", [("a.png", FILES[0]), ("b.png", encoded(Image.fromarray(IMAGES[0][:, :4])))])


def written(name, data):
    return lambda folder: (folder / name).write_bytes(data) and folder / name


@pytest.mark.parametrize(
    ("make", "given", "place"),
    [
        pytest.param(other_columns, "x.parquet", "text, blob", marks=pytest.mark.slow),
        (mixed, "m.tar", "'b.png'"),
        pytest.param(
            written("x.parquet", b"PAR1 and no more PAR1"), "x.parquet", "parquet file", marks=pytest.mark.slow
        ),
        (written("x.npy", b"\x93NUMPY\x01\x00"), "x.npy", "damaged"),
        (lambda folder: tarred(folder / "t.tar", [("a.txt", b"x"), ("b.json", b"{}")]), "t.tar", "2 ignored"),
        (lambda folder: {"pictures": IMAGES}, "the arrays", "pictures"),
        (lambda folder: (IMAGES, LABELS[:3]), "the arrays", "[3], not [24]"),
        (lambda folder: (IMAGES, [[0], [1, 2]]), "the arrays", "lengths"),
        (lambda folder: {"images": IMAGES, "labels": [[1]] * 23 + [[1, 2]]}, "the arrays", "lengths"),
        (lambda folder: np.zeros((2, 3, 8, 4), np.uint8), "the arrays", "[3, 8, 4] may be [C, H, W] or [H, W, C]"),
        (lambda folder: np.zeros((3, 4)), "the arrays", "[3, 4]"),
        (lambda folder: np.zeros((3, 4, 4), np.complex64), "the arrays", "complex64"),
        (lambda folder: IMAGES * np.float32(np.nan), "the arrays", "missing"),
        (lambda folder: np.full((3, 4, 4), 256, np.int32), "the arrays", "int32"),
        (lambda folder: 7, "int", ""),
        (lambda folder: [{"pic": 1}], "the list", "pic"),
    ],
)
def test_what_cannot_be_packed_is_one_line_and_leaves_nothing(tmp_path, make, given, place):
    (tmp_path / "in").mkdir()
    refused = mistake(pack, make(tmp_path / "in"), tmp_path / "store")
    assert str(refused.given).endswith(given) and place in refused.allowed
    assert "\n" not in str(refused) and not (tmp_path / "store").exists()


def test_the_extra_is_named_where_its_library_is_missing(tmp_path, monkeypatch, unstir, refused):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    refused(unstir("data", "pack", "hf:me/animals", "--out", "store"), "needs datasets", "pip install '.[hf]'")


def test_the_command_says_where_the_data_came_from_and_its_licence(unstir, tmp_path):
    npz(tmp_path)
    status, out, err = unstir("data", "pack", "x.npz", "--out", "store", "--license", "CC0")
    assert status == 0 and "x.npz" in out and "CC0" in out, err
    assert Store.open("store").manifest["settings"] == {"size": None, "channels": 3, "held_out": 0.1, "seed": 0}
    assert json.loads((tmp_path / "store" / "origin.json").read_text())["license"] == "CC0"
    assert "CC-BY-4.0" in unstir("data", "pack", "x.npz", "--out", "store", "--license", "CC-BY-4.0")[1]
    assert "CC-BY-4.0" in unstir("data", "pack", "x.npz", "--out", "store")[1]  # and stays


@pytest.mark.slow
def test_a_table_without_rows_adds_none(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for number, files in enumerate((FILES, [])):
        table = pyarrow.table({"label": LABELS[: len(files)], "image": pyarrow.array(files, pyarrow.binary())})
        parquet.write_table(table, tmp_path / f"{number}.parquet", row_group_size=7)
    store = pack(tmp_path, tmp_path.parent / f"{tmp_path.name}-store", held_out=0)
    assert np.array_equal(store.images("train"), IMAGES.transpose(0, 3, 1, 2))
    assert store.labels("train").tolist() == LABELS.tolist()


def tar(path, names):
    """A tar of images, each grey as its place, and of other files that hold the class "sky"."""
    drawn = [name.lower().endswith(("png", "jpg")) for name in names]
    images = [encoded(Image.new("L", (4, 4), place)) if drawn[place] else b"sky" for place in range(len(names))]
    return tarred(path, zip(names, images, strict=True))


@pytest.mark.parametrize(
    ("names", "packed", "further"),
    [
        (["a.jpg", "a.seg.png", "a.mask.png", "b.jpg"], [0, 3], ["a.seg.png", "a.mask.png"]),
        (["a.depth.png", "a.jpg", "a.cls", "b.depth.png", "b.jpg", "b.cls"], [1, 4], ["a.depth.png", "b.depth.png"]),
        (["a.rgb.png", "a.cls", "v1.0/b.rgb.png", "v1.0/b.cls"], [0, 2], []),
        (["a.jpg", "a.SEG.png"], [0], ["a.SEG.png"]),
        (["a.png", "b.png", "a.png"], [2, 1], []),  # one that was added again, as tar -u does: the last counts
    ],
)
def test_the_image_of_a_sample_is_the_one_without_a_further_point(tmp_path, names, packed, further):
    store = pack(tar(tmp_path / "x.tar", names), tmp_path / "store", held_out=0)
    assert store.images("train")[:, 0, 0, 0].tolist() == packed
    assert store.classes == (("sky",) if any(name.endswith("cls") for name in names) else ())
    noted = [(note.count, list(note.examples)) for note in store.notes]
    assert noted == ([(len(further), [f"x.tar: {name}" for name in further])] if further else [])


@pytest.mark.parametrize(
    ("names", "sample", "count"),
    [
        ([f"set1.0/img.{n:04d}.png" for n in range(20)], "'set1.0/img'", 20),
        (["b.png", "a.jpg", "a.png"], "'a'", 2),
        (["a.mask.png", "a.jpg", "a.png"], "'a'", 3),
        (["a.png", "a.PNG"], "'a'", 2),
        (["a.left.png", "a.right.png"], "'a'", 2),
    ],
)
def test_a_sample_of_several_images_is_refused_in_one_line(tmp_path, names, sample, count):
    with pytest.raises(UserError, match=rf"\b{count} images") as refused:
        pack(tar(tmp_path / "x.tar", names), tmp_path / "store")
    assert refused.value.given.startswith(str(tmp_path / "x.tar")) and refused.value.given.endswith(sample)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


def test_what_is_beside_the_images_of_a_split_that_is_left_out_is_not_told_twice(tmp_path):
    (tmp_path / "in").mkdir()
    tar(tmp_path / "in/train-0.tar", ["a.jpg", "a.cls"])
    tar(tmp_path / "in/test-0.tar", ["b.jpg", "b.seg.png"])
    store = pack(tmp_path / "in", tmp_path / "store", held_out=0)
    assert [note.count for note in store.notes] == [1]


@pytest.fixture
def folder(tmp_path):
    """Images of two classes, in train and test."""
    for number in range(12):
        place = tmp_path / "in" / ("test" if number % 4 == 0 else "train") / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (20 * number, 0, 0)).save(place / f"{number}.png")
    return tmp_path / "in"


@pytest.mark.parametrize("kind", ["", "gz"])
def test_a_tar_of_class_folders_is_packed_as_the_folder(tmp_path, folder, kind):
    (folder / "train/cat/empty.png").touch()
    with tarfile.open(tmp_path / "x", f"w:{kind}") as made:
        made.add(folder, "photos")
    whole, store = pack(folder, tmp_path / "whole"), pack(tmp_path / "x", tmp_path / "store")
    assert store.content_hash == whole.content_hash and store.classes == ("cat", "dog")
    assert [store.count(split) for split in ("train", "held_out")] == [9, 3]
    assert store.refused == (("photos/train/cat/empty.png", "empty file"),)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "store", "whole", "x"]
    (tmp_path / "x").touch()
    assert pack(tmp_path / "x", tmp_path / "store").manifest == store.manifest
    with tarfile.open(tmp_path / "x", f"w:{kind}") as made:
        made.add(folder / "train", "photos")
    assert mistake(pack, tmp_path / "x", tmp_path / "store").given == tmp_path / "store"


HOSTILE = {
    "a link": ("a.png", tarfile.SYMTYPE, "/etc/passwd"),
    "a link inside": ("a.png", tarfile.SYMTYPE, "b.png"),
    "a hard link": ("a.png", tarfile.LNKTYPE, "../../b.png"),
    "a device": ("a.png", tarfile.CHRTYPE, ""),
    "a pipe": ("a.png", tarfile.FIFOTYPE, ""),
    "absolute": ("/a.png", tarfile.REGTYPE, ""),
    "up": ("x/../../a.png", tarfile.REGTYPE, ""),
    "a folder up": ("../x", tarfile.DIRTYPE, ""),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("kind", ["", "gz"])
def test_a_tar_that_leads_out_of_itself_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, what, kind):
    monkeypatch.setattr(tarfile.TarFile, "extractall", None)
    tar(tmp_path / "plain.tar", ["b.png"])
    with tarfile.open(tmp_path / "x.tar", f"w:{kind}") as made, tarfile.open(tmp_path / "plain.tar") as plain:
        made.addfile(plain.next(), plain.extractfile("b.png"))
        member = tarfile.TarInfo(HOSTILE[what][0])
        member.type, member.linkname = HOSTILE[what][1:]
        made.addfile(member)
    assert mistake(pack, tmp_path / "x.tar", tmp_path / "store").given == f"{tmp_path / 'x.tar'}: {member.name}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain.tar", "x.tar"]


def test_a_tar_larger_than_the_disk_is_refused(tmp_path, monkeypatch):
    file = tar(tmp_path / "x.tar", ["a.png", "b.png"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(UserError, match=r"\d+ bytes, 100"):
        pack(file, tmp_path / "other")


@pytest.mark.parametrize("kind", ["", "gz"])
def test_a_damaged_tar_is_one_line_or_gives_its_sound_images(tmp_path, folder, kind):
    with tarfile.open(tmp_path / "x", f"w:{kind}") as made:
        made.add(folder, ".")
    whole, chance = (tmp_path / "x").read_bytes(), random.Random(0)
    for trial in range(8):
        data = bytearray(whole)
        for _ in range(1 + trial % 3):
            data[chance.randrange(4, len(data))] = chance.randrange(256)
        (tmp_path / "y").write_bytes(data[: len(data) // 2] if trial % 4 == 3 else data)
        try:
            pack(tmp_path / "y", tmp_path / f"{trial}").verify()
        except UserError as error:
            assert "\n" not in str(error) and "Error" not in str(error)
    assert not list(tmp_path.glob(".*"))
