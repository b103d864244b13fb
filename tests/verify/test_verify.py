"""Every equation holds, within a minute; the command shows it, and shows what does not hold.

False alarms: the package's random numbers are functions of fixed seeds, so that no row passes by chance in one run and
fails in the next. Had the seeds been drawn anew, the rows that count random numbers, noise-is-normal and bound-strata,
would fail by chance once in 1.2 million runs (8e-7: Kolmogorov-Smirnov 8.0e-7, nine means and correlations beyond six
standard errors 2e-9 each, eleven shares of steps 3e-9 each), below the suite's 1e-6.
"""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image

from unstir import cli, verify
from unstir.verify import CHECKS, THEMES
from unstir.verify.check import Check, absolute, measure, relative, worst

NAMES = [check.name for check in CHECKS]
INEXACT = ("noise-is-normal", "ddim-order", "importance", "solver-orders", "sde-moments", "path-ends", "path-learned")
# counts, orders, and paths of a solver
QUICK = ("abar-exact", "posterior-ho", "clamp-first")


@pytest.fixture
def unstir(capsys):
    """unstir("verify", ...) -> (status, standard output, standard error)."""

    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            cli.main(["verify", *map(str, arguments)])
        said = capsys.readouterr()
        return left.value.code, said.out, said.err

    return call


@pytest.fixture(scope="module")
def rows():
    return {row.name: row for row in verify.verify()}


def failing(run):
    return Check("one-step-composes", "one is two", "nobody", "one with two; relative", 1e-12, run)


@pytest.mark.parametrize("name", NAMES)
def test_the_equation_holds(rows, name):
    row = rows[name]
    assert row.passed, f"{name}: {row.failure or row.error} where {row.tolerance} is allowed"
    assert 0 <= row.error <= row.tolerance and row.failure == ""


def test_all_of_them_take_less_than_a_minute(rows):
    assert list(rows) == NAMES and len(set(NAMES)) == len(NAMES)
    assert sum(row.seconds for row in rows.values()) < 60


def test_every_row_tells_what_it_compares_in_characters_that_any_pipe_carries(rows):
    for row in rows.values():
        text = (row.name, row.statement, row.source, row.compared)
        assert all(part and part.isascii() and part == " ".join(part.split()) for part in text)
        assert "relative" in row.compared or "absolute" in row.compared or "share of" in row.compared
        assert row.tolerance <= 1e-9 or row.name in INEXACT


def test_no_row_changes_the_random_state_that_others_use():
    before = torch.random.get_rng_state()
    list(verify.verify(["posterior-bayes", "clamp-first"]))
    assert torch.equal(before, torch.random.get_rng_state())


def test_rows_and_themes_are_chosen_by_name():
    assert [check.name for check in verify.choose(["clamp-first", "abar-exact"])] == ["abar-exact", "clamp-first"]
    assert verify.choose(["oracles"]) == THEMES["oracles"] and verify.choose([]) == CHECKS
    assert [row.theme for row in verify.verify(["posterior-ho"])] == ["reverse"]


@pytest.mark.parametrize(("name", "says"), [("posterior-bay", "posterior-bayes"), ("zzz", "forward, reverse")])
def test_an_unknown_name_is_refused_before_anything_runs(unstir, name, says):
    status, out, err = unstir("abar-exact", name)
    assert status == 2 and out == ""
    assert err.startswith(f"unstir: {name} ") and says in err and err.count("\n") == 1


def test_an_error_that_is_no_number_fails():
    row = measure(failing(lambda: math.nan), "forward")
    assert not row.passed and math.isnan(row.error)
    assert not measure(failing(lambda: math.inf), "forward").passed
    assert math.isnan(worst(1.0, math.nan)) and math.isnan(worst(math.nan, 1.0))
    assert math.isnan(relative([1.0, math.nan], [1.0, 2.0])) and math.isnan(absolute([1.0, 1.0], [math.nan, 1.0]))


