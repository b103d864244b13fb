"""One of several processes runs out of memory: all end, and go on with half the micro-batch, as one process does."""

import pytest
import torch
from test_parallel import LIMIT, training
from test_resume import assert_same, outcome

from conftest import tiny_config, without_charts
from together import Together, together
from unstir import cli
from unstir.distributed import processes
from unstir.distributed.place import LOST, LostError
from unstir.runs import checkpoint
from unstir.runs.run import Run
from unstir.runs.toml import to_toml
from unstir.train import trainer


def room_for(patch, most, step, *ranks):
    """Plant an error of memory: from that step on a process computes no more than so many images at once."""

    def greedy(key, *given):
        if processes.rank() in ranks and key.step + 1 >= step and len(key.slots) > most:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate 3.00 GiB")
        return draw(key, *given)

    draw = trainer.nearest_noise
    patch.setattr(trainer, "nearest_noise", greedy)


@pytest.fixture
def tiny(digits, monkeypatch):
    without_charts(monkeypatch)
    return lambda **changes: tiny_config(digits, train__batch_size=7, **changes)


def test_where_one_runs_out_of_memory_all_halve_when_they_go_on(tiny, tmp_path, quick_watch, monkeypatch):
    def ends(rank, step):  # as the step before is saved
        if step == 6:
            raise LostError

    def work(name, micro_batch, **given):
        config = tiny(checkpoint__every="1 step", train__micro_batch=micro_batch)
        return training(config, tmp_path / name, **given)

    assert Together(2, work("by hand", 0, after=ends), tmp_path / "before").wait(LIMIT) == [LOST] * 2
    together(2, work("by hand", 2), tmp_path / "after")
    expected = outcome(Run.open(tmp_path / "by hand"))
    assert together(2, work("more", 0), tmp_path / "all")[0][:2] == [12, True]
    more = outcome(Run.open(tmp_path / "more"))[1]  # by the size of the settings the bits are others
    assert any(not torch.equal(expected[1][name], t) for name, t in more.items())
    for ranks in ((0,), (1,), (0, 1)):
        with monkeypatch.context() as patch:
            room_for(patch, 2, 6, *ranks)  # of the 3 and 4 images of a step
            job = Together(2, work(f"{ranks}", 0), tmp_path / f"halved {ranks}")
            assert job.wait(LIMIT) == [LOST] * 2, job.said()
            run = Run.open(tmp_path / f"{ranks}")
            halved = [event for event in run.log("events").lines if event["event"] == "halved"]
            assert halved == [{"event": "halved", "step": 6, "micro_batch": 2}]
            assert together(2, work(f"{ranks}", 0), tmp_path / f"goes on {ranks}")[0][:2] == [12, True]
        assert_same(outcome(run), expected)
        assert halved == [event for event in run.log("events").lines if event["event"] == "halved"]


def test_one_out_of_memory_says_so_and_the_last_checkpoint_is_whole(tiny, tmp_path, quick_watch, monkeypatch):
    (tmp_path / "tiny.toml").write_text(to_toml(tiny(train__micro_batch=2)))
    room_for(monkeypatch, 0, 10, 1)
    words = ["train", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "run")]
    halved = "out of memory at step 10, at 3.00 GiB more: from there on train.micro_batch is 1 in place of 2, which "
    too_much = "out of memory, at 3.00 GiB more: this training takes about "
    for name, status, text in (("halved", LOST, halved), ("ended", 2, too_much)):
        job = Together(2, lambda rank: cli.main(words), tmp_path / name)
        assert job.wait(LIMIT) == [LOST, status]
        last = [line for line in job.said().splitlines() if line.startswith("unstir: ")]
        assert len(last) == 1 and last[0].startswith(f"unstir: process 1 of 2 (counted from 0): {text}")
        found, damaged = checkpoint.newest(tmp_path / "run/checkpoints")
        assert found.step == 8 and not damaged and "Traceback" not in job.said()
