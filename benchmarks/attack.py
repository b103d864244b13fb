"""Damage every file of a run and of a store, fail the system's calls, kill, and check that nothing fails silently.

Usage: python benchmarks/attack.py [--flips 3000] [--cuts 600] [--forged 1000] [--faults 300] [--kills 100]
                                          [--seed 0] [--jobs 2] [--only NUMBER] [--log FILE]

Each trial takes a fresh copy of a small run with its store (`sample_run`), does one thing to it, and runs one of the
real commands that read it, in a process of its own:

    flip    one bit of one file
    cut     a file ends early, a page of it is zeros, or two files (not images) change places
    forged  values, keys or types of a text are changed and its checksum is made to fit
    fault   the n-th open, write, sync or rename of the command fails: EIO, ENOSPC, EMFILE, EPERM
    kill    SIGKILL at a random moment

A trial is *noticed* where the command refuses or says which file (or the file was forged: with a checksum that fits
it is another run, with results of its own), *harmless* where its result is the same as without, and a failure where the
result is another in silence, where a traceback is shown, or where it hangs. After a fault or a kill the same command
is run again and must give the result of a command never interrupted. Trial i is a function of (seed, i); --only repeats
one and shows what was printed. Status 1 if anything failed.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from faults import cut, failing_calls, flip, forge
from sample_run import CONSUMERS, READERS, SLOW, Consumer, build, choose, targets
from unstir import cli

PATIENCE = 300
"""After so many seconds a command hangs."""

KINDS = ("flips", "cuts", "forged", "faults", "kills")
FAILED = ("silent", "traceback", "hangs", "lost")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial: ``verdict`` is noticed, harmless, or one of FAILED; ``printed`` is what was printed."""

    number: int
    kind: str
    what: str
    consumer: str
    verdict: str
    printed: str = ""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status (None: it hung), a digest of its result, and what it printed."""

    status: int | None
    result: str
    printed: str


def run(consumer: Consumer, folder: Path, fault: tuple[int, int] | None = None, kill_after: float = 0) -> Ended:
    """Run a command in a child process in ``folder``; ``fault`` is (the call that fails, the system's error number)."""
    out, result = folder / ".printed", folder / ".result"
    child = os.fork()
    if child == 0:
        _child(consumer, folder, fault, out, result)
    patience = kill_after or PATIENCE
    began = time.monotonic()
    while (state := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() - began > patience:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Ended(None, "", out.read_text(errors="replace") if out.exists() else "")
        time.sleep(0.005)
    printed = out.read_text(errors="replace")
    made = result.read_text() if result.exists() else ""
    return Ended(os.waitstatus_to_exitcode(state[1]), made, printed)


def _child(consumer: Consumer, folder: Path, fault: tuple[int, int] | None, out: Path, result: Path) -> None:
    """Run the command, write the digest of its result, and leave with its status; 70 for a traceback."""
    status = 70
    try:
        os.chdir(folder)
        result.unlink(missing_ok=True)
        descriptor = os.open(out, os.O_CREAT | os.O_TRUNC | os.O_RDWR)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(stream), "w", buffering=1) for stream in (1, 2))
        consumer.prepare()
        with failing_calls(folder, *fault) if fault else contextlib.nullcontext():
            try:
                cli.main(consumer.arguments)
            except SystemExit as left:
                status = left.code if isinstance(left.code, int) else 0
        if status == 0:
            sys.stdout.flush()
            printed = [line for line in out.read_text(errors="replace").splitlines() if line.startswith(("{", "["))]
            result.write_text(consumer.result(printed[-1] if printed else out.read_text(errors="replace")))
    except BaseException:
        traceback.print_exc()
        status = 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def broken(ended: Ended) -> str:
    """Whether a command "hangs" or shows a "traceback"; "" where it ended as it should."""
    if ended.status is None:
        return "hangs"
    return "traceback" if "Traceback" in ended.printed or ended.status < 0 or ended.status == 70 else ""


