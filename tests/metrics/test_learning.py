"""How the classifier learns: so much as the size of the set asks for, once, and killed it begins again."""

import os
import signal
from contextlib import nullcontext
from dataclasses import replace

import pytest

from conftest import copied
from unstir.data import Store
from unstir.metrics import classifier as module
from unstir.metrics.classifier import FILE, classifier_for, train_classifier
from unstir.progress import shown_by

STEPS = 30


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Training of thirty steps."""
    monkeypatch.setattr(module, "budget", lambda store: STEPS * module.BATCH)


@pytest.fixture
def store(digits, tmp_path):
    """Digits of a test's own, nothing learned yet."""
    copied(digits, tmp_path / "digits")
    return Store.open(tmp_path / "digits")


def test_killed_it_begins_again_and_is_trained_to_its_end_once(store, counts):
    child = os.fork()
    if child == 0:
        kill = nullcontext(lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done > 640 else None)
        try:
            with shown_by(lambda job, unit: kill):
                classifier_for(store)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and not (store.path / FILE).exists()
    found = classifier_for(store)
    trained = [done for job, done, _ in counts if job == "training the classifier"]
    assert trained == [step * module.BATCH for step in range(1, STEPS + 1)]
    counts.clear()
    assert classifier_for(store).hash == found.hash and counts == []
    assert train_classifier(store).hash == found.hash


def sized(store, num, shape):
    counts = {**store.manifest["counts"], "train": num}
    return replace(store, manifest={**store.manifest, "counts": counts, "shape": list(shape)})


def test_the_budget_grows_with_the_set_and_falls_with_the_pixels(store, monkeypatch):
    monkeypatch.undo()
    budgets = {num: module.budget(sized(store, num, (1, 8, 8))) for num in (1, 100, 274, 1000, 1498, 50_000)}
    assert budgets == {1: 16_000, 100: 16_000, 274: 16_000, 1000: 44_992, 1498: 64_000, 50_000: 64_000}
    large = {side: module.budget(sized(store, 50_000, (3, side, side))) for side in (64, 128, 256, 4096)}
    assert large == {64: 64_000, 128: 16_000, 256: 3968, 4096: 64}


def test_the_hash_names_the_budget_and_a_classifier_of_another_is_not_taken(store, monkeypatch):
    found = classifier_for(store)
    assert replace(found, seen=found.seen + 64).hash != found.hash
    assert classifier_for(store).hash == found.hash
    monkeypatch.setattr(module, "budget", lambda store: (STEPS + 1) * module.BATCH)
    other = classifier_for(store)
    assert other.hash != found.hash and other.seen == found.seen + module.BATCH
