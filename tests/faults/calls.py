"""The n-th call of the system fails, for every n of a write: run as a program under calls.c, prints what was wrong.

    LD_PRELOAD=calls.so python calls.py FOLDER RUN POINTS SEED

POINTS is how many (call, mode) of each writer are tried, 0 for all. Each is tried in a copy of the process, which has
torch loaded. A last line of JSON holds {writer: [calls, trials, [what was wrong, ...]]}.
"""

import ctypes
import errno
import hashlib
import json
import os
import random
import shutil
import sys
from pathlib import Path

import torch

from unstir.chain import Chain
from unstir.data import Store, pack
from unstir.errors import UserError
from unstir.generate.drawing import Job
from unstir.generate.folder import save_images
from unstir.pictures.grid import is_whole
from unstir.runs import checkpoint, files, lines
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.run import Run

FAIL, SHORT, KILL = range(3)
MODES = {"EIO": (FAIL, errno.EIO), "ENOSPC": (FAIL, errno.ENOSPC), "short": (SHORT, 0), "kill": (KILL, 0)}
REFUSED, BROKEN = 3, 4


class Checkpoints:
    """A second checkpoint beside a first one."""

    def __init__(self, run):
        pass

    def content(self, step):
        return Checkpoint(step, {}, {"model.a": torch.full((3000,), float(step)), "ema.b": torch.ones(3)}, {"n": step})

    def before(self, folder):
        checkpoint.save(folder / "checkpoints", self.content(4))

    def act(self, folder):
        checkpoint.save(folder / "checkpoints", self.content(8))

    def check(self, folder, done):
        found, damaged = checkpoint.newest(folder / "checkpoints")
        assert not damaged and found.step in ((8,) if done else (4, 8))
        assert all(torch.equal(found.tensors[name], t) for name, t in self.content(found.step).tensors.items())


class Logs:
    """A line of a log of metrics."""

    def __init__(self, run):
        pass

    def before(self, folder):
        for step in range(3):
            lines.append(folder / "metrics.jsonl", {"step": step})

    def act(self, folder):
        lines.append(folder / "metrics.jsonl", {"step": 3, "loss": 0.5}, durable=True)

    def check(self, folder, done):
        log = lines.read(folder / "metrics.jsonl", lambda line: None)
        steps = [line["step"] for line in log.lines]
        assert not log.problem and steps[:3] == [0, 1, 2] and set(steps[3:]) <= {3} and (3 in steps or not done)


class Pages:
    """A page, a table or settings in place of earlier ones."""

    texts = "old\n" * 10_000, "new\n" * 10_000

    def __init__(self, run):
        pass

    def before(self, folder):
        files.write_text(folder / "report.html", self.texts[0])

    def act(self, folder):
        files.write_text(folder / "report.html", self.texts[1])

    def check(self, folder, done):
        assert (folder / "report.html").read_text() in (self.texts[1:] if done else self.texts)


class Stores:
    """A store that is packed."""

    whole = ""

    def __init__(self, run):
        pass

    def before(self, folder):
        pass

    def act(self, folder):
        pack("digits", folder / "store")

    def check(self, folder, done):
        if not done and not (folder / "store").exists():
            return
        Store.open(folder / "store").verify()
        found = hashlib.sha256()
        for path in sorted((folder / "store").glob("[!o]*")):
            found.update(path.read_bytes())
        Stores.whole = Stores.whole or found.hexdigest()
        assert found.hexdigest() == Stores.whole


class Images:
    """Images that are drawn."""

    def __init__(self, run):
        self.run, self.whole = run, {}

    def before(self, folder):
        pass

    def act(self, folder):
        save_images(self.run.model(), Job(num=4, chain=Chain("ddim", steps=2), batch_size=2), folder / "made")

    def check(self, folder, done):
        if done:
            found = {path.name: path.read_bytes() for path in (folder / "made").glob("*.png")}
            self.whole = self.whole or found
            assert found == self.whole and len([name for name in found if name[0].isdigit()]) == 4
        for path in (folder / "made").glob("*.png") if not done else ():
            assert is_whole(path, self.run.data.shape) or not path.stem.isdigit()


WRITERS = (Checkpoints, Logs, Pages, Stores, Images)


def trial(writer, folder, arm, number, how):
    """One write in a copy of this process whose ``number``-th call fails; what was wrong, or an empty text."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    writer.before(folder)
    child = os.fork()
    if child == 0:
        status = BROKEN
        try:
            arm(str(folder).encode(), number, *how)
            writer.act(folder)
            status = 0
        except (UserError, OSError) as error:
            status = REFUSED if "\n" not in str(error) and str(folder) in str(error) else BROKEN
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == BROKEN:
        return "it ended with a traceback, or with words that do not name the file"
    try:
        writer.check(folder, done=status == 0)
        if status == REFUSED:
            left = [str(path) for path in folder.rglob("*.partial")]
            assert not left, f"{left} stays"
        writer.act(folder)
        files.remove_partials(folder)
        writer.check(folder, done=True)
    except (AssertionError, UserError, OSError) as error:
        return f"status {status}: {error!r}"
    return ""


def count(writer, folder, arm):
    """How many calls a write makes, and that it succeeds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    writer.before(folder)
    arm(str(folder).encode(), 0, FAIL, 0)
    writer.act(folder)
    calls = arm(b"", 0, FAIL, 0)
    writer.check(folder, done=True)
    return calls


def main(folder, run, points, seed):
    torch.set_num_threads(1)
    arm, chance, found = ctypes.CDLL(None).arm, random.Random(seed), {}
    for of in WRITERS:
        writer = of(Run.open(run))
        calls = count(writer, folder, arm)
        cases = [(number, mode) for number in range(1, calls + 1) for mode in MODES]
        if points:
            cases = chance.sample(cases, min(points, len(cases)))
        wrong = [
            f"{mode} at call {number} of {calls}: {said}"
            for number, mode in cases
            if (said := trial(writer, folder, arm, number, MODES[mode]))
        ]
        found[of.__name__] = [calls, len(cases), wrong]
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
