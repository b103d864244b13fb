"""What the doctor draws and measures: how many images, at which times, of which weights, and when nothing."""

from types import SimpleNamespace

import pytest
import torch

from unstir.insight import sampled as module
from unstir.insight.facts import MISSING, Facts
from unstir.insight.gather import newest_bound
from unstir.insight.sampled import affordable, measured, squared_errors
from unstir.runs import lines


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


def test_of_bounds_the_newest_by_the_usual_settings_is_gathered(tmp_path):
    (folder := tmp_path / "likelihood").mkdir()
    run = SimpleNamespace(path=tmp_path)
    usual = {"step": 9, "split": "held_out", "variance": "large", "clip": True, "ema": True, "seed": 0}
    usual |= {"dtype": "float32", "calls": 1000, "T": 1000}
    rest = {"prior": 0.001, "decoder": 0.5, "times": [2], "curve": [0.1], "total": [0.6], "num_samples": 299}

    def write(name, bits, num=299, **other):
        values = {"bits_per_dim": bits, "standard_error": 0.02, "num": num, "protocol": usual | other, **rest}
        (folder / f"{name}.json").write_text(lines.encode(values))

    write("old", 5.0, step=5)
    write("train", 4.8, split="train")
    assert newest_bound(run, since=9) is None and newest_bound(run, since=5).bits_per_dim == 5.0
    write("z", 4.5)
    others = ({"dtype": "bfloat16"}, {"variance": "small"}, {"calls": 10}, {"clip": False}, {"ema": 0.05}, {"num": 8})
    for number, other in enumerate(others):
        write(f"other-{number}", 5.4 - number, **other)
    (folder / "damaged.json").write_text("[1]")
    assert newest_bound(run, since=5).bits_per_dim == 4.5
