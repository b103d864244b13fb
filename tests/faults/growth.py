"""Train a tiny run in a process of its own; print the open files and threads after each step, as JSON.

python growth.py FOLDER STEPS
"""

import json
import os
import sys
from pathlib import Path

import pytest

from conftest import tiny_config, without_charts
from unstir.data import pack
from unstir.train.launch import open_run
from unstir.train.observer import Observer
from unstir.train.trainer import Trainer


class Watch(Observer):
    """Takes down what the process holds."""

    def __init__(self):
        self.rows = []

    def step(self, step):
        """See Observer."""
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        self.rows.append((len(os.listdir("/proc/self/fd")), int(status["Threads"])))


def main(folder, steps):
    store, watch = pack("digits", folder / "digits"), Watch()
    without_charts(pytest.MonkeyPatch())
    changes = {"train__length": f"{steps} steps", "log__held_out_images": 16, "log__held_out_times": 4}
    changes |= {"log__every": "20 steps", "checkpoint__every": "20 steps", "grids__log_spaced": 4}
    config = tiny_config(store.path, **changes)
    Trainer(open_run(config, folder / "run", store), store, watch).run()
    print(json.dumps(watch.rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
