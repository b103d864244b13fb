"""The colour models trained again, each from the one before; killed, and called again."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from unstir import Run, load_recipe, pack
from unstir.runs import build
from unstir.runs.initial import initial_weights
from unstir.runs.toml import to_toml

pytestmark = pytest.mark.slow
STEPS = {"first": 5, "second": 6, "third": 7, "fast": 2}  # of a 5,000th of the lengths
TINY = {
    "model.channels": 8,
    "model.groups": 4,
    "model.mults": (1, 2),
    "model.attention": (),
    "train.dtype": "float32",
    "train.micro_batch": 32,  # no trial of what fits
    "log.held_out_images": 0,
    "grids.num": 1,
}


@pytest.fixture
def reproduce(monkeypatch, tmp_path):
    """The script, its models small; called with the folder of the runs, beside a store of noise."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import reproduce

    for name in "cifar10-small", "cifar10-fast":
        config = load_recipe(str(reproduce.MODELS / name / "config.toml"))
        file = tmp_path / "models" / name / "config.toml"
        file.parent.mkdir(parents=True)
        file.write_text(to_toml(reproduce.changed(config, TINY)))
    monkeypatch.setattr(reproduce, "MODELS", tmp_path / "models")
    images = np.random.default_rng(0).integers(0, 256, (80, 32, 32, 3), dtype=np.uint8)
    pack((images, np.arange(80) % 10), tmp_path / "store", channels=3, held_out=0.125)
    words = [str(tmp_path / "store"), str(tmp_path / "out"), "--scale", "0.0002"]
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *words])
    return reproduce


def test_each_training_begins_with_the_average_of_the_last(reproduce, tmp_path, watched, capsys):
    watched(reproduce.Until, "step", KeyboardInterrupt(), lambda calls: len(calls) == 9)
    with pytest.raises(KeyboardInterrupt):  # in the second
        reproduce.main()
    reproduce.main()
    assert capsys.readouterr().out.count("ship.py") == 2
    runs = [Run.open(tmp_path / "out" / name) for name in STEPS]
    assert [run.newest_step() for run in runs] == [*STEPS.values()]
    assert [run.length for run in runs] == [38, 14, 7, 2]
    for before, run in pairwise(runs):
        assert run.config.train.init == f"{before.path}@{before.newest_step()}"
        net = build.network(run.config, torch.device("cpu"))
        begun, averages = initial_weights(net, run.config)[0], before.load().part("ema")
        assert all(torch.equal(begun[name], averages[name]) for name in averages)
    files = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    reproduce.main()
    assert files == {file: file.read_bytes() for file in files}
