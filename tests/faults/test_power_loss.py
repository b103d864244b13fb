"""A power cut at any moment of a write: what was promised is there, and what was under way is there or is not."""

import random

import pytest
from powerloss import Recorder
from scenarios import SCENARIOS

from tiers import SEED, proven, times
from train.test_resume import assert_same, outcome
from unstir.errors import UserError
from unstir.train.trainer import Trainer

pytestmark = pytest.mark.slow

STATES = {"checkpoints": times(60, 2000), "texts": times(60, 1000), "logs": times(60, 1000), "stores": times(8, 500)}
RUNS = times(1, 100)


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