def test_shapes_that_would_only_broadcast_fail():
    row = measure(failing(lambda: relative([1.0, 1.0], 1.0)), "forward")
    assert "[2]" in row.failure and "[]" in row.failure
    assert relative([0.0, 2.0], [0.0, 1.0]) == 1 and relative(1.0, 0.0) == math.inf


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (lambda: 3e-5, "3.0e-05"),
        (lambda: 1 / 0, "failed: ZeroDivisionError: division by zero"),
        (lambda: math.nan, "nan"),
    ],
)
def test_what_does_not_hold_is_shown_and_sets_the_status(unstir, monkeypatch, run, says):
    broken = tuple(replace(check, run=run) if check.name == "abar-exact" else check for check in THEMES["forward"])
    monkeypatch.setitem(THEMES, "forward", broken)
    status, out, err = unstir("abar-exact", "cosine-clipped")
    assert status == 1 and says in out and "FAILS" in out and "Traceback" not in out + err
    assert out.splitlines()[-1] == "1 of 2 hold"
    status, out, _ = unstir("abar-exact", "cosine-clipped", "--json")
    told = json.loads(out)
    assert status == 1 and not told["passed"] and [row["passed"] for row in told["rows"]] == [False, True]
    assert told["rows"][0]["error"] in (None, 3e-5)


def test_json_is_one_object_of_the_same_rows(unstir):
    status, out, _ = unstir(*QUICK, "--json")
    told = json.loads(out)
    assert status == 0 and set(told) == {"passed", "rows"} and told["passed"] is True
    assert [row["name"] for row in told["rows"]] == list(QUICK)
    for row in told["rows"]:
        assert row["passed"] is True and 0 <= row["error"] <= row["tolerance"] and row["seconds"] > 0
        assert row["theme"] in THEMES and row["statement"] and row["source"] and row["compared"]
        assert row["failure"] == ""


def test_a_pipe_carries_the_table():
    environment = {**os.environ, "COLUMNS": "40", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "unstir", "verify", *QUICK]
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert done.stdout.decode("ascii").splitlines()[-1] == "3 of 3 hold"


def test_the_whole_table_fits_eighty_columns(unstir, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    for theme, checks in THEMES.items():
        monkeypatch.setitem(THEMES, theme, tuple(replace(check, run=lambda: 0.0) for check in checks))
    lines = unstir()[1].splitlines()
    assert lines[-1] == f"{len(CHECKS)} of {len(CHECKS)} hold" and max(map(len, lines)) <= 80
    for check in CHECKS:
        (line,) = [line for line in lines if line.split()[:1] == [check.name]]
        assert line.split()[-2:] == [f"{check.tolerance:.0e}", "holds"]
    assert [line.strip().lower() for line in lines if line.strip().lower() in THEMES] == [*THEMES]


def test_the_picture_is_saved_beside_the_table(unstir, tmp_path, refused):
    status, out, _ = unstir("abar-exact", "--plot", tmp_path / "theory.png")
    assert status == 0 and f"picture  {tmp_path / 'theory.png'}" in out
    assert (tmp_path / "theory.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert unstir("abar-exact", "--plot", tmp_path / "theory.png")[0] == 0  # its own may be replaced
    Image.new("L", (8, 8), 77).save(tmp_path / "mine.png")
    kept = (tmp_path / "mine.png").read_bytes()
    for file in ("mine.png", "text.png"):
        (tmp_path / "text.png").write_text("no picture")
        refused(unstir("abar-exact", "--plot", tmp_path / file), f"--plot {tmp_path / file} exists")
    assert (tmp_path / "mine.png").read_bytes() == kept and (tmp_path / "text.png").read_text() == "no picture"
    refused(unstir("abar-exact", "--image", tmp_path / "theory.png"), "--plot FILE")
    status, _, err = unstir("abar-exact", "--plot", tmp_path / "no" / "theory.png")
    assert status == 2 and err.count("\n") == 1
