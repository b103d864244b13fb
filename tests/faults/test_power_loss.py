"""A power cut, a full disk, and each call failing once: what was promised is there, what was under way or nothing."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from powerloss import Recorder
from scenarios import SCENARIOS

from tiers import SEED, proven, times
from train.test_resume import assert_same, outcome
from unstir.data import Store, pack
from unstir.errors import UnwrittenError, UserError
from unstir.runs import checkpoint, files
from unstir.runs.checkpoint import Checkpoint
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


PAGE, ROOM = 4096, 8 << 20
STEP = times(40, 1)  # every so many pages


@pytest.fixture
def disk(tmp_path):
    """A file system of 8 MB in memory; where this user may mount none, the test is skipped."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system takes the rights of root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk, free):
    """Leave ``free`` bytes on the disk."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    left = os.statvfs(disk).f_bavail * PAGE - free
    with filler.open("wb") as file:
        file.write(bytes(left))


def content(step):
    return Checkpoint(step, {}, {"model.a": torch.full((100_000,), float(step))}, {})


def test_a_pack_that_filled_the_disk_succeeds_when_there_is_room(disk, tmp_path):
    whole, trials = pack("digits", tmp_path / "whole"), 0
    for pages in range(0, 40, max(1, STEP // 4)):
        fill(disk, pages * PAGE)
        try:
            pack("digits", disk / "store")
        except (UserError, OSError) as error:
            assert isinstance(error, UserError) or error.errno == errno.ENOSPC
            assert not (disk / "store").exists()
        (disk / "filler").unlink()
        store = pack("digits", disk / "store")
        store.verify()
        assert store.content_hash == whole.content_hash == Store.open(disk / "store").content_hash
        shutil.rmtree(disk / "store")
        trials += 1
    proven("packs on a disk with so many pages free", trials)


@pytest.mark.parametrize("kills", [False, True])
def test_a_limit_on_the_length_of_files_cuts_any_write_and_loses_nothing(tmp_path, kills):
    """Without any rights: the kernel cuts a write at this byte, and fails the next or ends the process there."""
    checkpoint.save(tmp_path, content(4))
    trials = 0
    for limit in range(0, 400_000, 40_000 if STEP > 1 else 1_000):
        child = os.fork()
        if child == 0:
            status = 2
            try:
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kills else signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                checkpoint.save(tmp_path, content(8))
            except UnwrittenError:
                status = 1
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == (-signal.SIGXFSZ if kills else 1), limit
        assert checkpoint.newest(tmp_path)[0].step == 4
        files.remove_partials(tmp_path)
        for partial in tmp_path.glob(".tmp*"):  # of safetensors, as `Run.tidy` does
            partial.unlink()
        assert os.listdir(tmp_path) == [checkpoint.file_name(4)]
        trials += 1
    checkpoint.save(tmp_path, content(8))
    proven(f"writes cut by the kernel, {'killed' if kills else 'failed'} there", trials)


HERE = Path(__file__).parent
POINTS = times(3, 0)
COMPILER = shutil.which("cc") or shutil.which("gcc")


@pytest.mark.skipif(sys.platform != "linux" or COMPILER is None, reason="a C compiler and Linux's loader are needed")
def test_whichever_call_fails_nothing_is_lost(run, tmp_path):
    shim = tmp_path / "calls.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", shim, HERE / "calls.c", "-ldl"], check=True)
    command = [sys.executable, HERE / "calls.py", tmp_path / "folder", run.path, str(POINTS), str(SEED)]
    environment = {**os.environ, "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: wrong for name, (_, _, wrong) in found.items() if wrong} == {}
    assert all(calls >= 2 for calls, _, _ in found.values()), found
    for name, (calls, trials, _) in found.items():
        proven(f"{name}: {calls} calls of the system, some with EIO, ENOSPC, cut short or the last", trials)