class Trials:
    """The trials on one sample run, built in ``folder`` with the results of undisturbed commands."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.original = folder / "original"
        self.original.mkdir(parents=True)
        build(self.original)
        self.targets = targets(self.original)
        self.expected: dict[str, Ended] = {}
        self.seconds: dict[str, float] = {}
        for name, consumer in CONSUMERS.items():
            began = time.monotonic()
            self.expected[name] = self._on_copy("whole", lambda place, consumer=consumer: run(consumer, place))
            self.seconds[name] = time.monotonic() - began
            if self.expected[name].status not in (0, 1 if name == "doctor" else 0):
                raise RuntimeError(f"{name} fails on a sound run: {self.expected[name].printed}")

    def trial(self, number: int, kind: str) -> Outcome:
        """Do one thing to a fresh copy of the sample run and return the outcome."""
        chance = random.Random(f"{self.seed} {number} {kind}")
        return self._on_copy(f"trial-{number}", lambda place: self._trial(number, kind, chance, place))

    def _on_copy(self, name, work):
        place = self.folder / name
        shutil.copytree(self.original, place)
        config = place / "run/config.toml"  # it names its store by the whole path
        config.write_text(config.read_text().replace(str(self.original), str(place)))
        try:
            return work(place)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _trial(self, number: int, kind: str, chance: random.Random, place: Path) -> Outcome:
        if kind in ("faults", "kills"):
            return self._interrupted(number, kind, chance, place)
        pattern = chance.choice([pattern for pattern in self.targets for _ in range(1 if pattern in SLOW else 3)])
        path = chance.choice(self.targets[pattern])
        consumer = choose(chance, READERS[pattern])
        what = {"flips": flip, "cuts": cut, "forged": forge}[kind](chance, place / path)
        ended = run(consumer, place)
        return Outcome(
            number,
            kind,
            f"{path}: {what}",
            consumer.name,
            self._verdict(consumer, ended, path, kind, what),
            ended.printed,
        )

    def _verdict(self, consumer: Consumer, ended: Ended, path: Path, kind: str, what: str) -> str:
        if failed := broken(ended):
            return failed
        if ended.status != 0:
            return "noticed"
        expected = self.expected[consumer.name]
        if ended.result == expected.result:
            return "noticed" if path.name in ended.printed and path.name not in expected.printed else "harmless"
        named = [word for word in what.split() if "." in word]  # the other of two that changed places
        if kind == "forged" or any(name in ended.printed for name in (path.name, *named)):
            return "noticed"  # whoever makes a checksum fit has written another run
        return "silent"

    def _interrupted(self, number: int, kind: str, chance: random.Random, place: Path) -> Outcome:
        names = ("sample", "continue", "likelihood", "evaluate", "vary", "report", "inspect")
        consumer, what = choose(chance, names), ""
        if kind == "faults":
            fault = (chance.randint(1, 60), chance.choice((5, 28, 24, 1)))
            ended, what = run(consumer, place, fault=fault), f"call {fault[0]} fails with {os.strerror(fault[1])}"
            if failed := broken(ended):
                return Outcome(number, kind, what, consumer.name, failed, ended.printed)
        else:
            moment = chance.uniform(0.05, 1) * self.seconds[consumer.name]
            ended, what = run(consumer, place, kill_after=moment), f"killed after {moment:.2f} s"
        again = run(consumer, place)
        if failed := broken(again):
            verdict = failed
        elif again.status != 0 or again.result != self.expected[consumer.name].result:
            verdict = "lost"
        else:
            verdict = "noticed" if ended.status else "harmless"
        return Outcome(number, kind, what, consumer.name, verdict, f"{ended.printed}\n-- again:\n{again.printed}")


def numbered(counts: dict[str, int]) -> list[tuple[int, str]]:
    """All trials, the kinds in turn: (number, kind)."""
    kinds = [kind for kind in KINDS for _ in range(counts[kind])]
    random.Random(0).shuffle(kinds)
    return list(enumerate(kinds))


_trials: Trials


def _one(trial: tuple[int, str]) -> Outcome:
    return _trials.trial(*trial)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind, count in zip(KINDS, (3000, 600, 1000, 300, 100), strict=True):
        parser.add_argument(f"--{kind}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, default=None)
    parser.add_argument("--log", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    global _trials
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    _trials = Trials(folder, arguments.seed)
    trials = numbered({kind: getattr(arguments, kind) for kind in KINDS})
    if arguments.only is not None:
        outcome = _one(trials[arguments.only])
        print(f"{outcome.kind}: {outcome.what}; {outcome.consumer}: {outcome.verdict}\n{outcome.printed}")
        sys.exit(outcome.verdict in FAILED)
    counts: Counter[tuple[str, str]] = Counter()
    began = time.monotonic()
    with multiprocessing.get_context("fork").Pool(arguments.jobs) as pool, contextlib.suppress(KeyboardInterrupt):
        for done, outcome in enumerate(pool.imap_unordered(_one, trials), start=1):
            counts[outcome.kind, outcome.verdict] += 1
            if outcome.verdict in FAILED:
                print(f"trial {outcome.number}, {outcome.what}; {outcome.consumer}: {outcome.verdict}", flush=True)
                if arguments.log:
                    with arguments.log.open("a") as log:
                        log.write(json.dumps(asdict(outcome)) + "\n")
            if done % 200 == 0:
                print(f"{done} of {len(trials)}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    verdicts = ("noticed", "harmless", *FAILED)
    print("".join(f"{title:>11}" for title in ("", "trials", *verdicts)))
    for kind in KINDS:
        of_kind = [counts[kind, verdict] for verdict in verdicts]
        print("".join(f"{cell:>11}" for cell in (kind, sum(of_kind), *of_kind)))
    failed = sum(count for (_, verdict), count in counts.items() if verdict in FAILED)
    done = counts.total()  # all, unless it was interrupted
    print(f"{done} trials, seed {arguments.seed}: {failed} failures; {time.monotonic() - began:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
