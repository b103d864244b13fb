"""A small run that is healthy, trained once, and ways to spoil copies of it: a plugin of the tests that name it.

(Were it a conftest, it would stand in the way of tests that import from the one above.)
"""

import dataclasses
import shutil

import pytest

from unstir.insight.doctor import diagnose
from unstir.runs import checkpoint, lines
from unstir.runs.run import Run
from unstir.runs.toml import from_dict, to_dict
from unstir.train.launch import open_data, open_run
from unstir.train.trainer import Trainer

SMALL = {
    "data": {"source": "digits", "channels": 3},
    "model": {"in_channels": 3, "channels": 16, "mults": [1, 2], "num_blocks": 1, "groups": 4, "dropout": 0.0},
    "train": {
        "length": "300 steps", "batch_size": 32, "lr": 3e-3, "warmup": "30 steps", "lr_schedule": "cosine",
        "ema_decay": 0.99, "dtype": "float32", "device": "cpu",
    },
    "log": {"every": "10 steps"},
    "checkpoint": {"every": "150 steps"},
    "grids": {"num": 4, "steps": 4, "sampler": "dpmpp_2m", "log_spaced": 1},
}  # fmt: skip
"""Grey digits as RGB, so that a tint can be planted: seconds of training, at the end of which digits can be guessed."""


def train_small(folder):
    """Train the small run in ``folder``/run."""
    values = {**SMALL, "data": {**SMALL["data"], "store": str(folder / "digits")}}
    config = from_dict(values, "test")
    store = open_data(config, folder / "run")
    Trainer(open_run(config, folder / "run", store), store).run()


@pytest.fixture(scope="session")
def healthy(shared):
    """The folder of a trained run of the digits, of which nothing should be said."""
    return shared("healthy", train_small) / "run"


@dataclasses.dataclass(frozen=True)
class Spoiled:
    """A copy of the healthy run, to be spoiled."""

    run: Run

    @property
    def path(self):
        return self.run.path

    def metrics(self, change):
        """Rewrite metrics.jsonl: change(line, its place from 0 to 1) -> line."""
        there = self.run.metrics()
        changed = [change(dict(line), i / (len(there) - 1)) for i, line in enumerate(there)]
        lines.write(self.run.log_file("metrics"), changed)

    def config(self, **changes):
        """Rewrite config.toml and the settings in every checkpoint; keys with __ for the dot."""
        config = self.run.config
        for key, value in changes.items():
            section, name = key.split("__")
            part = dataclasses.replace(getattr(config, section), **{name: value})
            config = dataclasses.replace(config, **{section: part})
        dataclasses.replace(self.run, config=config).save_config()
        for folder in (self.run.checkpoints, self.run.weights):
            for _, path in checkpoint.listed(folder):
                checkpoint.save(folder, dataclasses.replace(checkpoint.load(path), config=to_dict(config)))

    def weights(self, change, parts=("model", "ema")):
        """Rewrite the newest full checkpoint: change(name, tensor) -> tensor, for the tensors of these parts."""
        for folder in (self.run.checkpoints, self.run.weights):
            found = checkpoint.load(checkpoint.listed(folder)[-1][1])
            tensors = {
                name: change(name.split(".", 1)[1], t) if name.split(".")[0] in parts else t
                for name, t in found.tensors.items()
            }
            checkpoint.save(folder, dataclasses.replace(found, tensors=tensors))

    def findings(self, **options):
        """The findings by name, each as its severity."""
        return {finding.check: finding.severity for finding in diagnose(self.path, **options).findings}

    def found(self, name, **options):
        """The finding of this name."""
        (finding,) = [each for each in diagnose(self.path, **options).findings if each.check == name]
        return finding


@pytest.fixture
def spoiled(healthy, tmp_path):
    """A copy of the healthy run."""
    return Spoiled(Run.open(shutil.copytree(healthy, tmp_path / "run")))
