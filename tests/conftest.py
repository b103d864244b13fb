"""One thread a test process, so that two of them share a laptop, and a tiny run that trains in a second.

What many tests begin with, such as a trained tiny run, is made once for all processes of pytest (`shared`) and copied.
"""

import fcntl
import gc
import hashlib
import json
import logging
import os
import re
import shutil
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for tests on CUDA, as the command line sets it

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

import refusals
from unstir import parts
from unstir.data import Store, pack
from unstir.data.embedded import load_embedded
from unstir.jobs import process
from unstir.metrics import feature_figures
from unstir.metrics.classifier import FILE, classifier_for
from unstir.pictures.grid import with_words
from unstir.progress import shown_by
from unstir.runs.toml import from_dict
from unstir.train import record
from unstir.train.launch import open_data, open_run
from unstir.train.trainer import Trainer

torch.set_num_threads(1)
gc.set_threshold(10_000, 20, 20)  # or a tenth of the time goes into looking through all that is imported
settings.register_profile("tests", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None, max_examples=1000, print_blob=True)  # failures stay in .hypothesis/
settings.load_profile(os.environ.get("UNSTIR_HYPOTHESIS", "tests"))


ALL_SLOW = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.slow\b", re.MULTILINE)


def pytest_ignore_collect(collection_path, config):
    """In the ordinary tier a module of slow tests is not imported, for it may need a package that .[test] lacks."""
    if config.option.markexpr == "not slow" and collection_path.suffix == ".py":
        return True if ALL_SLOW.search(collection_path.read_text()) else None
    return None


_keep_blocks = process.keep_blocks
process.keep_blocks = lambda: None  # or a worker only grows, and with it the processes that tests fork


@pytest.fixture
def keep_blocks():
    """`process.keep_blocks`, which is left out of all other tests."""
    return _keep_blocks


_charts = {name: getattr(record, name) for name in ("training_curves", "held_out_figure", "save_figure")}
record.training_curves = record.held_out_figure = lambda lines: None


def _blank(figure, path, **words):
    Image.new("L", (1, 1)).save(path, format="png", pnginfo=with_words(**words))


record.save_figure = _blank


@pytest.fixture
def charts(monkeypatch):
    """The charts that a training draws of its losses: half the time of a tiny run, and blank in all other tests."""
    for name, draw in _charts.items():
        monkeypatch.setattr(record, name, draw)


@pytest.fixture
def watched(monkeypatch):
    """watched(module, "function") -> what it is called with, a list that grows; with an error it fails ``when``."""

    def watch(owner, name, error=None, when=lambda calls: True):
        calls, real = [], getattr(owner, name)

        def call(*given, **options):
            calls.append(given)
            if error is not None and when(calls):
                raise error
            return real(*given, **options)

        monkeypatch.setattr(owner, name, call)
        return calls

    return watch


@pytest.fixture
def logged():
    """The sentences that the package logs, a list that grows."""
    sentences, logger, handler = [], logging.getLogger("unstir"), logging.Handler()
    handler.emit = lambda record: sentences.append(record.getMessage())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield sentences
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def counts():
    """What jobs tell of how far they have come: (job, done, total), a list that grows."""
    told = []

    @contextmanager
    def display(job, unit):
        yield lambda done, total, note="": told.append((job, done, total))

    with shown_by(display):
        yield told


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # all that is imported, which each later collection would look through


LONGEST = ("quality", "faults", "examples", "trackers", "interop", "serve", "train", "insight", "metrics")
"""The folders whose files take longest: begun first, so that the processes end together."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: [name not in item.path.parts for name in LONGEST])


def forget_parts(monkeypatch, *modules):
    """As in a new process: no part of the user's own is known or allowed, and these ``modules`` are not loaded."""
    for key in [key for key in parts._KNOWN if ":" in key[1]]:
        monkeypatch.delitem(parts._KNOWN, key)
    monkeypatch.setattr(parts, "_allowed", set())
    monkeypatch.delenv(parts.VARIABLE, raising=False)
    for module in modules:
        sys.modules.pop(module, None)


TINY = {
    "data": {"source": "digits", "channels": 1, "flip": True},
    "model": {"in_channels": 1, "channels": 8, "mults": [1, 2], "num_blocks": 1, "groups": 4, "dropout": 0.2},
    "diffusion": {"T": 20, "options": {"beta_1": 0.01, "beta_T": 0.3}},
    "train": {"length": "12 steps", "batch_size": 8, "micro_batch": 4, "warmup": "3 steps", "dtype": "float32"},
    "log": {"every": "2 steps", "held_out_images": 0},
    "checkpoint": {"every": "4 steps"},
    "grids": {"num": 4, "steps": 3, "log_spaced": 2},
}
"""Dropout, mirroring, averages, micro-batches and an odd log window: everything that a continued run must get right.

The looks at held-out images, half the time of so short a run, are for their own tests (train/test_held_out.py)."""
DISTILLED = {"diffusion__predict": "v", "loss__objective": "paths", "loss__calls": 3, "grids__sampler": "ddim"} | {
    "grids__steps": 3
}
"""What makes the tiny run one that learns from a teacher; its grids take three steps."""


