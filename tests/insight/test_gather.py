"""What the doctor draws and measures: how many images, at which times, of which weights, and when nothing."""

from types import SimpleNamespace

import pytest
import torch

from unstir.insight import sampled as module
from unstir.insight.facts import MISSING, Facts
from unstir.insight.sampled import affordable, measured, squared_errors


def test_as_many_images_as_some_seconds_compute_and_no_fewer_than_16(monkeypatch):
    run = SimpleNamespace(config="config", data=SimpleNamespace(shape=(3, 8, 4)))
    monkeypatch.setattr(module.build, "forward_flops", lambda *of: {("config", 8, 4): 1e9}[of])
    for calls, num in ((1, 64), (20, 64), (24, 62), (50, 30), (93, 16), (94, 16), (1000, 16)):
        assert affordable(run, calls, 64) == num
    assert affordable(run, 2, 256) == 256 and affordable(run, 10, 256) == 150


@pytest.mark.parametrize(
    ("kind", "decay", "ema", "expected"),
    [
        ("full", 0.9, False, [False, True]),
        ("full", 0.0, True, [False]),
        ("slim", 0.9, True, [True]),
        ("slim", 0.9, False, [False]),
    ],
)
def test_errors_are_of_the_weights_that_are_there_at_every_time(monkeypatch, kind, decay, ema, expected):
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

    def model(loaded, ema):
        heard.append(ema)
        return SimpleNamespace(device=torch.device("cpu"), denoiser=None)

    def loss(denoiser, x_0, t, eps, label):
        sizes.append(len(t))
        assert torch.allclose(x_0.flatten(), label / 127.5 - 1) and eps.shape == x_0.shape
        return SimpleNamespace(mse=t.float())

    monkeypatch.setattr(module, "affordable", lambda run, calls, most: {(2, 256): 80}[calls, most])
    monkeypatch.setattr(module, "denoising_loss", loss)
    run.model = model
    errors = squared_errors(run, SimpleNamespace(kind=kind, ema=ema), store)
    assert heard == expected and sizes == [64, 16] * len(expected)
    for found, averaged in ((errors.raw, False), (errors.average, True)):
        assert (found is None) is (averaged not in expected)
        assert found is None or found.tolist() == [t for t in range(1, 21) for _ in range(4)]


@pytest.mark.parametrize(
    ("store", "loaded", "classes", "reason"),
    [
        (None, None, 0, MISSING["store"]),
        ((1, (1, 8, 8)), None, 0, "the data does not fit the run"),
        ((2, (1, 8, 9)), None, 0, "the data does not fit the run"),
        ((2, (1, 8, 8)), None, 0, MISSING["loaded"]),
        ((2, (1, 8, 8)), "weights", 3, "the data has no labels"),
    ],
)
def test_without_data_that_fits_or_weights_nothing_is_measured(store, loaded, classes, reason):
    config = SimpleNamespace(model=SimpleNamespace(num_classes=classes))
    run = SimpleNamespace(data=SimpleNamespace(shape=(1, 8, 8)), config=config)
    there = store and SimpleNamespace(count=lambda split: store[0], shape=store[1], labelled=False)
    assert measured(Facts(run=run, store=there, loaded=loaded)).unmeasured == reason
