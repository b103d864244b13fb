"""Faults planted in the data: each is found by its own check, and by no other."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from unstir.data import Store, pack
from unstir.doctor import CHECKS, diagnose, examine, gather
from unstir.doctor.held_out import measurement
from unstir.runs.toml import from_dict
from unstir.train.launch import open_run

NUM = 600


def pictures(num=NUM, seed=0):
    """Drawings without copies: a light rectangle on a dark ground, uint8 [num, 8, 8]."""
    generator = np.random.default_rng(seed)
    images = np.zeros((num, 8, 8), np.uint8)
    for image in images:
        top, left = generator.integers(0, 5, 2)
        image[top : top + 4, left : left + 4] = generator.integers(120, 256, (4, 4))
        image[7, 7] = 255
    return images


@pytest.fixture
def begun(tmp_path):
    """begun(folder of images, ...) -> the folder of a run that has not taken a step on them."""
    return beginner(tmp_path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The facts of a run on sound images, for tests of what is said of its looks at held-out ones."""
    folder = tmp_path_factory.mktemp("sound")
    path = beginner(folder)(write(folder / "images", pictures()))
    return gather(path, samples=False)


def beginner(tmp_path):
    def begin(images, held_out=0.1, classes=0):
        store = pack(images, tmp_path / "store", size=8, channels=1, held_out=held_out)
        config = from_dict(
            {
                "data": {"source": str(images), "size": 8, "channels": 1, "store": str(store.path)},
                "model": {
                    "in_channels": 1,
                    "channels": 8,
                    "mults": [1],
                    "attention": [],
                    "groups": 4,
                    "num_classes": classes,
                },
                "train": {"batch_size": 8, "length": "100 steps", "warmup": "5 steps", "dtype": "float32"},
            },
            "test",
        )
        return open_run(config, tmp_path / "run", store).path

    return begin


def write(folder, images, first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images, start=first):
        Image.fromarray(image).save(folder / f"{i:04d}.png")
    return folder


def findings(path):
    return {finding.check: finding.severity for finding in diagnose(path, samples=False).findings}


def test_of_sound_images_nothing_is_said(begun, tmp_path):
    report = diagnose(begun(write(tmp_path / "images", pictures())), samples=False)
    assert report.findings == () and report.healthy
    assert {"copies", "leak", "value-range", "store"} <= set(report.checked)
    assert (
        report.skipped["brightness"] == "left out by --no-samples"
        and report.skipped["loss-rises"] == "no line in metrics.jsonl yet"
    )
    assert {*report.checked, *report.skipped} == set(CHECKS)


def test_masks_of_0_and_1_are_black_for_a_network(begun, tmp_path):
    path = begun(write(tmp_path / "images", (pictures() > 100).astype(np.uint8)))
    assert findings(path)["value-range"] == "problem"
    (finding,) = [each for each in diagnose(path, samples=False).findings if each.check == "value-range"]
    assert "0..1 of 0..255" in finding.evidence and finding.figure == 1 and "times 255" in finding.remedy


