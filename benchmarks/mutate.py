"""Change one operator, number or line of the package at a time and see whether the tests of that room notice.

Usage: python benchmarks/mutate.py [--count 40] [--seed 0] [--rooms theory diffusion ...] [--jobs 2] [--only NUMBER]

Each mutation is made in a copy of the checkout and is a function of (seed, number): its place is drawn evenly from all
places of the rooms. What can be changed: a comparison or its strictness, an arithmetic or logical operator, a number,
True and False, a condition (negated), and a call whose result is not used (left out); never a message, a docstring, an
annotation or a default of the command line. The tests of the mutated module's name run first, then the room's others,
up to the first failure, which must not fail without the mutation; a run that takes much longer than it should is a
failure too. Survivors are printed as a diff, to be judged: either no test sees them, or they change nothing that can be
seen. Status 1 where any survived.
"""

import argparse
import ast
import difflib
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("src/unstir")
ROOMS = (
    "randomness.py", "significance.py", "pixels.py", "chain.py", "theory", "nn", "diffusion", "data", "runs", "train",
    "generate", "edit", "metrics", "doctor",
)  # fmt: skip
"""The rooms in which every line decides a result; pictures and texts are not among them."""
ELSEWHERE = {
    "randomness.py": ("statistics", "train/test_resume.py"),
    "significance.py": ("metrics/test_trust.py", "metrics/test_memorisation.py"),
    "pixels.py": ("data/test_images.py", "test_not_finite.py", "test_cli_sample.py"),
    "chain.py": ("diffusion", "test_settings.py", "test_cli_sample.py"),
    "theory": ("verify/test_verify.py", "diffusion"),
    "nn": ("train/test_resume.py",),
    "diffusion": ("verify/test_verify.py", "statistics", "metrics/test_run_likelihood.py"),
    "runs": ("test_settings.py", "test_guide.py", "train", "test_cli.py"),
    "train": ("test_cli.py",),
    "generate": ("test_cli_sample.py", "test_sample_killed.py", "test_settings.py"),
    "edit": ("test_cli_edit.py", "test_edit_files.py", "diffusion/test_editing.py"),
    "metrics": ("test_cli_evaluate.py",),
}
"""The tests of a room, below tests/, beside the folder that has its name and the test of all dataclasses."""

OPERATORS: dict[type[ast.AST], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.In: "not in",
    ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is", ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*",
    ast.FloorDiv: "*", ast.Mod: "*", ast.Pow: "*", ast.And: "or", ast.Or: "and", ast.BitAnd: "|", ast.BitOr: "&",
}  # fmt: skip
SYMBOLS: dict[type[ast.AST], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.In: "in",
    ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not", ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/",
    ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**", ast.And: "and", ast.Or: "or", ast.BitAnd: "&", ast.BitOr: "|",
}  # fmt: skip
LONGEST = 1200
"""Seconds that the tests of one mutation may take."""


@dataclass(frozen=True)
class Mutation:
    """A change of ``file`` (below the package): the text from ``begin`` to ``end`` becomes ``new``."""

    file: Path
    begin: int
    end: int
    new: str

    def applied(self, text: str) -> str:
        """The file's text with the change."""
        return text[: self.begin] + self.new + text[self.end :]


