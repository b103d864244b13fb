"""How the classifier learns: so much as the size of the set asks for, and killed at any moment the same to the bit."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from conftest import copied
from unstir.data import Store
from unstir.metrics import classifier as module
from unstir.metrics import classifier_training as learning
from unstir.metrics.classifier import FILE, STATE, classifier_for, preparing_seconds, train_classifier
from unstir.runs.checkpoint import content_hash

STEPS = 30


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Training of thirty steps, its state kept every five."""
    monkeypatch.setattr(module, "budget", lambda store: STEPS * learning.BATCH)
    monkeypatch.setattr(learning, "KEPT_EVERY", 5)


@pytest.fixture
def store(digits, tmp_path):
    """Digits of a test's own, nothing learned yet."""
    copied(digits, tmp_path / "digits")
    return Store.open(tmp_path / "digits")


def killed_at(store, images):
    """Train in a child that is killed when so many images are done."""
    child = os.fork()
    if child == 0:
        try:
            classifier_for(store, lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done >= images else None)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and not (store.path / FILE).exists()


def heard_of(store):
    """The images done that progress speaks of, and the classifier."""
    heard = []
    found = classifier_for(store, lambda done, total: heard.append(done))
    return heard, found


def test_killed_again_and_again_it_is_the_same_to_the_bit(store):
    whole = train_classifier(store)
    for step in (3, 7, 12, 23, 30):  # before the first state, between two, and after the last step
        killed_at(store, step * learning.BATCH)
    assert (store.path / STATE).exists()
    heard, found = heard_of(store)
    assert heard == [step * learning.BATCH for step in range(26, STEPS + 1)]  # from the state at 25 steps on
    assert found.hash == whole.hash and found.trust == whole.trust
    assert all(torch.equal(a, b) for a, b in zip(found.net.parameters(), whole.net.parameters(), strict=True))
    assert not (store.path / STATE).exists() and not list((store.path / "statistics").iterdir())
    assert heard_of(store)[0] == []


def rewritten(path, tensors=None, **changes):
    """Write the state again with other tensors or identity, and a hash that fits them."""
    with safe_open(path, framework="pt") as file:
        text = json.dumps({**json.loads(file.metadata()["unstir_lesson"]), **changes}, sort_keys=True)
        names = file.keys()
        own = {name: file.get_tensor(name).clone() for name in names}
    tensors = own if tensors is None else tensors
    save_file(tensors, path, {"unstir_lesson": text, "sha256": content_hash(tensors, text)})


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


SPOILT = {
    "one bit": flipped,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "of other data": lambda path: rewritten(path, data="0" * 64),
    "of another budget": lambda path: rewritten(path, steps=STEPS + 1),
    "of another seed": lambda path: rewritten(path, seed=1),
    "mirrored": lambda path: rewritten(path, mirror=True),
    "of another torch": lambda path: rewritten(path, torch="0.1"),
    "on other threads": lambda path: rewritten(path, threads=99),
    "of another version": lambda path: rewritten(path, version=0),
    "other tensors": lambda path: rewritten(path, tensors={"net.a": torch.zeros(3)}),
    "no step": lambda path: rewritten(path, step=None),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_state_that_is_not_this_trainings_is_not_gone_on_from(store, how):
    killed_at(store, 7 * learning.BATCH)
    SPOILT[how](store.path / STATE)
    heard, found = heard_of(store)
    assert heard[0] == learning.BATCH and found.hash == train_classifier(store).hash


def test_a_state_that_cannot_be_kept_is_done_without(store):
    (store.path / STATE).mkdir(parents=True)  # a place that no file can take, even as root
    heard, found = heard_of(store)
    assert len(heard) == STEPS and found.hash == train_classifier(store).hash and (store.path / FILE).exists()


def test_the_time_is_told_before_and_is_nothing_where_nothing_is_left(store, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(learning.time, "perf_counter", lambda: now[0])
    step = learning._step
    monkeypatch.setattr(learning, "_step", lambda *given: (step(*given), now.__setitem__(0, now[0] + 0.5)))
    before = sorted(store.path.rglob("*"))
    assert preparing_seconds(store) == pytest.approx(STEPS * 0.5) and sorted(store.path.rglob("*")) == before
    killed_at(store, 12 * learning.BATCH)
    assert preparing_seconds(store) == pytest.approx((STEPS - 10) * 0.5)
    classifier_for(store)
    assert preparing_seconds(store) == 0.0


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
    monkeypatch.setattr(module, "budget", lambda store: (STEPS + 1) * learning.BATCH)
    heard, other = heard_of(store)
    assert len(heard) == STEPS + 1 and other.hash != found.hash and other.seen == found.seen + learning.BATCH