def tiny_config(store, **changes):
    """The tiny config on a packed store; changes are dotted keys with __ for the dot, such as train__length."""
    values = {section: dict(keys) for section, keys in TINY.items()}
    values["data"]["store"] = str(store)
    for key, value in changes.items():
        section, name = key.split("__")
        values.setdefault(section, {})[name] = value
    if changes.get("train__length") in ("1 step", "2 steps", "3 steps") and "train__warmup" not in changes:
        values["train"]["warmup"] = "0 steps"  # the tiny one would take the whole run
    return from_dict(values, "test")


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """shared(name, make) -> the folder of this name, filled by ``make(folder)`` in the first process that asks.

    UNSTIR_SHARED is where the folders are kept for the next call of pytest, with the same code.
    """
    base = tmp_path_factory.getbasetemp()
    base = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    base = Path(os.environ.get("UNSTIR_SHARED", base))
    base.mkdir(exist_ok=True)

    def folder(name, make):
        made = base / f"{name}.made"
        with open(base / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                shutil.rmtree(base / name, ignore_errors=True)  # of a maker that failed
                make(base / name)
                made.touch()
        return base / name

    return folder


@pytest.fixture(scope="session")
def digits(shared):
    """The folder of the packed digits. What is measured of them may be kept in it; nothing else may be changed."""
    return shared("digits", lambda folder: open_data(tiny_config(folder), folder / "no-run"))


@pytest.fixture(scope="session")
def classified(digits, shared):
    """The digits, with the classifier that judges them in their folder."""
    shared("classifier", lambda _: classifier_for(Store.open(digits)))
    return digits


def copied(digits, folder, classifier=False):
    """Copy packed digits, with their classifier or as they were packed, to a folder that a test may change."""
    others = ("statistics", ".*") if classifier else ("statistics", ".*", f"{FILE}*")
    return shutil.copytree(digits, folder, ignore=shutil.ignore_patterns(*others))


def pixels_in(folder):
    """The pixels of the PNG files in a folder, by their names: two runs that are alike in these differ in their ids."""
    return {path.name: np.asarray(Image.open(path)).tolist() for path in folder.glob("*.png")}


def cut(store, folder, **counts):
    """A copy of a store with so many images of a split alone, such as held_out=0."""
    copied(store.path, folder, classifier=True)
    for split, count in counts.items():
        for kind, values in (("images", store.images(split)), ("labels", store.labels(split))):
            np.save(folder / f"{split}.{kind}.npy", values[:count].numpy())
    return replace(store, path=folder, manifest={**store.manifest, "counts": {**store.manifest["counts"], **counts}})


def on(store):
    """The settings of a run on this store alone."""
    return {"data__source": str(store.path), "data__store": str(store.path)}


@pytest.fixture
def few(tmp_path):
    """few(num, held_out=0) -> a store of so many digits, ten at least, with all their classes."""

    def packed(num, held_out=0):
        images, labels = load_embedded("digits")
        return pack((images[:num].reshape(-1, 8, 8), labels[:num]), tmp_path / "few", channels=1, held_out=held_out)

    return packed


@pytest.fixture(scope="module")
def quick():
    """Errors of figures from fewer subsets: for files that do not test them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_figures, "SUBSETS", 2)
        patch.setattr(feature_figures, "FLOOR_SPLITS", 4)
        patch.setattr(feature_figures, "DRAWS", 3)
        yield


@pytest.fixture
def make_run(digits, tmp_path):
    """make_run("name", train__length="5 steps") -> (run, store), as `unstir train` would make or continue it."""

    def make(name="run", **changes):
        config, out = tiny_config(digits, **changes), tmp_path / name
        store = open_data(config, out)
        return open_run(config, out, store), store

    return make


@pytest.fixture
def trained(make_run, digits, shared, tmp_path):
    """trained("name", **changes) -> (run, store) after all its tiny steps: a copy of one that is trained only once."""

    def train(name="run", **changes):
        def make(folder):
            config = tiny_config(digits, **changes)
            store = open_data(config, folder)
            Trainer(open_run(config, folder, store), store).run()

        if (tmp_path / name).exists():  # it may have to go on
            run, store = make_run(name, **changes)
            Trainer(run, store).run()
            return run, store
        key = hashlib.sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest()[:16]
        shutil.copytree(shared(f"run-{key}", make), tmp_path / name)
        return make_run(name, **changes)

    return train


@pytest.fixture
def run(trained):
    """The tiny run after all its steps."""
    return trained()[0]


@pytest.fixture
def store(digits):
    """The store of the tiny run."""
    return Store.open(digits)


@pytest.fixture
def command(capsys):
    """command("sample", run.path, ...) -> (status, standard output, standard error); command.done(...): of success."""
    from unstir import cli

    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return left.value.code, said.out, said.err

    def done(*arguments):
        status, out, err = call(*arguments)
        assert status == 0, err
        return out

    call.done = done
    return call


@pytest.fixture
def unstir(command, tmp_path, monkeypatch):
    """`command`, in a folder with pictures a.png and b.png."""
    monkeypatch.chdir(tmp_path)
    for name, digit in zip("ab", load_embedded("digits")[0][:2].reshape(2, 8, 8), strict=True):
        Image.fromarray(digit).save(f"{name}.png")
    return command


@pytest.fixture
def refused():
    """refused(result, *words) -> the line, as `refusals.refused`."""
    return refusals.refused
