"""Every call of the system in a write fails once: what was there or what is new is whole, and the next try succeeds."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tiers import SEED, proven, times

pytestmark = pytest.mark.slow

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
