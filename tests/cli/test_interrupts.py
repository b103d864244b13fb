"""A second Ctrl-C ends a command in the middle of one long call, with the cursor shown and whole files."""

import hashlib
import os
import pty
import signal
import threading
import time
from contextlib import suppress

import pytest

from conftest import tiny_config, without_charts
from processes import Command
from unstir.cli import interrupts
from unstir.errors import UserError
from unstir.runs import checkpoint
from unstir.runs.toml import to_toml
from unstir.train import trainer

SHOWN, HIDDEN = b"\x1b[?25h", b"\x1b[?25l"


def one_long_call():
    """Some half a minute in one call, which gives up Python's lock and lets no handler of Python's run."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", 40_000_000)


def read(shown):
    """What stands on a terminal that was not read yet."""
    try:
        return os.read(shown, 1 << 16)
    except BlockingIOError:
        return b""


@pytest.fixture
def stuck(digits, tmp_path, monkeypatch):
    """stuck(*numbers) -> (status, seconds, what the terminal showed) of a training whose second step takes half a
    minute and which is sent these signals in the middle of it.
    """
    without_charts(monkeypatch)
    monkeypatch.setenv("TERM", "xterm")
    real = trainer.denoising_loss

    def loss(*given):
        if checkpoint.listed(tmp_path / "run/checkpoints"):
            (tmp_path / "stuck").touch()
            one_long_call()
        return real(*given)

    monkeypatch.setattr(trainer, "denoising_loss", loss)

    def train(*numbers):
        config = tiny_config(digits, checkpoint__every="1 step", grids__log_spaced=0)
        (tmp_path / "tiny.toml").write_text(to_toml(config))
        shown, terminal = pty.openpty()
        name = os.ttyname(terminal)
        child = Command(["train", tmp_path / "tiny.toml", "--out", tmp_path / "run"], tmp_path, name, name)
        deadline, text = time.monotonic() + 120, b""
        os.set_blocking(shown, False)
        while not (tmp_path / "stuck").exists():
            assert time.monotonic() < deadline and child.poll() is None
            text += read(shown)
            time.sleep(0.01)
        time.sleep(0.2)
        for number in numbers:
            child.send_signal(number)
            time.sleep(0.1)
        began = time.monotonic()
        status = child.wait()
        seconds = time.monotonic() - began
        while more := read(shown):
            text += more
        os.close(terminal)
        os.close(shown)
        return status, seconds, text

    return train


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_one_is_noticed_in_the_middle_of_a_call(stuck, tmp_path, first):
    status, seconds, text = stuck(first, signal.SIGINT)
    assert status == 130 and seconds < 5, seconds
    assert text.rfind(SHOWN) > text.rfind(HIDDEN) >= 0 and b"Traceback" not in text
    assert text.endswith(b"\r\n" + interrupts.ENDED.replace(b"\n", b"\r\n"))
    found, damaged = checkpoint.newest(tmp_path / "run/checkpoints")
    assert found is not None and not damaged


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,)])
@pytest.mark.parametrize("words", [["sample", "--num", 2], ["likelihood", "--num", 2], ["evaluate", "--num", 12]])
def test_other_commands_too_end_in_the_middle_of_a_call(trained, tmp_path, monkeypatch, words, numbers):
    run, _ = trained()

    def sampler(*_, **__):
        (tmp_path / "stuck").touch()
        one_long_call()
        yield from ()

    monkeypatch.setattr("unstir.diffusion.draw.function_of", lambda _: sampler)
    monkeypatch.setattr("unstir.metrics.likelihood.variational_bound", lambda *_, **__: next(sampler()))
    child = Command([words[0], run.path, *words[1:]], tmp_path, err=tmp_path / "err")
    while not (tmp_path / "stuck").exists():
        assert child.poll() is None
        time.sleep(0.01)
    for number in numbers:
        child.send_signal(number)
        time.sleep(0.1)
    began = time.monotonic()
    assert child.wait() == 128 + numbers[-1] and time.monotonic() - began < 5
    before = (tmp_path / "err").read_bytes().removesuffix(interrupts.ENDED)
    assert (tmp_path / "err").read_bytes() == before + interrupts.ENDED
    told = before.splitlines()  # of the classifier, which is trained first
    assert not told or (words[0] == "evaluate" and all(b"training" in line for line in told))


def ended(what, full=False):
    """The status, the seconds and the standard error, a pipe that may be full, of a child that does this."""
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    with suppress(BlockingIOError):
        while full:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    began, child = time.monotonic(), os.fork()
    if child == 0:
        os.dup2(writing, 2)
        what()
    while not (found := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() - began < 5:
        time.sleep(0.005)
    seconds = time.monotonic() - began
    if not found[0]:
        os.kill(child, signal.SIGKILL)
        found = os.waitpid(child, 0)
    said = b"".join(iter(lambda: read(reading), b""))
    os.close(reading)
    os.close(writing)
    return os.waitstatus_to_exitcode(found[1]), seconds, said.strip(b"\0")


def test_the_line_is_never_waited_for():
    status, seconds, said = ended(lambda: interrupts.end(130), full=True)
    assert status == 130 and seconds < 2 and said == b""


def test_the_line_is_said_once_where_thread_and_handler_both_end_it():
    def both():
        leave = os._exit
        os._exit = lambda status: (time.sleep(0.3), leave(status))  # the other one comes before it is over
        threading.Thread(target=interrupts.end, args=(130,)).start()
        interrupts.end(130)

    status, seconds, said = ended(both)
    assert status == 130 and seconds < 2 and said == interrupts.ENDED


def test_afterwards_nothing_is_left_of_it(monkeypatch):
    open_files, before = len(os.listdir("/proc/self/fd")), signal.getsignal(signal.SIGTERM)
    with pytest.raises(UserError), interrupts.noticed():
        raise UserError("a mistake")
    assert signal.getsignal(signal.SIGTERM) == before
    assert signal.set_wakeup_fd(-1) == -1 and len(os.listdir("/proc/self/fd")) == open_files
    monkeypatch.setenv("WORLD_SIZE", "2")
    with interrupts.noticed():
        assert signal.set_wakeup_fd(-1) == -1  # torchrun repeats a signal to each of several processes
