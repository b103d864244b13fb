"""One thread a test process, so that two of them share a laptop, and a tiny run that trains in a second."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start

import pytest
import torch
from hypothesis import settings
from PIL import Image

from unstir.data.digits import load_digits
from unstir.runs.toml import from_dict
from unstir.train.launch import open_data, open_run

torch.set_num_threads(1)
settings.register_profile("tests", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None, max_examples=1000, print_blob=True)  # failures stay in .hypothesis/
settings.load_profile(os.environ.get("UNSTIR_HYPOTHESIS", "tests"))


def pytest_collection_modifyitems(items):
    """The end-to-end test takes minutes: begin it first, so that the others run beside it."""
    items.sort(key=lambda item: "quality" not in item.path.parts)


TINY = {
    "data": {"source": "digits", "channels": 1, "flip": True},
    "model": {"in_channels": 1, "channels": 8, "mults": [1, 2], "num_blocks": 1, "groups": 4, "dropout": 0.2},
    "diffusion": {"T": 20, "beta_1": 0.01, "beta_T": 0.3},
    "train": {"length": "12 steps", "batch_size": 8, "micro_batch": 4, "warmup": "3 steps", "dtype": "float32"},
    "log": {"every": "2 steps", "held_out_images": 0},
    "checkpoint": {"every": "4 steps"},
    "grids": {"num": 4, "steps": 3, "log_spaced": 2},
}
"""Dropout, mirroring, averages, micro-batches and an odd log window: everything that a continued run must get right.

The looks at held-out images, half the time of so short a run, are for their own tests (train/test_held_out.py)."""


def tiny_config(store, **changes):
    """The tiny config on a packed store; changes are dotted keys with __ for the dot, such as train__length."""
    values = {section: dict(keys) for section, keys in TINY.items()}
    values["data"]["store"] = str(store)
    for key, value in changes.items():
        section, name = key.split("__")
        values.setdefault(section, {})[name] = value
    if changes.get("train__length") in ("1 step", "2 steps") and "train__warmup" not in changes:
        values["train"]["warmup"] = "0 steps"  # the tiny one would be longer than the run
    return from_dict(values, "test")


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The folder of the packed digits."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    open_data(tiny_config(folder), folder / "no-run")
    return folder


@pytest.fixture
def make_run(digits, tmp_path):
    """make_run("name", train__length="5 steps") -> (run, store), as `unstir train` would make or continue it."""

    def make(name="run", **changes):
        config, out = tiny_config(digits, **changes), tmp_path / name
        store = open_data(config, out)
        return open_run(config, out, store), store

    return make


@pytest.fixture
def trained(make_run):
    """trained("name", **changes) -> (run, store) after all its tiny steps."""
    from unstir.train.trainer import Trainer

    def train(name="run", **changes):
        run, store = make_run(name, **changes)
        Trainer(run, store).run()
        return run, store

    return train


@pytest.fixture
def command(capsys):
    """command("sample", run.path, ...) -> (status, standard output, standard error)."""
    from unstir import cli

    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return left.value.code, said.out, said.err

    return call


@pytest.fixture
def unstir(command, tmp_path, monkeypatch):
    """`command`, in a folder with pictures a.png and b.png."""
    monkeypatch.chdir(tmp_path)
    for name, digit in zip("ab", load_digits()[0][:2].reshape(2, 8, 8), strict=True):
        Image.fromarray(digit).save(f"{name}.png")
    return command


@pytest.fixture
def refused():
    """refused(result, *words) -> the line: a user's mistake is status 2 and one line that holds the words."""

    def check(result, *words):
        status, out, err = result
        assert status == 2 and out == "", err
        assert err.count("\n") == 1 and err.startswith("unstir: ") and "Traceback" not in err, err
        for word in words:
            assert word in err, err
        return err

    return check
