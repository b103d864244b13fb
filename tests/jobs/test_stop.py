"""Signals of the command line, and the lines that torchrun takes."""

import os
import pty
import re
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest
from torch.distributed.run import parse_args

from processes import Command, until
from unstir import parts
from unstir.cli.app import BY_SEVERAL
from unstir.jobs.process import ENDED, SHOW_CURSOR, Signals


def ended(*numbers, **environment):
    """The exit status of a child to which these signals come in a block of `Signals`, and what its terminal showed."""
    shown, terminal = pty.openpty()
    child = os.fork()
    if child == 0:
        os.dup2(terminal, 2)
        os.environ.update(environment)
        with Signals() as stop:
            for number in numbers:
                os.kill(os.getpid(), number)
            os._exit(stop.status - 100)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(terminal, b".")
    text = os.read(shown, 1 << 16)
    os.close(shown)
    os.close(terminal)
    return status, text.removesuffix(b".")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_one_ends_the_process_with_a_line_and_the_cursor_shown(first):
    assert ended(first) == (first + 28, b"")
    line = (SHOW_CURSOR + ENDED).replace(b"\n", b"\r\n")
    assert ended(first, signal.SIGINT) == (130, line)


def test_of_several_processes_a_second_one_is_ignored_for_torchrun_repeats_it():
    place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    assert ended(signal.SIGTERM, signal.SIGTERM, **place) == (43, b"")


def test_afterwards_handlers_are_those_of_before():
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    before = [signal.getsignal(number) for number in numbers]
    with Signals() as stop:
        assert [signal.getsignal(number) for number in numbers] != before and stop.status == 0
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_another_command_ends_at_the_first(run, tmp_path, monkeypatch, number, status):

    def sampler(*_, **__):
        (tmp_path / "begun").touch()
        time.sleep(60)
        yield from ()

    real = parts.find
    monkeypatch.setattr(parts, "find", lambda kind, name: sampler if kind == "sampler" else real(kind, name))
    child = Command(["sample", run.path, "--num", 2], tmp_path, err=tmp_path / "err")
    until(lambda: (tmp_path / "begun").exists() or child.poll() is not None)
    child.send_signal(number)
    assert child.wait() == status
    said = (tmp_path / "err").read_text()
    assert said.count("\n") == (number == signal.SIGINT) and "Traceback" not in said


DOCS = Path(__file__).parents[2] / "docs"
TYPED = [
    line
    for name in ("scaling", "commands")
    for line in (DOCS / f"{name}.md").read_text().replace("\\\n", " ").splitlines()
    if re.match(r"(\w+=\S+ |srun )*torchrun -", line)
]


@pytest.mark.parametrize("line", TYPED)
def test_torchrun_takes_the_lines_of_the_documentation(line):
    words = shlex.split(line, comments=True)
    given = parse_args(words[words.index("torchrun") + 1 :])
    assert (given.training_script, given.module) == ("unstir", True) and given.training_script_args[0] in BY_SEVERAL


def test_lines_of_all_shared_commands_are_there():
    assert {command for command in BY_SEVERAL for line in TYPED if f"unstir {command}" in line} == set(BY_SEVERAL)


def test_options_that_torchrun_would_take_for_its_own_need_two_dashes_before():
    words = ["--nproc-per-node", "2", "-m", "unstir", "sample", "runs/digits", "--num", "9"]
    if sys.version_info < (3, 13):  # where argparse reads what begins like an option of its own
        with pytest.raises(SystemExit):
            parse_args(words)
    assert parse_args([*words[:3], "--", *words[3:]]).training_script_args == words[4:]