class Places(ast.NodeVisitor):
    """All mutations of a file, in the order of its text."""

    def __init__(self, file: Path) -> None:
        self.file, self.text = file, (ROOT / PACKAGE / file).read_text()
        self.starts = [0]
        for line in self.text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.lines = self.text.splitlines(keepends=True)
        self.found: list[Mutation] = []
        self.visit(ast.parse(self.text))

    def at(self, line: int, column: int) -> int:
        """The place in the text of a place in the syntax tree, whose columns count bytes."""
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Where a node begins and ends in the text."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def between(self, left: ast.expr, right: ast.expr, operator: ast.AST) -> None:
        """The operator between two operands becomes another."""
        kind = type(operator)
        begin, end = self.span(left)[1], self.span(right)[0]
        symbol = SYMBOLS.get(kind)
        if symbol and self.text[begin:end].count(symbol) == 1:
            place = begin + self.text[begin:end].index(symbol)
            self.found.append(Mutation(self.file, place, place + len(symbol), OPERATORS[kind]))

    def visit_Compare(self, node: ast.Compare) -> None:
        """Each comparison of a chain."""
        for left, operator, right in zip((node.left, *node.comparators), node.ops, node.comparators, strict=False):
            self.between(left, right, operator)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Arithmetic, but not that of texts."""
        if not any(isinstance(part, ast.JoinedStr) or _is_text(part) for part in (node.left, node.right)):
            self.between(node.left, node.right, node.op)
            self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """The first of a row of and's or or's."""
        self.between(node.values[0], node.values[1], node.op)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """A number is one more, half or double; True and False change places."""
        begin, end = self.span(node)
        if isinstance(node.value, bool):
            self.found.append(Mutation(self.file, begin, end, str(not node.value)))
        elif isinstance(node.value, int):
            self.found.append(Mutation(self.file, begin, end, str(node.value + 1)))
        elif isinstance(node.value, float):
            self.found.append(Mutation(self.file, begin, end, repr(node.value * 2 if node.value else 0.5)))

    def visit_If(self, node: ast.If | ast.IfExp | ast.While) -> None:
        """A condition is negated."""
        begin, end = self.span(node.test)
        self.found.append(Mutation(self.file, begin, end, f"not ({self.text[begin:end]})"))
        self.generic_visit(node)

    visit_IfExp = visit_While = visit_If  # noqa: N815

    def visit_Expr(self, node: ast.Expr) -> None:
        """A call whose result is not used is left out; docstrings are not mutated."""
        if isinstance(node.value, ast.Call):
            self.found.append(Mutation(self.file, *self.span(node), "pass"))
            self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        """The text of an error is not mutated."""

    visit_JoinedStr = visit_Import = visit_ImportFrom = visit_Raise  # noqa: N815

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Bodies and defaults; annotations are not mutated."""
        for each in (*node.args.defaults, *(d for d in node.args.kw_defaults if d), *node.body):
            self.visit(each)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The value alone."""
        if node.value:
            self.visit(node.value)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def places(rooms: list[str]) -> list[Mutation]:
    """All mutations of these rooms."""
    files = [
        path.relative_to(ROOT / PACKAGE)
        for room in rooms
        for path in ([ROOT / PACKAGE / room] if room.endswith(".py") else sorted((ROOT / PACKAGE / room).rglob("*.py")))
    ]
    return [mutation for file in files for mutation in Places(file).found]


def tests_of(file: Path) -> Iterator[list[str]]:
    """What pytest is given, in turn: the tests named after the module, then those of its room."""
    if named := sorted(path for path in ROOT.glob("tests/**/test_*.py") if file.stem.strip("_") in path.stem):
        yield [str(path.relative_to(ROOT)) for path in named]
    if room := tests_of_room(file.parts[0]):
        yield room


def tests_of_room(room: str) -> list[str]:
    """tests/ROOM where there is one, what ELSEWHERE names, and those of all; SystemExit where one is missing."""
    own = [f"tests/{room}"] if (ROOT / "tests" / room).is_dir() else []
    of_all = ("test_parameters.py", "test_values.py")
    others = [f"tests/{name}" for name in (*ELSEWHERE.get(room, ()), *of_all)]
    if missing := [name for name in others if not (ROOT / name).exists()]:
        raise SystemExit(f"ELSEWHERE names tests that are not there: {', '.join(missing)}")
    return own + others


@dataclass(frozen=True)
class Verdict:
    """Whether a test fails with a mutation and passes without it, which one, and the seconds it took to say."""

    caught: bool
    by: str
    seconds: float


def judged(mutation: Mutation) -> Verdict:
    """Run the tests of a mutation in a copy of the checkout, and the one that fails again without it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        place = Path(folder) / "unstir"
        _copy(place)
        file = place / PACKAGE / mutation.file
        whole = file.read_text()
        file.write_text(mutation.applied(whole))
        for tests in tests_of(mutation.file):
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
    if done.returncode in (0, 5):  # 5: the module's name chose no test
        return None
    found = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - |$)", done.stdout, re.MULTILINE)
    return found[1] if found and "::" in found[1] else ""


def _copy(place: Path) -> None:
    """The files that tests need."""
    place.mkdir()
    for name in ("src", "tests", "docs", "benchmarks"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, place / name)


def shown(mutation: Mutation) -> str:
    """A mutation as a diff without context."""
    before = (ROOT / PACKAGE / mutation.file).read_text()
    changed = difflib.unified_diff(before.splitlines(), mutation.applied(before).splitlines(), n=0, lineterm="")
    lines = [line for line in changed if not line.startswith(("---", "+++"))]
    return "\n".join([f"  {mutation.file}", *(f"  {line}" for line in lines)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rooms", nargs="+", default=list(ROOMS), choices=ROOMS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, default=None)
    arguments = parser.parse_args()
    for room in ROOMS:
        tests_of_room(room)
    every = places(arguments.rooms)
    chosen = random.Random(arguments.seed).sample(every, arguments.count)
    if arguments.only is not None:
        chosen = [chosen[arguments.only]]
    print(f"{len(chosen)} of {len(every)} places, seed {arguments.seed}", flush=True)
    survived = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for number, (mutation, verdict) in enumerate(zip(chosen, pool.map(judged, chosen), strict=True)):
            said = f"caught by {verdict.by}" if verdict.caught else "SURVIVED"
            print(f"{number}: {mutation.file} {said} ({verdict.seconds:.0f} s)", flush=True)
            if not verdict.caught:
                survived.append(mutation)
                print(shown(mutation), flush=True)
    print(f"{len(chosen) - len(survived)} of {len(chosen)} caught")
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()
