"""Images that anything made, judged as a run's own are: to the last digit, found again, and refused in one line."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import copied, tiny_config
from refusals import mistake, refusing
from unstir.chain import Chain
from unstir.data import Store, pack
from unstir.errors import UserError
from unstir.generate.drawing import Job
from unstir.generate.folder import save_images
from unstir.metrics import plan as module
from unstir.metrics.evaluate import evaluate_images
from unstir.metrics.evaluation import SHARES, find, saved
from unstir.metrics.images import AS_GIVEN, Images, Like, images_of, label_of, read
from unstir.metrics.request import EvaluationRequest
from unstir.pictures.grid import to_picture
from unstir.runs.run import Run
from unstir.train.launch import train_run
from unstir.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("quick")
SMALL = ("--num", 24, "--seeds", 2, "--batch-size", 16)


@pytest.fixture(scope="module")
def place(classified, tmp_path_factory):
    """A store with its classifier and two tiny runs of it, one without classes, one with."""
    base = tmp_path_factory.mktemp("images")
    copied(classified, base / "digits", classifier=True)
    for name, changes in (("plain", {}), ("classes", {"model__num_classes": 10})):
        config = tiny_config(base / "digits", data__source=str(base / "digits"), train__length="2 steps", **changes)
        train_run(config, base / name)
    return base


@pytest.fixture(scope="module")
def store(place):
    return Store.open(place / "digits")


def drawn(run):
    return sorted((run / "generated").iterdir(), key=lambda folder: folder.name.split("seed")[1][:1])


def saved_as(folder, images, names=None):
    """Images, uint8 [N, C, H, W], as PNG files of a folder."""
    for number, image in enumerate(images):
        path = folder / (f"{number}.png" if names is None else names[number])
        path.parent.mkdir(parents=True, exist_ok=True)
        to_picture(image).save(path)
    return folder


@pytest.mark.parametrize("name", ["plain", "classes"])
def test_the_figures_of_a_folder_are_those_of_the_run_that_drew_it(place, store, command, name):
    searching = [] if name == "plain" else ["--no-memorisation"]  # one search for copies is enough
    assert command("evaluate", place / name, *SMALL, *searching)[0] == 0
    (own,) = [each for each in saved(Run.open(place / name)) if each.protocol["seeds"] == 2]
    out = command.done(
        "evaluate", "--images", *drawn(place / name), "--store", store.path, "--flip", "--json", *searching
    )
    (shown,) = json.loads(out)["evaluations"]
    found = find(store, 0, shown["protocol"])
    assert found.figures == own.figures and len(found.figures) > 5
    assert found.memorisation == own.memorisation
    assert found.protocol["label"] == own.protocol["label"] == (SHARES if name == "classes" else None)
    assert "classifier/accuracy" in found.figures or name == "plain"
    same = {key: found.protocol[key] for key in found.protocol if key != "images"}
    assert same.items() <= own.protocol.items()


def test_a_run_and_a_folder_are_compared_both_ways(place, store, command, refused):
    small = (*SMALL, "--no-memorisation")
    command("evaluate", place / "plain", *small)
    both = ("--images", *drawn(place / "plain"), "--store", store.path, "--no-memorisation")
    out = command.done("evaluate", *both, "--against", place / "plain")
    assert len(re.findall(r", \+0\.0+ ± ", out)) >= 5 and out.splitlines()[-1].endswith("undecided")
    together = saved_as(place / "together", images_of(drawn(place / "plain"), store).parts[0].repeat(2, 1, 1, 1))
    refused(command("evaluate", place / "plain", *small, "--against", together), f"--against {together} has not been")
    assert "2 x 24 images" in command.done("evaluate", "--images", together, *both[-3:], "--against", place / "plain")
    status, out, err = command("evaluate", place / "plain", *small, "--against", together)
    assert status == 0 and out.splitlines()[-1].endswith("undecided"), err
    refused(command("evaluate", place / "classes", *small, "--against", together), "label is")
    refused(command("evaluate", "--images", together, *both[-3:], "--against", together), f"--against {together} ")


def test_beside_eighteen_photos_copies_are_searched_for_all_the_same(tmp_path, store):
    photos = pack(saved_as(tmp_path / "photos", store.images("train")[:18]), tmp_path / "few", channels=1)
    assert photos.count("train") == 16 and photos.count("held_out") == 2
    copies = photos.images("train").repeat(60, 1, 1, 1)
    for images, verdict in ((copies, "copies"), (store.images("held_out"), None)):
        judged, _ = evaluate_images(images, photos)
        assert list(judged.figures) == ["patches/swd"] and judged.figures["patches/swd"].num_floor == 0
        assert judged.memorisation.verdict == verdict


def test_the_same_images_are_found_again_wherever_they_lie(place, store, monkeypatch):
    images = store.images("held_out")[:30]
    first, _ = evaluate_images(saved_as(place / "here", images), store)
    monkeypatch.setattr(module, "measure", lambda *_, **__: pytest.fail("measured again"))
    monkeypatch.setattr(module, "search_copies", lambda *_, **__: pytest.fail("searched again"))
    (place / "here").rename(place / "there")
    shutil.make_archive(str(place / "zipped"), "zip", place / "there")
    np.save(place / "array.npy", images.permute(0, 2, 3, 1).numpy())
    np.savez(place / "arrays.npz", images[:, 0].numpy())
    for source in ("there", "zipped.zip", "array.npy", "arrays.npz"):
        assert evaluate_images(place / source, store)[0] == replace(first, source=str(place / source)), source
    batches = (images[begin : begin + 7].numpy() for begin in range(0, 30, 7))
    unnamed = replace(first, source="the images")
    assert evaluate_images(batches, store)[0] == unnamed
    assert evaluate_images(images, store, EvaluationRequest(store=place))[0] == unnamed
    with pytest.raises(pytest.fail.Exception, match="measured"):
        evaluate_images(images.flip(0), store)
    with pytest.raises(pytest.fail.Exception, match="searched"):
        evaluate_images(images, store, EvaluationRequest(flip=True))


def test_classes_that_a_run_was_asked_for_are_those_of_the_same_names(tmp_path, make_run, store, logged):
    run, own = make_run(model__num_classes=10, train__length="1 step")
    Trainer(run, own).run()
    names = [f"digit {number}" for number in range(10)]
    model = run.model(device="cpu")
    named = replace(model, labels=replace(model.labels, names=tuple(names)))
    save_images(named, Job(num=12, chain=Chain("ddim", steps=1)), tmp_path / "made")
    save_images(named, Job(num=13, chain=Chain("ddim", steps=1)), tmp_path / "made")  # goes on, with names or without

    def asked(classes):
        logged.clear()
        return images_of(tmp_path / "made", with_names(store, classes)).asked, [*logged]

    usual = range(13)
    for classes, numbers in (
        (names, usual),
        (names[::-1], range(9, -4, -1)),
        (store.classes, usual),
        ([*names, "another"], usual),
    ):
        (found,), sentences = asked(classes)
        assert [number % 10 for number in numbers] == found.tolist() and not sentences
    found, (line,) = asked(["one", *names[1:]])
    assert found is None and f"({names[0]})" in line
    save_images(named, Job(num=12, chain=Chain("ddim", steps=1)), tmp_path / "array", format="npy")
    (found,) = images_of(tmp_path / "array", with_names(store, names)).asked
    assert found.tolist() == [number % 10 for number in range(12)]
    np.save(tmp_path / "array/images.npy", np.load(tmp_path / "array/images.npy")[::-1])
    assert "images.npy" in str(mistake(images_of, tmp_path / "array", store))


def with_names(store, classes):
    return replace(store, manifest={**store.manifest, "classes": list(classes)})


def test_subfolders_of_the_classes_say_what_was_asked_for(place, store, logged):
    labels = store.labels("held_out")
    names = [f"{store.classes[label]}/{number}.png" for number, label in enumerate(labels[:40])]
    folder = saved_as(place / "by-class", store.images("held_out")[:40], names)
    found = images_of(folder, store)
    assert found.asked[0].tolist() == sorted(labels[:40].tolist())
    sets, asked = found.sets(10, 3), found.classes(10, 3)
    assert torch.cat([each.bincount(minlength=10)[None] for each in asked]).sum(0).max() <= 5
    shown = dict(zip(map(tuple, found.parts[0].flatten(1).tolist()), found.asked[0].tolist(), strict=True))
    for some, classes in zip(sets, asked, strict=True):
        assert [shown[tuple(image)] for image in some.flatten(1).tolist()] == classes.tolist()
    odd = saved_as(place / "odd", store.images("held_out")[:40], [f"set{n % 2}/{n}.png" for n in range(40)])
    assert images_of(odd, store).asked is None
    assert len(logged) == 1 and f"{store.path} " in logged[0] and "(set0, set1)" in logged[0]
    assert images_of(odd, store, label="7").asked[0].tolist() == [7] * 40
    assert len(logged) == 1  # for those with a label are judged as of its class


def test_labels_are_names_or_numbers_and_never_some_of_each(place, store):
    np.savez(place / "x.npz", images=store.images("held_out")[:30, 0].numpy(), labels=np.arange(30) % 3)
    like = with_names(store, [str(number) for number in range(1, 11)])  # "1" is a name, and the number of another
    assert images_of(place / "x.npz", like).asked[0].unique().tolist() == [0, 1, 2]


def test_classes_asked_for_have_a_name_in_the_protocol(store):
    shares = store.labels("train").bincount() / store.count("train")
    near = torch.repeat_interleave(torch.arange(10), (shares * 100).round().long())
    assert label_of([near], store) == SHARES and label_of(None, store) is None
    assert label_of([near[:50], near[50:]], store) == AS_GIVEN
    assert label_of([torch.full((9,), 4)] * 2, store) == 4


def test_one_folder_is_divided_and_several_are_sets():
    images = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1)
    one = Images("one", (images,))
    assert torch.equal(one.sets(60, 1)[0], images) and one.classes(20, 3) is None
    sets = one.sets(20, 3)
    assert sorted(torch.cat(sets).flatten().tolist()) == list(range(60))
    assert all((each.flatten().diff() > 0).all() for each in sets) and sets[0].max() > 40 > 20 > sets[2].min()
    labels = torch.arange(10).repeat_interleave(6)
    classes = Images("one", (images,), (labels,)).classes(10, 3)
    assert [each.bincount().tolist() for each in classes] == [[1] * 10] * 3
    several = Images("several", (images, images + 60)).sets(60, 2)
    assert [int(each.min()) for each in several] == [0, 60]
    assert one.hash != Images("one", (images[:30], images[30:])).hash != Images("one", (images,), (labels,)).hash


@pytest.fixture(scope="module")
def bad(place, store):
    """A folder each of what is refused."""
    images = store.images("held_out")
    small = torch.zeros(20, 1, 4, 4, dtype=torch.uint8)
    saved_as(place / "small", small)
    saved_as(place / "sizes", small)
    to_picture(images[0]).save(place / "sizes" / "99.png")
    saved_as(place / "few", images[:5])
    saved_as(place / "others", images[5:10])
    coloured = torch.zeros(20, 3, 8, 8, dtype=torch.uint8)
    coloured[:, 0] = 200
    saved_as(place / "coloured", coloured)
    (place / "empty").mkdir(exist_ok=True)
    saved_as(place / "damaged", images[:20])
    (place / "damaged" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"broken")
    saved_as(place / "text", images[:20])
    (place / "text" / "4.png").write_text("no image")
    (place / "oblong").mkdir()
    Image.new("L", (12, 9)).save(place / "oblong/0.png")
    np.save(place / "nothing-in.npy", images[:0].numpy())
    np.save(place / "floats.npy", images[:20].numpy() * 0.37)
    (place / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    to_picture(images[0]).save(place / "one.png")
    return place


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("small", "4x4"), ("oblong", "a store of 9x12"), ("few", "holds 5"), ("coloured", "colour"),
        ("sizes", "several sizes"), ("empty", "no images"), ("damaged", ": 3.png "), ("text", ": 4.png "),
        ("floats.npy", "floats.npy"), ("broken.npz", "damaged"), ("one.png", "folder"), ("nothing", "No such"),
        ("plain", "a run"), ("digits", "a store"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused(bad, store, source, word):
    before = sorted(store.path.rglob("*"))
    with pytest.raises((UserError, OSError), match=word):
        evaluate_images(bad / source, store)
    assert sorted(store.path.rglob("*")) == before


@pytest.mark.parametrize(
    ("names", "asked", "key"),
    [
        (["few"], {"store": None}, "store"), (["few"], {"checkpoint": "3"}, "checkpoint"),
        (["few"], {"chain": {"eta": 1.0}}, "eta"), (["few", "others"], {"seeds": 3}, "seeds"),
        (["few"], {"seeds": 0}, "seeds"), (["few", "few"], {}, ""), (["few"], {"num": 20}, ""),
        (["nothing-in.npy"], {"label": "3"}, ""),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_images_is_refused(bad, store, names, asked, key):
    with refusing(key):
        evaluate_images([bad / name for name in names], None, EvaluationRequest(**{"store": store.path, **asked}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "either a run"), (("{}/plain", "--images", "{}/few"), "either a run"), (("{}/none",), "none does"),
        (("{}/few",), "holds no run"), (("{}/plain", "--flip"), "--flip is for images"),
        (("--images", "{}/few", "--store", "{}/digits", "--eta", 1), "--eta 1 "),
        (("--images", "{}/few", "--store", "{}/digits", "--label", "x"), "--label x is no class"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused_in_one_line(bad, command, refused, options, words):
    refused(command("evaluate", *(str(each).replace("{}", str(bad)) for each in options)), words)


def test_sets_of_one_image_may_be_equal(store):
    image = store.images("held_out")[:1].expand(30, -1, -1, -1)
    assert len(images_of(torch.stack([image, image]), store).parts) == 2
    images = store.images("held_out")[:30]
    assert "same images" in str(mistake(images_of, torch.stack([images, images]), store))


def test_labels_that_fit_no_images_are_refused(place, store):
    images = store.images("held_out")[:30].reshape(2, 15, *store.shape)
    asked = images_of(images, store, labels=[3] * 15 + [4] * 15).asked
    assert [each.tolist() for each in asked] == [[3] * 15, [4] * 15]
    labelled = saved_as(place / "labelled", images[0])
    for source, count in ((images, 29), (images, 15), (images, 31), (images, 1), (labelled, 15)):
        assert mistake(images_of, source, store, labels=[3] * count).key == "labels"


def test_what_is_done_to_files_out_of_the_ordinary_is_said(tmp_path, store, logged):
    colour = replace(store, manifest={**store.manifest, "shape": [3, 8, 8]})
    Image.new("RGB", (8, 8)).save(tmp_path / "whole.png")
    Image.new("RGBA", (8, 8)).save(tmp_path / "clear.png")
    assert images_of(tmp_path, colour).parts[0].shape == (2, 3, 8, 8)
    (line,) = logged
    assert line.startswith(f"{tmp_path}: ") and "transparency" in line and "1 (clear.png)" in line


@pytest.mark.parametrize("labels", [np.arange(6) % 10, np.arange(6) + 5])
def test_a_second_array_is_the_classes_by_the_stores_numbers(tmp_path, store, logged, labels):
    named = replace(store, manifest={**store.manifest, "classes": [f"digit {number}" for number in range(10)]})
    images = store.images("train")[:6]
    path = tmp_path / "made.npz"
    np.savez(path, images.permute(0, 2, 3, 1).numpy(), labels)
    for each in (store, named):
        found, classes, _ = read(path, each)
        assert found.equal(images)
        assert (classes is None) if labels.max() > 9 else (classes.tolist() == labels.tolist())
    said = [f"{path} has classes that {store.path} has not (10): its images are judged as of no class"] * 2
    assert logged == (said if labels.max() > 9 else [])
    logged.clear()
    read(path, Like(store.path, store.shape, (), store.scale))  # where --label says the class
    assert logged == []


ZEROS = np.zeros((20, 1, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("source", "asked", "labels", "key"),
    [
        (None, {}, None, "images"), (7, {}, None, "images"), (ZEROS, {"split": "test"}, None, "split"),
        *((ZEROS, {}, labels, "labels") for labels in (
            np.arange(20) / 2, ["1"] * 20, [], [np.nan] * 20, [10.0] * 20, [3] * 19, [3] * 21,
        )),
    ],
)  # fmt: skip
def test_what_python_alone_can_give_is_refused(store, source, asked, labels, key):
    assert mistake(evaluate_images, source, store, EvaluationRequest(**asked), labels=labels).key == key
