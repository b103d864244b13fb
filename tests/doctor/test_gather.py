"""What the doctor reads and draws, each part by itself: which file is the newest, how many images, at which times."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from unstir.doctor.check import MISSING, RunFacts, SavedFile
from unstir.doctor.gather import _files, _measured, affordable, squared_errors

module = import_module("unstir.doctor.gather")  # whose name in its package is that of its function


@pytest.mark.parametrize(
    ("damaged", "gone", "newest"), [("", "", "full 20"), ("full 20", "", "slim 20"), ("", "full 20", "slim 20")]
)
def test_the_newest_file_is_the_full_one_of_its_step_and_folders_are_read_twice_at_most(
    monkeypatch, counts, damaged, gone, newest
):
    there = {"full": (10, 20), "slim": (0, 20)}
    looks = []

    def listed(folder):
        looks.append(folder.name)
        return [(step, Path(f"{folder.name} {step}")) for step in there[folder.name]]

    def read(step, path, kind):
        if str(path) == gone:
            return None
        loaded = None if str(path) == damaged else SimpleNamespace(step=step, kind=kind)
        return SavedFile(step, path, kind, 1), loaded

    monkeypatch.setattr(module.checkpoint, "listed", listed)
    monkeypatch.setattr(module, "_read", read)
    run = SimpleNamespace(checkpoints=Path("full"), weights=Path("slim"))
    files, loaded = _files(run)
    assert f"{loaded.kind} {loaded.step}" == newest
    names = ["full 10", "full 20", "slim 0", "slim 20"]
    assert [str(file.path) for file in files] == [name for name in names if name != gone]
    rounds = 2 if gone else 1
    assert looks == ["full", "slim"] * rounds
    assert counts == [("reading weights", done, 4) for done in range(1, 5)] * rounds


def test_as_many_images_as_some_seconds_compute_and_no_fewer_than_16(monkeypatch):
    run = SimpleNamespace(config="config", data=SimpleNamespace(shape=(3, 8, 4)))
    monkeypatch.setattr(module.build, "forward_flops", lambda *of: {("config", 8, 4): 1e9}[of])
    for calls, num in ((1, 64), (20, 64), (24, 62), (50, 30), (93, 16), (94, 16), (1000, 16)):
        assert affordable(run, calls, 64) == num
    assert affordable(run, 2, 256) == 256 and affordable(run, 10, 256) == 150


@pytest.mark.parametrize(
    ("kind", "decay", "ema", "measured"),
    [
        ("full", 0.9, False, [False, True]),
        ("full", 0.0, True, [False]),
        ("slim", 0.9, True, [True]),
        ("slim", 0.9, False, [False]),
    ],
)
def test_errors_are_of_the_weights_that_are_there_at_every_time(monkeypatch, kind, decay, ema, measured):
    heard, sizes = [], []
    config = SimpleNamespace(
        model=SimpleNamespace(num_classes=3),
        diffusion=SimpleNamespace(T=20),
        loss=SimpleNamespace(times="uniform"),
        train=SimpleNamespace(ema_decay=decay),
    )
    run = SimpleNamespace(config=config, data=SimpleNamespace(shape=(1, 1, 1)))
    images = torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1)
    store = SimpleNamespace(
        count=lambda split: 100, images=lambda split: images, labels=lambda split: torch.arange(100)
    )

    def model_of(run, loaded, ema):
        heard.append(ema)
        return SimpleNamespace(device=torch.device("cpu"), denoiser=None)

    def loss(denoiser, x_0, t, eps, label):
        sizes.append(len(t))
        assert torch.allclose(x_0.flatten(), label / 127.5 - 1) and eps.shape == x_0.shape
        return SimpleNamespace(mse=t.float())

    monkeypatch.setattr(module, "affordable", lambda run, calls, most: {(2, 256): 80}[calls, most])
    monkeypatch.setattr(module, "model_of", model_of)
    monkeypatch.setattr(module, "denoising_loss", loss)
    errors = squared_errors(run, SimpleNamespace(kind=kind, ema=ema), store)
    assert heard == measured and sizes == [64, 16] * len(measured)
    for found, averaged in ((errors.raw, False), (errors.average, True)):
        assert (found is None) is (averaged not in measured)
        assert found is None or found.tolist() == [t for t in range(1, 21) for _ in range(4)]


@pytest.mark.parametrize(
    ("store", "reason"),
    [
        (None, MISSING["store"]),
        ((1, (1, 8, 8)), "the data does not fit the run"),
        ((2, (1, 8, 9)), "the data does not fit the run"),
        ((2, (1, 8, 8)), MISSING["loaded"]),
    ],
)
def test_without_data_that_fits_or_weights_nothing_is_measured(store, reason):
    run = SimpleNamespace(data=SimpleNamespace(shape=(1, 8, 8)))
    there = store and SimpleNamespace(count=lambda split: store[0], shape=store[1])
    facts = RunFacts(run=run, lines=(), files=(), store=there, store_problem="", needs=None)
    assert _measured(facts).unmeasured == reason


def test_a_network_of_classes_is_not_measured_on_data_without_labels(monkeypatch):
    monkeypatch.setattr(module, "_unlike", lambda run, loaded: "")
    monkeypatch.setattr(module, "draw_samples", lambda *_: "drawn")
    monkeypatch.setattr(module, "squared_errors", lambda *_: "errors")
    for classes, labelled in ((0, False), (0, True), (3, False), (3, True)):
        data, model = SimpleNamespace(shape=(1, 8, 8)), SimpleNamespace(num_classes=classes)
        run = SimpleNamespace(data=data, config=SimpleNamespace(model=model))
        store = SimpleNamespace(count=lambda split: 2, shape=(1, 8, 8), labelled=labelled)
        facts = RunFacts(run, (), (), store, "", None, loaded="weights")
        found = _measured(facts)
        refused = "the data has no labels" if classes and not labelled else ""
        assert found.unmeasured == refused
        assert (found.samples, found.errors) == ((None, None) if refused else ("drawn", "errors"))
