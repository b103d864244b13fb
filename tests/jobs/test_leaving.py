"""A process that has finished its part ends well: no thread of gloo is left that could need a Python that is ending."""

import os
import socket
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import atexit
from pathlib import Path

tasks = Path("/proc/self/task")
left = lambda: [each.name for each in tasks.iterdir() if "gloo_runloop" in (each / "comm").read_text()]
atexit.register(lambda: print(len(before), len(left())) if tasks.exists() else print(2, 0))  # which runs last

import torch
from unstir import torchrun_group

def job():
    with torchrun_group("cpu") as group:
        learner = group.learner(torch.nn.Linear(3, 3))
        for _ in range(3):
            learner(torch.ones(2, 3)).sum().backward()

job()
tensors = [torch.zeros(1) for _ in range(200)]
for work in [torch.distributed.all_reduce(each, async_op=True) for each in tensors]:
    work.wait()
before = left() if tasks.exists() else []
"""


def ended():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        at = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | at | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    return [(*each.communicate(timeout=120), each.returncode) for each in started]


def test_threads_of_gloo_end_before_python_does():
    # torch alone, its group left as it was, ended 5 of 12 such processes by SIGABRT
    assert ended() == [("2 0\n", "", 0)] * 2
