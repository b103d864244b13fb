"""Each row of `unstir verify` fails when the bug it is there for is planted in the package, else it tests nothing.

A bug is a change of one function's syntax tree (tests/planting.py) while the test lasts. The first of each row is
planted, or all with UNSTIR_FAULTS=full. The bugs of bugs.txt are such as implementations of the papers have had: a
wrong index, a wrong root, two steps in the wrong order. That every row passes without them is test_verify.py's to show.
False alarms of the rows that count random numbers: see there; here every seed is the package's own and fixed.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import planting
from tiers import FULL
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.verify import choose, verify


@dataclass
class Bug:
    """The row that must catch it, what is wrong, the function as planting.py names it, and the changes of its tree."""

    row: str
    title: str
    target: str
    changes: list[planting.Change]


def read_bugs():
    bugs = []
    for block in Path(__file__).with_name("bugs.txt").read_text().strip().split("\n\n")[1:]:
        (row, title), (_, target), *lines = (line.split(" ", 1) for line in block.splitlines())
        assert [sign for sign, _ in lines] == ["-", "+"] * (len(lines) // 2), block
        texts = [text for _, text in lines]
        changes = list(zip(texts[::2], texts[1::2], strict=True))
        bugs.append(Bug(row.removesuffix(":"), title, target, changes))
    return bugs


pytestmark = pytest.mark.slow
BUGS = read_bugs()
PLANTED = BUGS if FULL else [*{bug.row: bug for bug in reversed(BUGS)}.values()]  # the first of each row


@pytest.mark.parametrize("bug", PLANTED, ids=[f"{bug.row}: {bug.title}" for bug in PLANTED])
def test_the_row_catches_the_bug(monkeypatch, bug):
    planting.plant(monkeypatch, bug.target, bug.changes)
    (found,) = verify([bug.row])
    assert not found.passed, found
    assert "Error: " not in found.failure, found  # else the row was stopped, not missed
    assert found.failure or not found.error <= 2 * found.tolerance, found  # else it is a narrow miss
    print(found.failure or f"{found.error:.1e}")


@pytest.mark.parametrize("row", ["conversions", "zero-terminal-snr"])
def test_a_velocity_of_the_wrong_sign_is_caught(monkeypatch, row):
    wrong = replace(PARAMETERIZATIONS["v"], _target=lambda alpha, sigma, x_0, eps: sigma * x_0 - alpha * eps)
    monkeypatch.setitem(PARAMETERIZATIONS, "v", wrong)
    (found,) = verify([row])
    assert not found.passed and "Error: " not in found.failure


def test_every_row_has_a_bug_to_catch_each_finds_its_place_and_none_is_planted_twice():
    for bug in BUGS:
        planting.changed(planting.tree_of(planting.found(bug.target)[3]), bug.changes)
    assert {bug.row for bug in BUGS} == {check.name for check in choose()}
    counts = Counter((bug.row, bug.target, *bug.changes) for bug in BUGS)
    assert max(counts.values()) == 1


def test_nothing_planted_stays():
    assert all(row.passed for row in verify(["posterior-ho", "clamp-first", "learned-variance"]))
