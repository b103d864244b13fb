"""A power cut at any moment of a write: what was promised is there, and what was under way is there or is not."""

import hashlib
import random

import pytest
import torch
from powerloss import Recorder

from tiers import SEED, proven, times
from train.test_resume import assert_same, outcome
from unstir.data import Store, pack
from unstir.errors import UserError
from unstir.runs import checkpoint, files, lines
from unstir.runs.checkpoint import Checkpoint
from unstir.train.trainer import Trainer

pytestmark = pytest.mark.slow

STATES = {"checkpoints": times(60, 2000), "texts": times(60, 1000), "logs": times(60, 1000), "stores": times(8, 500)}
RUNS = times(1, 100)


def content(step):
    return Checkpoint(step, {"a": 1}, {"model.a": torch.full((50,), float(step)), "ema.b": torch.ones(3)}, {"n": step})


def checkpoints(folder):
    """Three checkpoints, of which two are kept: each counts once it is saved."""

    def act(promise):
        for step in (4, 8, 12):
            checkpoint.save(folder / "checkpoints", content(step))
            promise(step)
            checkpoint.keep_last(folder / "checkpoints", 2)

    def check(left, promised):
        found, _ = checkpoint.newest(left / "checkpoints")
        assert (0 if found is None else found.step) >= max(promised, default=0)
        if found is not None:
            assert all(torch.equal(found.tensors[name], t) for name, t in content(found.step).tensors.items())
            assert found.state == {"n": found.step}
        checkpoint.save(left / "checkpoints", content(16))
        assert checkpoint.newest(left / "checkpoints")[0].step == 16

    return act, check


def texts(folder):
    """A file that is replaced: the old or the new one, and the new one once that was said."""
    written = [f"{number}\n" * 3000 for number in range(4)]

    def act(promise):
        for number, text in enumerate(written):
            files.write_text(folder / "file", text)
            promise(number)

    def check(left, promised):
        found = (left / "file").read_text() if (left / "file").exists() else None
        allowed = written[max(promised) :] if promised else [None, *written]
        assert found in allowed

    return act, check


def logs(folder):
    """Lines of a log: those before a durable one are there, a torn last one is dropped."""
    log = folder / "log.jsonl"

    def act(promise):
        for number in range(6):
            lines.append(log, {"step": number, "x": "y" * 50}, durable=number % 2 == 1)
            if number % 2:
                promise(number)

    def read(log):
        return [line["step"] for line in lines.read(log, lambda line: None).lines]

    def check(left, promised):
        log = left / "log.jsonl"
        found = read(log) if log.exists() else []
        least = max(promised, default=-1) + 1
        assert found[:least] == list(range(least)), found
        lines.append(log, {"step": 99}, durable=True)
        assert read(log)[-1] == 99

    return act, check


def stores(folder):
    """A store that is packed: published it is whole, before that the same call ends with the same bytes."""
    names = ("train.images.npy", "train.labels.npy", "held_out.images.npy", "held_out.labels.npy", "manifest.json")

    def hashes(path):
        return {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names}

    def act(promise):
        pack("digits", folder / "store")
        promise(hashes(folder / "store"))

    def check(left, promised):
        if promised:
            Store.open(left / "store").verify()
        elif (left / "store").exists() and any((left / "store").iterdir()):
            Store.open(left / "store").verify()  # its name alone says that it is whole
        pack("digits", left / "store")
        assert hashes(left / "store") == WHOLE.setdefault("digits", hashes(folder / "store"))

    return act, check


WHOLE = {}
SCENARIOS = {of.__name__: of for of in (checkpoints, texts, logs, stores)}


def bad_states(scenario, tmp_path, num, deaf_to=""):
    """How many of ``num`` states after a cut break a promise, and the first one's complaint."""
    folder, chance, bad, first = tmp_path / "folder", random.Random(SEED), 0, ""
    folder.mkdir()
    act, check = SCENARIOS[scenario](folder)
    recorder = Recorder(folder, deaf_to)
    with recorder.recording():
        act(recorder.promise)
    for number in range(num):
        last = len(recorder.snapshots) - 1
        at = recorder.state(chance, tmp_path / "left", last if number % 4 == 0 else None)
        try:
            check(tmp_path / "left", recorder.promised(at))
        except (AssertionError, UserError, OSError) as error:
            bad, first = bad + 1, first or f"after {at} of {last} events: {error!r}"
    return bad, first


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_was_promised_outlasts_a_power_cut(scenario, tmp_path):
    assert bad_states(scenario, tmp_path, STATES[scenario]) == (0, "")
    proven(f"power loss, {scenario}", STATES[scenario])


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_without_its_syncs_each_would_lose_something(scenario, kind, tmp_path):
    num = 20 if scenario == "stores" else 60
    assert bad_states(scenario, tmp_path, num, deaf_to=kind)[0] > 0


def test_a_run_ends_as_if_there_had_been_no_power_cut(make_run, tmp_path):
    whole, store = make_run("whole")
    assert Trainer(whole, store).run()
    (tmp_path / "folder").mkdir()
    recorder, chance = Recorder(tmp_path / "folder"), random.Random(SEED)
    with recorder.recording():
        assert Trainer(*make_run("folder/run")).run()
    for _ in range(RUNS):
        recorder.state(chance, tmp_path / "left")
        assert Trainer(*make_run("left/run")).run()
        assert_same(outcome(make_run("left/run")[0]), outcome(whole))
    proven("power loss, a whole run", RUNS)
