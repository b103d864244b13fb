"""Change one operator, number or line of the package at a time and see whether a test notices.

Usage: pip install pytest-cov
       python benchmarks/mutate.py --learn
       python benchmarks/mutate.py [--count 40] [--seed 0] [--rooms theory diffusion ...] [--jobs 2] [--only NUMBER]

``--learn`` runs the suite once, but for tests/quality, and writes down which tests run which lines and for how long.

Each mutation is made in a copy of the checkout and is a function of (seed, number): its place is drawn evenly from all
places of the rooms. What can be changed: a comparison or its strictness, an arithmetic or logical operator, a number,
True and False, a condition (negated), and a call whose result is not used (left out); never a message, a docstring, an
annotation or a default of the command line. The tests that run the mutated line follow, the quickest first, up to the
first failure, which must not fail without the mutation; a run that takes much longer than it should is a failure too.
Survivors are printed as a diff, to be judged: either no test sees them, or they change nothing that can be seen. Status
1 where any survived.
"""

import argparse
import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from mutations import PACKAGE, ROOMS, ROOT, Mutation, places, shown

LEARNED = ROOT / "runs/mutate.json"
"""Which tests run which lines, and their seconds."""
BATCHES = (10.0, 60.0, 1e9)
"""Seconds of tests that pytest is given in turn, so that most mutations are decided by a few quick tests."""

OF_ALL = ("tests/runs/test_defaults.py",)
"""The test that looks at what is executed as any module is imported: the settings."""

LONGEST = 1200
"""Seconds that the tests of one mutation may take."""


def learn() -> None:
    """Run the suite under coverage, each line with the tests that run it, and keep what was found in `LEARNED`."""
    from coverage import CoverageData

    with tempfile.TemporaryDirectory() as folder:
        data, times = Path(folder) / "coverage", Path(folder) / "times.xml"
        options = [
            "--cov=unstir",
            "--cov-context=test",
            "--cov-report=",
            f"--junitxml={times}",
            "--ignore=tests/quality",
        ]
        environment = {**os.environ, "COVERAGE_FILE": str(data), "PYTHONPATH": str(ROOT / "src")}
        subprocess.run(
            [sys.executable, "-m", "pytest", "--ignore=tests/quality", *options], cwd=ROOT, env=environment, check=False
        )
        seconds = {
            f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}": float(case.get("time", 0))
            for case in ElementTree.parse(times).iter("testcase")
        }
        read = CoverageData(str(data))
        read.read()
        lines: dict[str, dict[int, list[str]]] = {}
        for file in read.measured_files():
            by_line = read.contexts_by_lineno(file)
            tests = {line: sorted({name.split("|")[0] for name in names if name}) for line, names in by_line.items()}
            lines[file.split("/src/unstir/")[1]] = tests
    LEARNED.parent.mkdir(exist_ok=True)
    LEARNED.write_text(json.dumps({"seconds": seconds, "lines": lines}))


class Learned:
    """The tests for a mutation, of what `learn` wrote down."""

    def __init__(self) -> None:
        if not LEARNED.exists():
            raise SystemExit(f"{LEARNED} is missing: python benchmarks/mutate.py --learn makes it")
        self.seconds, self.lines = json.loads(LEARNED.read_text()).values()

    def tests(self, mutation: Mutation) -> list[str]:
        """The tests that run the statement of a mutation, quickest first; or `OF_ALL` and those of its file.

        None does where it is executed as its module is imported, or in other processes alone.
        """
        by_line = self.lines.get(str(mutation.file), {})
        text = (ROOT / PACKAGE / mutation.file).read_text()
        found = {test for line in _executed(text, mutation.begin) for test in by_line.get(str(line), ())}
        everywhere = [] if found else OF_ALL
        found = found or {test for tests in by_line.values() for test in tests}
        return [*everywhere, *sorted(found, key=lambda test: (self.seconds.get(test, 1.0), test))]

    def batches(self, mutation: Mutation) -> Iterator[list[str]]:
        """The same tests as pytest is given them, in turn; at last its room's, which may run it in other processes."""
        most = iter(BATCHES)
        limit, batch, sum_ = next(most), [], 0.0
        for test in self.tests(mutation):
            batch.append(test)
            sum_ += self.seconds.get(test, 1.0)
            if sum_ > limit:
                yield batch
                limit, batch, sum_ = next(most), [], 0.0
        if batch:
            yield batch
        if (room := Path("tests") / mutation.file.parts[0]).is_dir():
            yield [str(room)]


def _executed(text: str, begin: int) -> range:
    """The lines of the innermost statement at a place, of a compound one those of its head; none outside functions."""
    line, spans, within = text.count("\n", 0, begin) + 1, [], False
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt):
            inner, end = getattr(node, "body", None), node.end_lineno or node.lineno
            within = within or (isinstance(node, ast.FunctionDef) and node.body[0].lineno <= line <= end)
            last = max(node.lineno, inner[0].lineno - 1) if inner else end
            if node.lineno <= line <= last:
                spans.append(range(node.lineno, last + 1))
    return min(spans, key=len) if within and spans else range(0)


@dataclass(frozen=True)
class Verdict:
    """Whether a test fails with a mutation and passes without it, which one, and the seconds it took to say."""

    caught: bool
    by: str
    seconds: float


def judged(mutation: Mutation, learned: Learned) -> Verdict:
    """Run the tests of a mutation in a copy of the checkout, and the one that fails again without it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        place = Path(folder) / "unstir"
        _copy(place)
        file = place / PACKAGE / mutation.file
        whole = file.read_text()
        file.write_text(mutation.applied(whole))
        for tests in learned.batches(mutation):
            failing = _failing(place, tests)
            if failing is None:
                continue
            file.write_text(whole)
            if failing and _failing(place, [failing]) is not None:
                raise SystemExit(f"{failing} fails without any mutation: mend that first")
            return Verdict(True, failing or "it takes too long, or nothing can be imported", time.monotonic() - began)
    return Verdict(False, "", time.monotonic() - began)


def _failing(place: Path, tests: list[str]) -> str | None:
    """The first of the tests that fails, "" where pytest itself does or takes too long; None where all pass."""
    environment = {**os.environ, "PYTHONPATH": str(place / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    if done.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - |$)", done.stdout, re.MULTILINE)
    return found[1] if found and "::" in found[1] else ""


def _copy(place: Path) -> None:
    """The files that tests need."""
    place.mkdir()
    for name in ("src", "tests", "docs", "examples", "benchmarks"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, place / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rooms", nargs="+", default=list(ROOMS), choices=ROOMS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, default=None)
    parser.add_argument("--learn", action="store_true")
    arguments = parser.parse_args()
    if arguments.learn:
        return learn()
    learned = Learned()
    every = places(arguments.rooms)
    chosen = random.Random(arguments.seed).sample(every, arguments.count)
    if arguments.only is not None:
        chosen = [chosen[arguments.only]]
    print(f"{len(chosen)} of {len(every)} places, seed {arguments.seed}", flush=True)
    survived = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for number, (mutation, verdict) in enumerate(
            zip(chosen, pool.map(partial(judged, learned=learned), chosen), strict=True)
        ):
            said = f"caught by {verdict.by}" if verdict.caught else "SURVIVED"
            print(f"{number}: {mutation.file} {said} ({verdict.seconds:.0f} s)", flush=True)
            if not verdict.caught:
                survived.append(mutation)
                print(shown(mutation), flush=True)
    print(f"{len(chosen) - len(survived)} of {len(chosen)} caught")
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()
