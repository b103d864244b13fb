"""Classes by name or number, and the names that each file of data brings."""

import numpy as np
import pytest
from encoding import encoded
from PIL import Image

from refusals import mistake, refusing
from unstir import pack
from unstir.data.classes import class_number
from unstir.errors import UserError

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


def test_each_split_of_a_saved_data_set_names_its_own_labels(tmp_path):
    datasets = pytest.importorskip("datasets")
    lists = {"train": ["cat", "dog"], "test": ["dog", "bird", "cat"]}
    splits = {split: table(datasets, names * 2, names) for split, names in lists.items()}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "in")
    store = pack(tmp_path / "in", tmp_path / "store")
    assert store.classes == ("cat", "dog", "bird") and store.count("held_out") == 6
    assert found(store) == {"cat": 4, "dog": 4, "bird": 2}
