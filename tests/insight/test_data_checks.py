"""Faults planted in the data: each is found by its own check, and by no other."""

import numpy as np
import pytest
from PIL import Image

from unstir.data import pack
from unstir.insight.doctor import CHECKS, diagnose
from unstir.insight.facts import MISSING, NO_SAMPLES
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

    def begin(images, held_out=0.1, classes=0):
        store = pack(images, tmp_path / "store", size=8, channels=1, held_out=held_out)
        model = {"in_channels": 1, "channels": 8, "mults": [1], "attention": [], "groups": 4, "num_classes": classes}
        data = {"source": str(images), "size": 8, "channels": 1, "store": str(store.path)}
        train = {"batch_size": 8, "length": "100 steps", "warmup": "5 steps", "dtype": "float32"}
        config = from_dict({"data": data, "model": model, "train": train}, "test")
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
    assert report.skipped["brightness"] == NO_SAMPLES and report.skipped["loss-rises"] == MISSING["lines"]
    assert {*report.checked, *report.skipped} == set(CHECKS)


def copies(folder):
    images = pictures()
    images[1:31] = images[0]
    write(folder, images)


def leak(folder):
    images, new = pictures(), pictures(200, seed=1)
    new[:40] = images[:40]
    write(folder / "train", images)
    write(folder / "test", new)


def refused(folder):
    write(folder, pictures())
    for i in range(60):
        (folder / f"broken{i:03d}.png").write_bytes(b"\x89PNG\r\n\x1a\nnot at all")


def classes(folder, **sizes):
    images, first = pictures(), 0
    for name, size in sizes.items():
        write(folder / name, images[first : first + size])
        first += size


PLANTED = {
    "masks": (lambda folder: write(folder, (pictures() > 100).astype(np.uint8)), {}, {"value-range": "problem"}),
    "faint": (lambda folder: write(folder, 120 + pictures() // 7), {}, {"value-range": "warning"}),
    "copies": (copies, {"held_out": 0}, {"copies": "warning"}),
    "leak": (leak, {}, {"leak": "problem"}),
    "refused": (refused, {}, {"refused": "warning"}),
    "labels": (lambda folder: classes(folder, a=300, b=280, few=12), {"classes": 3}, {"classes": "warning"}),
    "no labels": (lambda folder: classes(folder, a=300, b=280, few=12), {}, {"classes": "note"}),
    "one class": (lambda folder: classes(folder, a=576, b=24), {}, {"classes": "problem"}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_fault_of_the_data_is_found_by_its_own_check_and_by_no_other(begun, tmp_path, name):
    plant, options, expected = PLANTED[name]
    plant(tmp_path / "images")
    found = findings(begun(tmp_path / "images", **options))
    assert {check: found[check] for check in expected} == expected
    assert found == expected or name == "masks"  # which are copies of each other too


def test_a_store_that_has_gone_changed_or_is_another(begun, tmp_path):
    path = begun(write(tmp_path / "images", pictures()))
    store = tmp_path / "store"
    elsewhere = pack(write(tmp_path / "others", pictures(seed=3)), tmp_path / "other", channels=1)
    named = diagnose(path, store=elsewhere.path, samples=False).findings
    assert [each.check for each in named] == ["store"]
    file = store / "train.images.npy"
    content = bytearray(file.read_bytes())
    content[5000] ^= 255
    file.write_bytes(content)
    assert findings(path) == {"store": "problem"}
    store.rename(tmp_path / "moved")
    report = diagnose(path, samples=False)
    assert [each.check for each in report.findings] == ["store"] and report.skipped["copies"] == MISSING["store"]


def test_a_store_without_training_images_is_another_one_and_nothing_is_said_of_its_images(begun, tmp_path):
    path, source = begun(write(tmp_path / "images", pictures())), tmp_path / "source"
    write(source / "test" / "a", pictures(20))
    (source / "train" / "a").mkdir(parents=True)
    (source / "train" / "a" / "0.png").write_bytes(b"no picture")
    store = pack(source, tmp_path / "none", size=8, channels=1)
    assert store.count("train") == 0 and store.labelled
    report = diagnose(path, store=store.path, samples=False)
    assert {each.check for each in report.findings} == {"store", "refused"} and "copies" in report.skipped
