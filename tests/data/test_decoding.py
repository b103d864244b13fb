"""Workers that decode: how many, how far ahead, and what one answers."""

import io
import json
import os
import runpy
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from unstir.data import decoding
from unstir.errors import UserError


@pytest.mark.parametrize(
    ("affinity", "count", "workers"), [(3, 8, 3), (64, 8, 16), (None, 5, 5), (None, 64, 16), (None, None, 1)]
)
def test_there_is_a_worker_a_core_and_at_most_sixteen(monkeypatch, affinity, count, workers):
    if affinity is None:
        monkeypatch.delattr(os, "sched_getaffinity")
    else:
        asked = {0: set(range(affinity))}  # 0 is this process
        monkeypatch.setattr(os, "sched_getaffinity", asked.__getitem__)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert runpy.run_path(decoding.__file__)["MAX_WORKERS"] == workers


def test_requests_are_taken_two_a_worker_ahead_and_answered_in_order(monkeypatch):
    stopped = []
    fake = SimpleNamespace(decode=lambda paths: paths, stop=lambda: stopped.append(True))
    monkeypatch.setattr(decoding, "_Worker", lambda setup: fake)
    taken = deque()
    requests = (taken.append(number) or [str(number)] for number in range(9))
    replies = decoding.decode_all(Path(), requests, None, 3, None, 2)
    assert next(replies) == ["0"] and len(taken) == 5
    assert [*replies] == [[str(number)] for number in range(1, 9)]
    assert len(stopped) == 2


class Pipe(io.BytesIO):
    """A pipe that remembers what had been written at each flush."""

    flushed: tuple[bytes, ...] = ()

    def flush(self):
        self.flushed += (self.getvalue(),)


def served(monkeypatch, root, *requests):
    """What a worker answers, as it stands at each flush."""
    pipe, setup = Pipe(), {"root": str(root), "size": None, "channels": 3, "shape": None}
    monkeypatch.setattr(decoding.sys, "argv", ["", json.dumps(setup)])
    given = io.BytesIO(b"".join(json.dumps(paths).encode() + b"\n" for paths in requests))
    monkeypatch.setattr(decoding.sys, "stdin", SimpleNamespace(buffer=given))
    monkeypatch.setattr(decoding.sys, "stdout", SimpleNamespace(buffer=pipe))
    decoding.serve()
    return pipe.flushed


def test_a_worker_answers_each_request_at_once_with_a_head_and_pixels(tmp_path, monkeypatch):
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "a.png")
    first, both = served(monkeypatch, tmp_path, ["none.png"], ["none.png", "a.png"])
    assert first.count(b"\n") == 1 and json.loads(first)["shape"] == [0, 0] and json.loads(first)["kept"] == []
    head, pixels = both.removeprefix(first).split(b"\n", 1)
    assert json.loads(head)["shape"] == [1, 3, 2, 3] and json.loads(head)["kept"] == [1]
    assert pixels == b"\1" * 6 + b"\2" * 6 + b"\3" * 6


@pytest.mark.parametrize(
    ("error", "said"), [(UserError("a disk is failing"), "^a disk is failing$"), (MemoryError(), "not enough memory")]
)
def test_a_worker_hands_what_is_wrong_with_the_machine_to_its_parent(tmp_path, monkeypatch, error, said):
    def fail(*_):
        raise error

    monkeypatch.setattr(decoding, "_decode_group", fail)
    (reply,) = served(monkeypatch, tmp_path, ["a.png"])
    worker = object.__new__(decoding._Worker)
    worker._process = SimpleNamespace(stdin=Pipe(), stdout=io.BytesIO(reply))
    with pytest.raises(UserError, match=said):
        worker.decode(["a.png"])
    assert worker._process.stdin.flushed == (b'["a.png"]\n',)