def test_faint_images_are_named(begun, tmp_path):
    assert findings(begun(write(tmp_path / "images", 120 + pictures() // 7))) == {"value-range": "warning"}


@pytest.mark.parametrize(("share", "severity"), [(0.004, None), (0.05, "warning"), (0.3, "problem")])
def test_copies_are_counted(begun, tmp_path, share, severity):
    images, count = pictures(), round(share * NUM)
    images[1 : count + 1] = images[0]
    found = findings(begun(write(tmp_path / "images", images), held_out=0))
    assert found == ({"copies": severity} if severity else {})


@pytest.mark.parametrize(("num", "severity"), [(0, None), (1, "warning"), (40, "problem")])
def test_held_out_images_that_are_trained_on_are_named(begun, tmp_path, num, severity):
    images = pictures()
    write(tmp_path / "images/train", images)
    new = pictures(200, seed=1)
    new[:num] = images[:num]
    write(tmp_path / "images/test", new)
    path = begun(tmp_path / "images")
    assert Store.open(tmp_path / "store").count("held_out") == 200
    assert findings(path) == ({"leak": severity} if severity else {})


@pytest.mark.parametrize(("num", "severity"), [(1, "note"), (60, "warning"), (700, "problem")])
def test_refused_files_are_named(begun, tmp_path, num, severity):
    folder = write(tmp_path / "images", pictures())
    for i in range(num):
        (folder / f"broken{i:03d}.png").write_bytes(b"\x89PNG\r\n\x1a\nnot at all")
    path = begun(folder)
    assert findings(path) == {"refused": severity}
    assert "broken000.png" in diagnose(path, samples=False).findings[0].evidence


@pytest.mark.parametrize(("labelled", "severity"), [(3, "warning"), (0, "note")])
def test_unequal_classes_matter_where_the_network_has_labels(begun, tmp_path, labelled, severity):
    images = pictures()
    write(tmp_path / "images/many", images[:300])
    write(tmp_path / "images/others", images[300:580])
    write(tmp_path / "images/few", images[580:592])
    path = begun(tmp_path / "images", classes=labelled)
    assert findings(path) == {"classes": severity}
    assert "few has 11" in diagnose(path, samples=False).findings[0].evidence


@pytest.mark.parametrize(("others", "severity"), [(24, "problem"), (60, None)])
@pytest.mark.parametrize("labelled", [2, 0])
def test_one_class_that_is_nearly_all_is_a_problem(begun, tmp_path, labelled, others, severity):
    images = pictures()
    write(tmp_path / "images/nearly_all", images[others:])
    write(tmp_path / "images/others", images[:others])
    path = begun(tmp_path / "images", classes=labelled)
    assert findings(path) == ({"classes": severity} if severity else {})
    if severity:
        assert "nearly_all has 518 of 540 training images (95.9%)" in diagnose(path, samples=False).findings[0].evidence


@pytest.mark.parametrize(("num", "severity"), [(300, "note"), (60, "warning")])
def test_few_images_are_advice(begun, tmp_path, num, severity):
    path = begun(write(tmp_path / "images", pictures(num)))
    assert findings(path) == {"few-images": severity} and diagnose(path, samples=False).healthy


def test_a_store_that_has_gone_changed_or_is_another(begun, tmp_path):
    path = begun(write(tmp_path / "images", pictures()))
    store = tmp_path / "store"
    elsewhere = pack(write(tmp_path / "others", pictures(seed=3)), tmp_path / "other", channels=1)
    named = diagnose(path, store=elsewhere.path, samples=False).findings
    assert [each.check for each in named] == ["store"] and "is not the data that the run began with" in named[
        0
    ].evidence
    file = store / "train.images.npy"
    content = bytearray(file.read_bytes())
    content[5000] ^= 255
    file.write_bytes(content)
    assert findings(path) == {"store": "problem"}
    store.rename(tmp_path / "moved")
    report = diagnose(path, samples=False)
    assert [each.check for each in report.findings] == ["store"] and report.skipped["copies"] == "the data is not there"


def lines(step, held_out, train):
    """A line of held_out.jsonl for these losses of images."""
    mean = lambda values: [float(np.mean(values))] * 3
    return {
        "step": step, "train": mean(train), "held_out": mean(held_out),
        "of_train": list(map(float, train)), "of_held_out": list(map(float, held_out)),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rise", "fall", "severity"),
    [(0.02, 0.02, "problem"), (0.005, 0.02, "warning"), (0.0002, 0.02, None), (-0.01, 0.02, None), (0.02, -0.02, None)],
)
def test_overfitting_is_a_rise_held_out_against_a_fall_in_training(sound, rise, fall, severity):
    generator = np.random.default_rng(0)
    images, others = generator.normal(0.1, 0.04, (2, 128))  # from image to image far more than what is looked for
    noise = lambda: generator.normal(0, 0.005, 128)
    seen = [
        lines(0, others + 0.9, images + 0.9),
        lines(1000, others, images),
        lines(3000, others + rise + noise(), images - fall + noise()),
    ]
    report = examine(dataclasses.replace(sound, held_out=tuple(seen)))
    assert {each.check: each.severity for each in report.findings} == ({"overfit": severity} if severity else {})
    if severity:
        assert "--checkpoint 1000" in report.findings[0].remedy
    without = [{key: value for key, value in line.items() if not key.startswith("of_")} for line in seen]
    assert examine(dataclasses.replace(sound, held_out=tuple(without))).findings == ()  # no errors, no verdict


@pytest.mark.parametrize(
    ("rise", "change", "unrest", "severity"),
    [
        (0.003, -0.0001, 0.1, None),  # what training images do is not known well enough to tell the splits apart
        (0.001, -0.02, 0.005, None),  # the held-out loss may have stayed where it was
        (0.02, +0.0001, 0.005, "problem"),  # remembered already: there is nothing left to fall
        (0.02, +0.01, 0.005, None),  # the network fails at both
    ],
)
def test_overfitting_is_a_rise_that_surely_exceeds_the_change_in_training(sound, rise, change, unrest, severity):
    generator = np.random.default_rng(0)
    images, others = generator.normal(0.1, 0.04, (2, 128))
    exactly = lambda mean, std: mean + std * (noise := generator.normal(0, 1, 128)) - std * noise.mean()
    seen = (lines(1000, others, images), lines(3000, others + exactly(rise, 0.005), images + exactly(change, unrest)))
    report = examine(dataclasses.replace(sound, held_out=seen))
    assert {each.check: each.severity for each in report.findings} == ({"overfit": severity} if severity else {})
    if severity:
        assert f"changed by {change:+.4f}" in report.findings[0].evidence and 0 < report.findings[0].figure < 100


def test_two_images_of_each_split_are_enough_to_compare():
    two, one = [0.1, 0.2], [0.1]
    assert measurement({"step": 1, "of_train": two, "of_held_out": two}).train == two
    assert measurement({"step": 1, "of_train": two, "of_held_out": one}) is None
    assert measurement({"step": 1, "of_train": one, "of_held_out": two}) is None


def test_looks_without_a_number_for_each_image_or_at_other_times_are_left_out(sound):
    images, others = np.random.default_rng(0).normal(0.1, 0.04, (2, 128))
    best, last = lines(1000, others, images), lines(3000, others + 0.02, images - 0.02)
    remembers = [best, last]

    def said(*seen):
        return [each.says for each in examine(dataclasses.replace(sound, held_out=seen)).findings]

    expected = ["the network begins to remember its training images"]
    nan = lines(4000, others * np.nan, images - 0.03)
    broken = [nan, {**nan, "of_held_out": [3, None]}, {**nan, "of_held_out": "3"}, {**nan, "of_train": None}]
    for line in [*broken, lines(4000, others + 0.03, images * np.inf)]:
        assert said(best, line) == said(line, last) == [] and said(*remembers, line) == expected
    assert said({**best, "times": [1]}, {**last, "times": [2]}) == said(lines(1000, others[:64], images), last) == []


def test_a_store_without_training_images_is_another_one_and_nothing_is_said_of_its_images(begun, tmp_path):
    path, source = begun(write(tmp_path / "images", pictures())), tmp_path / "source"
    write(source / "test" / "a", pictures(20))
    (source / "train" / "a").mkdir(parents=True)
    (source / "train" / "a" / "0.png").write_bytes(b"no picture")
    store = pack(source, tmp_path / "none", size=8, channels=1)
    assert store.count("train") == 0 and store.labelled
    report = diagnose(path, store=store.path, samples=False)
    assert {each.check for each in report.findings} == {"store", "refused"} and "copies" in report.skipped
