"""The n-th call of the system fails, for every n of a write: run as a program under calls.c, prints what was wrong.

    LD_PRELOAD=calls.so python calls.py FOLDER RUN POINTS SEED

POINTS is how many (call, mode) of each writer are tried, 0 for all. Each is tried in a copy of the process, which has
torch loaded. A last line of JSON holds {writer: [calls, trials, [what was wrong, ...]]}.
"""

import ctypes
import errno
import json
import os
import random
import shutil
import sys
from pathlib import Path

import torch
from scenarios import SCENARIOS

from unstir.chain import Chain
from unstir.errors import UserError
from unstir.generate.drawing import Job
from unstir.generate.folder import save_images
from unstir.pictures.grid import is_whole
from unstir.runs import files
from unstir.runs.run import Run

FAIL, SHORT, KILL = range(3)
MODES = {"EIO": (FAIL, errno.EIO), "ENOSPC": (FAIL, errno.ENOSPC), "short": (SHORT, 0), "kill": (KILL, 0)}
REFUSED, BROKEN = 3, 4


def images(run):
    """Images that are drawn, as a scenario."""
    whole = {}

    def scenario(folder):
        def act(promise):
            save_images(run.model(), Job(num=4, chain=Chain("ddim", steps=2), batch_size=2), folder / "made")
            promise(4)

        def check(left, promised):
            drawn = {path.name: path.read_bytes() for path in (left / "made").glob("*.png")}
            if promised:
                assert drawn == whole.setdefault("images", drawn)
                assert len([name for name in drawn if name[0].isdigit()]) == 4
            for name in drawn:
                assert is_whole(left / "made" / name, run.data.shape) or not name[0].isdigit()

        return act, check

    return scenario


def prepared(scenario, folder):
    """The act and the check of a scenario in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return scenario(folder)


def trial(scenario, folder, arm, number, fault, promises):
    """One write in a copy of this process whose ``number``-th call fails; what was wrong, or an empty text."""
    act, check = prepared(scenario, folder)
    child = os.fork()
    if child == 0:
        status = BROKEN
        try:
            arm(str(folder).encode(), number, *fault)
            act(lambda promise: None)
            status = 0
        except (UserError, OSError) as error:
            status = REFUSED if "\n" not in str(error) and str(folder) in str(error) else BROKEN
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == BROKEN:
        return "it ended with a traceback, or with words that do not name the file"
    try:
        if status == REFUSED:
            left = [str(path) for path in folder.rglob("*.partial")]
            assert not left, f"{left} stays"
        check(folder, promises if status == 0 else [])
        act(lambda promise: None)
        files.remove_partials(folder)
        check(folder, promises)
    except (AssertionError, UserError, OSError) as error:
        return f"status {status}: {error!r}"
    return ""


def count(scenario, folder, arm):
    """How many calls a write makes that succeeds, and what it promises."""
    act, check = prepared(scenario, folder)
    promises = []
    arm(str(folder).encode(), 0, FAIL, 0)
    act(promises.append)
    calls = arm(b"", 0, FAIL, 0)
    check(folder, promises)
    return calls, promises


def main(folder, run, points, seed):
    torch.set_num_threads(1)
    arm, chance, results = ctypes.CDLL(None).arm, random.Random(seed), {}
    for name, scenario in {**SCENARIOS, "images": images(Run.open(run))}.items():
        calls, promises = count(scenario, folder, arm)
        cases = [(number, mode) for number in range(1, calls + 1) for mode in MODES]
        if points:
            cases = chance.sample(cases, min(points, len(cases)))
        wrong = [
            f"{mode} at call {number} of {calls}: {words}"
            for number, mode in cases
            if (words := trial(scenario, folder, arm, number, MODES[mode], promises))
        ]
        results[name] = [calls, len(cases), wrong]
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
