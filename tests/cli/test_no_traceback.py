"""Whatever is typed, and whatever the machine refuses: a status and one line, never a traceback."""

import errno
import logging
import os
import random
import subprocess
import sys

import pytest
from commands import COMMANDS, options_of

import unstir.metrics.evaluate  # noqa: F401  # before its parts are replaced
from unstir import cli
from unstir.cli.app import show
from unstir.errors import REMEDIES, UserError

VALUES = (
    "0", "1", "-1", "2.7", "1e3", "nan", "inf", "-inf", "9" * 5000, "1" * 19, "", " ", "\udcff",
    "caf\udce9.png",
    "\x1b[31mred\x1b[0m", "[bold]x", "\u202egnp.exe", "\u00e9", "true", "no", "None",
    "[1, 2]", '{"a": 1}', "{", "--", "-",
    "--x", "-n", "=", "a=b", "ddim", "ancestral", "5 epochs", "../..", "x" * 5000, "/dev/null", "*", "%s", "{0}", "@x",
    "'", '"', "\n", "--help", "train",
)  # fmt: skip


@pytest.fixture
def nothing_is_done(monkeypatch, tmp_path):
    """The command line is parsed and checked; what it would begin is refused in place of done."""

    def stop(*_, **__):
        raise UserError("here it would begin")

    monkeypatch.chdir(tmp_path)
    for place in (
        "unstir.train.launch.open_data", "unstir.runs.run.Run.open", "unstir.data.pack", "unstir.data.Store.open",
        "unstir.verify.choose",
    ):  # fmt: skip
        monkeypatch.setattr(place, stop)


@pytest.mark.parametrize("seed", range(8))
def test_random_command_lines_end_in_a_status_and_no_traceback(nothing_is_done, command, tmp_path, seed):
    chance = random.Random(seed)
    for _ in range(25):
        name = chance.choice([*COMMANDS, (), ("data",), ("edit",)])
        words = [*name, *"rij"[: chance.randrange(4)]]
        options = (sorted(options_of(name)) if name in COMMANDS else []) or ["--help", "--version", "-h"]
        for _ in range(chance.randrange(4)):
            option, value = chance.choice(options), chance.choice(VALUES)
            words += chance.choice(([option, value], [f"{option}={value}"], [value], [option], [option, value, value]))
        if chance.random() < 0.2:
            words[chance.randrange(len(words) + 1) :] = [chance.choice(VALUES)]
        status, out, err = command(*words)
        assert status in (0, 1, 2), words
        assert "Traceback" not in out + err, words
        assert status == 0 or (err.count("\n") == 1 and len(err) < 2000), (words, err)
        assert "\x1b" not in err and "\udcff" not in err, words
        for foreign in ("Errno", "nput should", "nable to", "nvalid literal", "Exceeds", "pydantic"):
            assert foreign not in err, (words, err)
        assert not list(tmp_path.iterdir()), words


ODD_FILES = None, b"bytes", "\x1b[2Jname"


@pytest.mark.parametrize(
    ("number", "file"),
    [*((number, "there/settings.json") for number in sorted(REMEDIES)), *((errno.EIO, file) for file in ODD_FILES)],
)
def test_each_error_of_the_system_names_file_and_remedy(command, monkeypatch, number, file):
    error = OSError(number, os.strerror(number), file) if file else OSError(number, os.strerror(number))
    monkeypatch.setattr("unstir.runs.run.Run.open", lambda _: (_ for _ in ()).throw(error))
    status, _, err = command("doctor", "r")
    assert status == 2 and err.count("\n") == 1 and os.strerror(number) in err and REMEDIES[number] in err
    assert "Errno" not in err and "\x1b" not in err
    assert not isinstance(file, str) or file.split("[")[-1].removeprefix("2J") in err


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0"), "2.50 GiB"),
        (RuntimeError("std::bad_alloc"), "out of memory; lower --batch-size"),
        (type("Failed", (RuntimeError,), {"__module__": "torch._dynamo.exc"})("odd"), "odd. Leave it out: --compile"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (OverflowError("int too large to convert to float"), "too large"),
        (ValueError("Exceeds the limit (4300 digits) for integer string conversion"), "too large"),
        (UnicodeEncodeError("utf-8", "caf\udce9", 3, 4, "surrogates not allowed"), "not UTF-8"),
    ],
)
def test_limits_of_the_machine_are_one_line(command, monkeypatch, error, word):
    monkeypatch.setattr("unstir.runs.run.Run.open", lambda _: (_ for _ in ()).throw(error))
    status, _, err = command("doctor", "r")
    assert status == 2 and err.count("\n") == 1 and word in err and "recursion" not in err and "Exceeds" not in err


@pytest.mark.parametrize("error", [ValueError("odd"), RuntimeError("odd"), KeyError("odd"), AssertionError("odd")])
def test_a_bug_is_not_hidden(monkeypatch, error):
    monkeypatch.setattr("unstir.runs.run.Run.open", lambda _: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)):
        cli.main(["doctor", "r"])


ONE_BY_ONE = """
import sys
from unstir.cli import main
words = []
for word in sys.argv[1:]:
    words.append(word)
    if word == "--and":
        try:
            main(words[:-1])
        except SystemExit as left:
            print(left.code)
        words = []
"""
"""Commands that end in --and, in one process, which imports torch once; it prints the exit status of each."""


@pytest.mark.parametrize("terminal", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}])
def test_names_that_the_terminal_cannot_show_do_not_fail(tmp_path, terminal):
    folder = os.fsencode(tmp_path) + b"/caf\xe9 \xc3\xa9\x1b[31m"
    os.mkdir(folder)
    commands = [b"sample", folder], [b"train", b"--data.source", folder], [b"data", b"inspect", folder]
    given = [word for words in commands for word in (*words, b"--and")]
    done = subprocess.run(
        [sys.executable, "-c", ONE_BY_ONE, *given], capture_output=True, env={**os.environ, **terminal}, cwd=tmp_path
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert done.stdout.split() == [b"2", b"2", b"2"] and done.stderr.count(b"\n") == 3, done.stderr
    for line in done.stderr.splitlines():
        assert rb"caf\xe9" in line and b"\x1b" not in line, line


@pytest.mark.parametrize("words", [("--sheet", "x.txt"), ("--sheet", "no/x.png"), ("--sheet", ".")])
def test_the_name_of_a_contact_sheet_is_checked(unstir, refused, tmp_path, digits, words):
    assert "png" in refused(unstir("data", "inspect", digits, *words), words[1]).lower()
    assert not (tmp_path / "x.txt").exists() and not (tmp_path / "no").exists()


def test_what_a_terminal_would_act_on_is_escaped_in_results_and_in_what_is_said(unstir, capsys, monkeypatch):
    for given, shown in (("a\x1b[2Jb", "a\\x1b[2Jb\n"), ("caf\udce9\nline", "caf\\xe9\\nline\n")):
        show(given)
        assert capsys.readouterr().out == shown
    logger = logging.getLogger("unstir.verify")
    monkeypatch.setattr("unstir.verify.verify", lambda names: logger.warning("a\x1b]0;title\x07b") or [])
    status, _, err = unstir("verify")
    assert status == 0 and err == "unstir: a\\x1b]0;title\\x07b\n"
