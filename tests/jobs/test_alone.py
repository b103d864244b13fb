"""The library is a good guest: in any process it computes alone, at once, and leaves the process as it was."""

import os
import signal
import threading

import pytest
import torch

import unstir
from conftest import tiny_config
from unstir.chain import Chain
from unstir.runs.checkpoint import newest


def state_of_process():
    """What a host would not want to be changed."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    return dict(os.environ), handlers, torch.get_num_threads(), torch.distributed.is_initialized()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_in_a_process_of_somebody_elses_job_it_computes_alone(digits, tmp_path, monkeypatch, rank):
    place = {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    before = state_of_process()
    done = unstir.train_run(tiny_config(digits, train__length="2 steps"), tmp_path / "run")
    assert done.finished and newest(done.run.checkpoints)[0].environment["processes"] == 1
    model = done.run.model(device="cpu")
    unstir.sample(model, unstir.Job(num=5, batch_size=2, chain=Chain(steps=2)), tmp_path / "made")
    assert len(list((tmp_path / "made").glob("0*.png"))) == 5
    assert state_of_process() == before


def test_it_trains_in_a_thread_that_may_have_no_handlers(digits, tmp_path):
    done = []
    config = tiny_config(digits, train__length="2 steps")
    thread = threading.Thread(target=lambda: done.append(unstir.train_run(config, tmp_path / "run").finished))
    thread.start()
    thread.join()
    assert done == [True]
