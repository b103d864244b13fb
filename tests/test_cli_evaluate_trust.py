"""`unstir evaluate` with a classifier that knows nothing: it says so, and what is used instead."""

import json

import pytest
import torch

from conftest import copied, tiny_config
from unstir.data import Store
from unstir.data.manifest import sealed
from unstir.data.store import content_hash
from unstir.metrics import classifier
from unstir.metrics.evaluation import saved
from unstir.runs.run import Run
from unstir.train.launch import train_run

SMALL = ("--num", 24, "--seeds", 2, "--batch-size", 16)


@pytest.fixture(scope="module")
def lost(quick, digits, tmp_path_factory):
    """A tiny run on digits whose labels are shuffled."""
    base = tmp_path_factory.mktemp("lost")
    folder = base / "digits"
    copied(digits, folder)
    store = Store.open(folder)
    for split in ("train", "held_out"):
        labels = store.labels(split).clone()
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        file = folder / f"{split}.labels.npy"
        file.write_bytes(file.read_bytes()[:128] + labels[order].numpy().tobytes())
    manifest = {**store.manifest, "content_hash": content_hash(folder, store.manifest)}
    (folder / "manifest.json").write_bytes(sealed(manifest))
    config = tiny_config(folder, data__source=str(folder), model__num_classes=10)
    return train_run(config, base / "run").run.path


@pytest.fixture
def briefly(monkeypatch):
    """A classifier sees as few images as one of the smallest store; of shuffled labels there is nothing to learn."""
    monkeypatch.setattr(classifier, "MOST_SEEN", classifier.LEAST_SEEN)


def test_shuffled_labels_are_told_and_the_classifier_is_not_used(briefly, lost, command):
    status, out, err = command("evaluate", lost, *SMALL)
    assert status == 0 and "training a classifier" in err
    assert "sliced Wasserstein" in out and "FD-classifier" not in out and "class accuracy" not in out
    (found,) = saved(Run.open(lost))
    assert list(found.figures) == ["patches/swd"] and found.protocol["networks"] == {}
    entry = found.protocol["classifier"]
    assert entry["used"] is False and entry["accuracy"] < 0.2 and entry["num"] == 299
    assert [space.name for space in found.memorisation.spaces] == ["pixels"]  # no features of such a network
    status, out, err = command("evaluate", lost, *SMALL, "--json")
    assert json.loads(out)["evaluations"][0]["protocol"]["classifier"] == entry and "training a classifier" not in err
