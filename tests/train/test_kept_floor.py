"""The floor that is kept with a run: what it is of, in which unit, when it fits, and what it may cost."""

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from unstir.diffusion.denoiser import Denoiser
from unstir.runs import build, lines
from unstir.theory.oracle import FiniteData
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.train import loss_floor
from unstir.train.held_out import FixedImages, squared_errors
from unstir.train.loss_floor import FILE, keep_floor, read_floor

CPU = torch.device("cpu")
SEEN = {"log__held_out_images": 16, "log__held_out_times": 4}


class Remembers(nn.Module):
    """A network that answers as the posterior mean over ``sets`` of images, by label."""

    def __init__(self, sets, schedule, predict):
        super().__init__()
        self.sets, self.schedule, self.predict = [FiniteData(images) for images in sets], schedule, predict

    def forward(self, x, time, label=None):
        t = int(time[0]) + 1
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        every = torch.stack([data.estimate(x, alpha, sigma) for data in self.sets])
        x_0 = every[0 if label is None else label, torch.arange(len(x))]
        if self.predict == "x0":
            return x_0
        eps = (x - alpha * x_0) / sigma
        return eps if self.predict == "eps" else alpha * eps - sigma * x_0


@pytest.mark.parametrize(("predict", "flip", "classes"), [("eps", True, 0), ("v", False, 10)])
def test_it_is_the_loss_of_a_network_that_remembers(make_run, predict, flip, classes):
    changes = {"diffusion__predict": predict, "data__flip": flip, "model__num_classes": classes}
    run, store = make_run(log__held_out_images=64, log__held_out_times=4, **changes)
    keep_floor(run, store)
    floor = read_floor(run)
    images, labels, schedule = store.images("train"), store.labels("train"), build.schedule(run.config.diffusion)
    sets = [images[labels == label] for label in range(10)] if classes else [images]
    sets = [torch.cat((one, one.flip(-1))) for one in sets] if flip else sets
    net = Remembers(sets, schedule, predict)
    watched = FixedImages.choose(run, store, "train", CPU)
    losses = squared_errors(Denoiser(net, Process(schedule), PARAMETERIZATIONS[predict]), watched, floor.times, size=64)
    assert len(floor.of_images) == 64 and floor.times == (3, 8, 13, 18)
    errors = losses.std(0) / math.sqrt(len(losses))
    for value, error, measured, scatter in zip(floor.values, floor.errors, losses.mean(0), errors, strict=True):
        assert abs(value - measured) < 4 * math.hypot(error, scatter) and value > 0
    assert floor.mean == pytest.approx(sum(floor.values) / 4)


def test_units_differ_by_the_scale_of_the_network_s_output_and_mirror_images_confuse_more(make_run):
    def floor(predict, flip=False):
        run, store = make_run(f"{predict}-{flip}", **SEEN, diffusion__predict=predict, data__flip=flip)
        keep_floor(run, store)
        return read_floor(run), build.schedule(run.config.diffusion)

    (eps, schedule), (x0, _), (v, _), (mirrored, _) = floor("eps"), floor("x0"), floor("v"), floor("x0", flip=True)
    scales = [(schedule.alpha(t), schedule.sigma(t)) for t in eps.times]
    assert eps.values == pytest.approx([x * (a / s) ** 2 for x, (a, s) in zip(x0.values, scales, strict=True)])
    assert v.values == pytest.approx([x / s**2 for x, (_, s) in zip(x0.values, scales, strict=True)])
    assert v.errors == pytest.approx([x / s**2 for x, (_, s) in zip(x0.errors, scales, strict=True)])
    assert mirrored.values[-1] > 1.02 * x0.values[-1]  # of the same queries


def test_training_keeps_it_once_and_what_does_not_fit_is_not_used(trained, monkeypatch):
    run, store = trained(**SEEN)
    kept, file = read_floor(run), run.path / FILE
    assert kept.times == tuple(run.held_out()[-1]["times"]) and len(kept.of_images) == 16
    whole, values = file.read_bytes(), lines.decode(file.read_text())
    with monkeypatch.context() as patch:
        patch.setattr(loss_floor, "_measured", None)
        keep_floor(run, store)  # which fits
    for section, change in (
        ("log", {"held_out_times": 5}),
        ("log", {"held_out_images": 15}),
        ("diffusion", {"beta_T": 0.2}),
        ("diffusion", {"predict": "v"}),
        ("data", {"flip": False}),
        ("model", {"num_classes": 10}),
    ):
        part = dataclasses.replace(getattr(run.config, section), **change)
        other = dataclasses.replace(run, config=dataclasses.replace(run.config, **{section: part}))
        assert read_floor(other) is None
    assert read_floor(dataclasses.replace(run, data=dataclasses.replace(run.data, content_hash="0" * 64))) is None
    broken = [whole[:-30], b"[]", json.dumps(values).encode()]  # the last has no checksum
    for change in ({"values": ["1"] * 4}, {"errors": [1.0]}, {"of_images": []}, {"times": [1, 2, 3, 4]}, {"of": None}):
        broken.append(lines.encode({**values, **change}).encode())
    for content in broken:
        file.write_bytes(content)
        assert read_floor(run) is None
    keep_floor(run, store)
    assert file.read_bytes() == whole and read_floor(run) == kept


def test_what_costs_too_much_is_left_to_the_report(make_run, monkeypatch):
    run, store = make_run(**SEEN | {"log__held_out_images": 40})
    each = 2 * store.count("train") * (4 * 64 + 4 * loss_floor.OF_WEIGHT)
    monkeypatch.setattr(loss_floor, "WORK", 15.5 * each)
    keep_floor(run, store)
    assert not (run.path / FILE).exists()
    keep_floor(run, store, at_any_cost=True)
    assert len(read_floor(run).of_images) == 16
    (run.path / FILE).unlink()
    monkeypatch.setattr(loss_floor, "WORK", 30.5 * each)
    keep_floor(run, store)
    assert len(read_floor(run).of_images) == 30
    without, _ = make_run("without", log__held_out_images=0)
    keep_floor(without, store)
    assert not (without.path / FILE).exists()


def test_training_pays_for_one_noise_of_each_watched_image_of_cifar10_and_four_of_fewer_images(make_run, monkeypatch):
    asked = []

    def measured(run, store, times, num, noises):
        asked.append((len(times), num, noises))
        raise InterruptedError

    monkeypatch.setattr(loss_floor, "_measured", measured)
    run, _ = make_run(
        diffusion__T=1000, diffusion__beta_T=0.02, log__held_out_images=128, log__held_out_times=10, data__flip=False
    )
    for count in (50_000, 10_000):
        store = SimpleNamespace(count=lambda split, count=count: count, shape=(3, 32, 32))
        with pytest.raises(InterruptedError):
            keep_floor(run, store)
    assert asked == [(10, 128, 1), (10, 128, 4)]
