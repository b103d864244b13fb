"""Each row of `unstir verify` fails when the bug it is there for is planted in the package, else it tests nothing.

A bug is a change of one function's source text, compiled in the function's own module while the test lasts. The bugs of
bugs.txt are such as implementations of the papers have had: a wrong index, a wrong root, two steps in the wrong order.
That every row passes without them is test_verify.py's to show. False alarms of the rows that count random numbers: see
there; here every seed is the package's own and fixed.
"""

import functools
import importlib
import inspect
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.verify import CHECKS, verify


@dataclass
class Bug:
    """The row that must catch it, what is wrong, the function's module and name, and pairs (old, new) of its text."""

    row: str
    title: str
    module: str
    name: str
    changes: list[tuple[str, str]]


def read_bugs():
    bugs = []
    for block in Path(__file__).with_name("bugs.txt").read_text().strip().split("\n\n")[1:]:
        (row, title), (_, target), *lines = (line.split(" ", 1) for line in block.splitlines())
        assert [sign for sign, _ in lines] == ["-", "+"] * (len(lines) // 2) and lines, block
        texts = [text for _, text in lines]
        changes = list(zip(texts[::2], texts[1::2], strict=True))
        bugs.append(Bug(row.removesuffix(":"), title, *target.split(":"), changes))
    return bugs


BUGS = read_bugs()


def plant(monkeypatch, bug):
    """Change a function's or method's source, and put what it compiles to wherever the package holds the original."""
    module = importlib.import_module(f"unstir.{bug.module}")
    *classes, name = bug.name.split(".")
    owner = functools.reduce(getattr, classes, module)
    original = vars(owner)[name]
    source = textwrap.dedent(inspect.getsource(getattr(original, "fget", None) or getattr(original, "func", original)))
    for old, new in bug.changes:
        assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times in {bug.name}"
        source = source.replace(old, new)
    made = {}
    exec(compile(source, f"<planted in {bug.name}>", "exec"), vars(module), made)
    if isinstance(made[name], functools.cached_property):
        made[name].__set_name__(owner, name)
    monkeypatch.setattr(owner, name, made[name])
    for holder in [held for key, held in sys.modules.items() if key.split(".")[0] == "unstir"]:
        for attribute, value in list(vars(holder).items()):
            if value is original:  # imported by name
                monkeypatch.setattr(holder, attribute, made[name])
            elif isinstance(value, dict) and attribute.isupper():  # such as SAMPLERS, which hold it, and SCHEDULES
                for entry, held in list(value.items()):
                    if held is original:
                        monkeypatch.setitem(value, entry, made[name])
                    elif getattr(held, "run", None) is original:
                        monkeypatch.setitem(value, entry, replace(held, run=made[name]))


@pytest.mark.parametrize("bug", BUGS, ids=[f"{bug.row}: {bug.title}" for bug in BUGS])
def test_the_row_catches_the_bug(monkeypatch, bug):
    plant(monkeypatch, bug)
    (found,) = verify([bug.row])
    assert not found.passed, f"an error of {found.error:.3g} is within {found.tolerance}"
    assert "Error: " not in found.failure, f"the row was stopped, not missed: {found.failure}"
    assert found.failure or not found.error <= 2 * found.tolerance, f"{found.error:.3g} is a narrow miss"
    print(found.failure or f"{found.error:.1e}")


@pytest.mark.parametrize("row", ["conversions", "zero-terminal-snr"])
def test_a_velocity_of_the_wrong_sign_is_caught(monkeypatch, row):
    wrong = replace(PARAMETERIZATIONS["v"], _target=lambda alpha, sigma, x_0, eps: sigma * x_0 - alpha * eps)
    monkeypatch.setitem(PARAMETERIZATIONS, "v", wrong)
    (found,) = verify([row])
    assert not found.passed and "Error: " not in found.failure


def test_every_row_has_a_bug_to_catch_and_none_is_planted_twice():
    assert {bug.row for bug in BUGS} == {check.name for check in CHECKS}
    counts = Counter((bug.row, bug.name, *bug.changes) for bug in BUGS)
    assert max(counts.values()) == 1


def test_nothing_planted_stays():
    assert all(row.passed for row in verify(["posterior-ho", "clamp-first", "learned-variance"]))
