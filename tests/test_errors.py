"""Names that others chose are shown in one line that does nothing to the terminal."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unstir.errors import UserError, printable


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


def test_message_of_a_user_error_is_printable_whatever_it_names():
    assert str(UserError("\x1b[2J: not there")) == r"\x1b[2J: not there"
