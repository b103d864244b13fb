"""The command line alone changes how freed memory is kept, in a process that has not loaded torch."""

import ctypes
import subprocess
import sys

import pytest

from unstir.cli import terminal

COUNTING = """
import ctypes

class Counts(ctypes.Structure):
    names = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "a", "b", "c", "d", "keepcost"]
    _fields_ = [(name, ctypes.c_size_t) for name in names]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Counts
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]

def of_system():
    before = libc.mallinfo2().hblks
    libc.malloc(64 << 20)
    return libc.mallinfo2().hblks - before
"""
LIBRARY = """
import unstir, torch
from unstir.train.launch import train_run
from unstir.runs.run import Run
from unstir.generate.drawing import Job, sample_batches
run = Run.open({path!r})
next(iter(sample_batches(run.model(device="cpu"), Job(num=2, chain=run.chain()))))
train_run(run.config, run.path)
"""
COMMAND = """
import sys
from unstir.cli import main
try:
    main(["--version"])
except SystemExit:
    assert "torch" not in sys.modules
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_the_command_line_keeps_freed_blocks_and_the_library_changes_nothing(trained):
    run, _ = trained(train__length="2 steps")
    found = []
    for code in (LIBRARY.format(path=str(run.path)), COMMAND):
        program = f"{COUNTING}{code}\nprint(of_system(), libc.mallopt(-3, 2**31 - 1))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        found.append(done.stdout.split()[-2:])
    assert found[0][0] == "1"  # glibc maps such a block by itself
    assert found[1] in (["0", "1"], ["1", "0"])  # an older one keeps no block of this size, and says so


def test_another_c_library_is_left_as_it_is(monkeypatch, keep_blocks):
    monkeypatch.setattr(terminal.ctypes, "CDLL", lambda name: object())
    keep_blocks()
    monkeypatch.setattr(terminal.sys, "platform", "win32")
    keep_blocks()
