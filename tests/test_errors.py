"""Errors are values, said in one line; names that others chose do nothing to the terminal."""

import os
import pickle
from copy import copy
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unstir
from unstir.errors import (
    KeptSettingsError,
    MissingLibraryError,
    NotFiniteError,
    OutOfMemoryError,
    UnwrittenError,
    UserError,
    printable,
    within_memory,
)
from unstir.group import LostError
from unstir.runs.checkpoint import DamagedError
from unstir.serve.turns import FullError


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[2Jcat", r"\x1b[2Jcat"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2028\x9b0m", r"\u2028\x9b0m"),
        (os.fsdecode(b"caf\xe9.png"), r"caf\xe9.png"),
        ("\ud83d", r"\ud83d"),
        ("\0", r"\x00"),
    ],
)
def test_what_a_terminal_would_act_on_or_could_not_show_is_escaped(name, shown):
    assert printable(name) == shown


@pytest.mark.parametrize(
    "name", ["Gänse Ж 日本　猫.png", "a\u202fPM.png", "می\u200cخواهم", "👩\u200d🌾", "C:\\cats\\1.png"]
)
def test_names_of_every_language_stay_as_they_are(name):
    assert printable(name) == name


@given(st.text(st.characters(codec=None, exclude_categories=[])))
def test_whatever_the_name_it_is_one_line_of_utf_8_without_controls(name):
    shown = printable(name)
    shown.encode("utf-8")
    assert shown.splitlines() in ([shown], [])
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)
    assert printable(shown) == shown


RENDERED = {
    "num=0 must be at least 1; use num=1": UserError("num", 0, "must be at least 1", {"num": 1}),
    "label must be given; leave out shares": UserError("label", None, "must be given", {"shares": None}),
    "sampler='x' is unknown; did you mean ddim?": UserError("sampler", "x", "is unknown", "did you mean ddim?"),
    "a/b is damaged; restore it from a copy": UserError("", Path("a/b"), "is damaged", "restore it from a copy"),
    "beta_1=0.5 is too large; use beta_1=0.1 with beta_T=0.5, or begin anew": UserError(
        "beta_1", 0.5, "is too large", ({"beta_1": 0.1, "beta_T": 0.5}, "begin anew")
    ),
    "mine.toml: data.flip=true is odd; use data.flip=false": UserError("flip", True, "is odd", {"flip": False})
    .within("data")
    .at("mine.toml"),
    "no argument is at fault": UserError("no argument is at fault"),
    "out of memory; lower num or steps, or end other programs": OutOfMemoryError(("num", "steps")),
}


@pytest.mark.parametrize("line", RENDERED)
def test_an_error_is_one_line_made_of_its_values(line):
    assert str(RENDERED[line]) == line


ERRORS = [
    UserError("num", 0, "must be at least 1", ({"num": 1}, "or none")).at("mine.toml"),
    KeptSettingsError(("train.lr", "seed"), 0.1, "is 0.2 in the run", "leave it out"),
    OutOfMemoryError(("num",), "a step does not fit"),
    UnwrittenError(28, "No space left on device", "a"),
    DamagedError("", Path("a"), "is damaged"),
    MissingLibraryError("", "an export to ONNX", "needs onnx, which is not installed", "install it"),
    NotFiniteError("the output is not finite"),
    LostError("another process was lost"),
    FullError(),
]


def test_these_are_all_errors_of_the_package():
    modules = [
        import_module(each.name) for each in walk_packages(unstir.__path__, "unstir.") if "__main__" not in each.name
    ]
    own = {each for module in modules for each in vars(module).values() if isinstance(each, type)}
    raised = {each for each in own if issubclass(each, Exception) and each.__module__.startswith("unstir.")}
    private = {each for each in raised if each.__name__.startswith("_") or each.__name__ in ("Doubt", "Refused")}
    assert raised - private == {type(error) for error in ERRORS}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copied", "pickled"])
def test_an_error_copied_or_pickled_has_the_same_values(error, again):
    other = again(error)
    assert type(other) is type(error) and vars(other) == vars(error) and str(other) == str(error)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 3.00 GiB")])
def test_where_memory_runs_out_the_innermost_block_says_what_to_lower(error):
    with pytest.raises(OutOfMemoryError) as raised, within_memory("steps"), within_memory("num", "batch_size"):
        raise error
    assert raised.value.lower == ("num", "batch_size") and ("3.00 GiB" in raised.value.what) == bool(str(error))
