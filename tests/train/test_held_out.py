"""The held-out loss: what it is, and that its lines are paired."""

import dataclasses
import math
from functools import partial

import numpy as np
import pytest
import torch
from held_out_lines import MEASURED, measured
from PIL import Image

from refusals import refusing
from unstir import randomness
from unstir.data import pack
from unstir.diffusion.denoiser import Conditioned, clipped
from unstir.diffusion.likelihood import variational_bound
from unstir.diffusion.loss import denoising_loss
from unstir.pictures.charts import held_out_figure
from unstir.runs import build, checkpoint
from unstir.runs.checkpoint import weights_of
from unstir.runs.run import Run
from unstir.train import held_out
from unstir.train.held_out import FixedImages, estimated_bits, squared_errors, with_errors
from unstir.train.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture
def make_run(make_run):
    """The tiny run, whose loss is measured on six images of each split."""
    return lambda name="run", **changes: make_run(name, **{**MEASURED, **changes})


def denoiser_of(run, step):
    """The sampling weights of a step as training measures them."""
    net = build.network(run.config, CPU)
    net.load_state_dict(weights_of(run.load(step), ema=True))
    return build.denoiser(run.config, net.eval(), build.dtype(run.config.train.dtype, CPU))


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize("decay", [0.9, 0.0])
def test_a_line_is_the_loss_of_the_sampling_weights_on_the_same_images(make_run, decay, classes):
    run, store = make_run(train__ema_decay=decay, train__lr=0.01, model__num_classes=classes, data__flip=True)
    Trainer(run, store).run()
    assert [line["step"] for line in run.held_out()] == [0, 1, 12]
    last = run.held_out()[-1]
    denoiser = denoiser_of(run, 12)
    for split in ("train", "held_out"):
        index = randomness.permutation(0, f"watched {split}", 0, store.count(split))[:6]
        x_0 = store.images(split)[index].float() / 127.5 - 1
        label = store.labels(split)[index] if classes else None
        columns = []
        for t in last["times"]:
            eps = randomness.normal(randomness.Key(0, f"watched loss {split}", t, index), (1, 8, 8))
            with torch.no_grad():
                columns.append(denoising_loss(denoiser, x_0, torch.full((6,), t), eps, label).mse.numpy())
        errors = np.stack(columns, 1).astype(float)  # [images, times]
        assert last[split] == pytest.approx(errors.mean(0), rel=1e-4)
        assert last[f"of_{split}"] == pytest.approx(errors.mean(1), rel=1e-4)
        assert last[f"{split}_error"] == pytest.approx(errors.std(0, ddof=1) / math.sqrt(6), rel=1e-3)
    assert last["times"] == [5, 15] and (last["num_train"], last["num_held_out"]) == (6, 6)
    assert (last["bits_num"], last["bits_train_num"], last["bits_calls"]) == (2, 2, 8)
    assert (last["images"], last["epoch"]) == (96, 0)
    assert last["train"] != last["held_out"] and last["bits"] != last["bits_train"]


def test_each_snapshot_keeps_the_errors_of_its_weights_by_time(make_run):
    run, store = make_run(train__lr=0.01)
    Trainer(run, store).run()
    kept = run.log("errors").lines
    assert [line["weights"] for line in kept[1:]] == [run.model(step).weights_sha256 for step in (1, 12)]
    denoiser, last = run.model().denoiser, kept[-1]
    index = randomness.permutation(0, "watched train", 0, store.count("train"))[:6]
    x_0 = store.images("train")[index].float() / 127.5 - 1
    assert last["num"] == 6 and last["times"][0] == 1 and last["times"][-1] == denoiser.process.T == 20
    for t, error in zip(last["times"], last["errors"], strict=True):
        eps = randomness.normal(randomness.Key(0, "watched errors train", t, index), (1, 8, 8))
        with torch.no_grad():
            x0 = denoiser(denoiser.process.diffuse(x_0, t, eps), t).x0.clamp(-1, 1)
        assert error == pytest.approx((x0 - x_0).square().mean().item(), rel=1e-4)
        assert denoiser.errors[t].item() == pytest.approx(error, rel=1e-12)
    raw = run.model(ema=False)
    assert raw.errors is None
    assert torch.equal(with_errors(raw, store).errors[1:], run.model(ema=False).errors[1:])


def test_every_snapshot_sees_the_same_images_times_and_noise(make_run, monkeypatch):
    seen, real = {}, held_out.denoising_loss
    run, store = make_run()
    made = Trainer(run, store)

    def spy(denoiser, x_0, t, eps, label=None, present=None):
        assert not denoiser.net.training
        assert denoiser.net is made.state.average
        seen.setdefault(made.state.step, []).append(torch.cat([x_0, eps, t[:, None, None, None].expand_as(eps)]))
        return real(denoiser, x_0, t, eps, label)

    monkeypatch.setattr(held_out, "denoising_loss", spy)
    made.run()
    first, *others = (torch.cat(shown) for shown in seen.values())
    assert sorted(seen) == [0, 1, 12] and all(torch.equal(first, other) for other in others)
    assert measured(run)[0]["train"] == pytest.approx([1, 1], abs=0.3)


def test_more_images_begin_with_the_same_ones_and_fewer_than_asked_are_all(make_run, digits):
    run, store = make_run(log__held_out_images=5000)
    most = FixedImages.choose(run, store, "held_out", CPU)
    assert sorted(most.slots.tolist()) == list(range(store.count("held_out")))
    few = dataclasses.replace(run.config, log=dataclasses.replace(run.config.log, held_out_images=6))
    chosen = FixedImages.choose(Run(run.path, few, run.data), store, "held_out", CPU)
    assert torch.equal(chosen.slots, most.slots[:6]) and torch.equal(chosen.x_0, most.x_0[:6])
    assert not torch.equal(
        chosen.noise("watched loss", 5), FixedImages.choose(run, store, "train", CPU).noise("a", 5)[:6]
    )


@pytest.mark.parametrize("learned", [False, True])
def test_the_estimate_of_the_bound_is_the_whole_sum_when_every_step_is_called(make_run, learned):
    changes = {"diffusion__learned_variance": True, "loss__objective": "hybrid"} if learned else {}
    run, store = make_run(model__num_classes=10, **changes)
    images = FixedImages.choose(run, store, "held_out", CPU)
    net = build.network(run.config, CPU).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02)  # away from an output of 0
    denoiser = build.denoiser(run.config, net, torch.float32)
    with torch.inference_mode():
        denoise, noise = clipped(Conditioned(denoiser, images.condition)), partial(images.noise, "watched bound")
        how = {"variance": "learned" if learned else "large"}
        whole = variational_bound(denoise, denoiser.process, images.x_0, noise, **how).bits_per_dim
        torch.testing.assert_close(estimated_bits(denoiser, images, 6, 20, 4), whole, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(estimated_bits(denoiser, images, 3, 20, 2), whole[:3], rtol=1e-4, atol=1e-4)


def test_the_estimate_of_the_bound_is_right_on_average_with_an_honest_error(make_run):
    run, store = make_run(log__held_out_images=128)
    images = FixedImages.choose(run, store, "held_out", CPU)
    denoiser = build.denoiser(run.config, build.network(run.config, CPU).eval(), torch.float32)
    with torch.inference_mode():
        whole = estimated_bits(denoiser, images, 128, 20, 128)
        part = [estimated_bits(denoiser, dataclasses.replace(images, seed=seed), 128, 6, 128) for seed in range(8)]
    off = torch.stack([each.mean() for each in part]) - whole.mean()
    error = torch.stack([each - whole for each in part]).std() / math.sqrt(128)
    assert off.mean().abs() < 3 * error / math.sqrt(8)
    assert 0.4 < off.std() / error < 1.8


def test_a_batchs_size_changes_nothing_but_the_last_bits(make_run):
    run, store = make_run()
    images = FixedImages.choose(run, store, "train", CPU)
    denoiser = build.denoiser(run.config, build.network(run.config, CPU).eval(), torch.float32)
    calls = []
    with torch.inference_mode():
        whole = squared_errors(denoiser, images, (1, 20), 6, lambda: None)
        parts = squared_errors(denoiser, images, (1, 20), 4, lambda: calls.append(1))
    assert whole.shape == (6, 2) and whole.dtype == torch.float64 and len(calls) == 4
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


def test_measuring_leaves_training_as_it_was(make_run):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    ends = {}
    for name, num in (("measured", 6), ("not", 0)):
        run, store = make_run(name, log__held_out_images=num, train__ema_decay=0.0)
        Trainer(run, store).run()
        ends[name] = checkpoint.newest(run.checkpoints)[0].tensors
        assert run.log_file("held_out").exists() == (run.path / "losses.png").exists() == (num > 0)
    assert all(torch.equal(ends["measured"][key], ends["not"][key]) for key in ends["not"])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_without_lines_has_them_from_then_on_and_the_settings_may_change(make_run):
    run, store = make_run(log__held_out_images=0)
    Trainer(run, store).run()
    assert run.held_out() == [] and not run.log_file("held_out").exists()
    changed = {"train__length": "16 steps", "grids__epochs": [0], "log__held_out_times": 3}
    run, store = make_run(**changed)
    assert Trainer(run, store).run()
    assert [(line["step"], line["num_held_out"], line["times"]) for line in run.held_out()] == [(16, 6, [4, 10, 17])]
    with refusing("log.held_out_images", 1, ({"log.held_out_images": 2}, {"log.held_out_images": 0})):
        make_run("other", log__held_out_images=1)


@pytest.fixture
def few(tmp_path):
    """A store of 8 training images and as many held-out ones as asked."""

    def make(held):
        images = np.random.default_rng(0).integers(0, 256, (8 + held, 8, 8), dtype=np.uint8)
        for i, image in enumerate(images):
            path = tmp_path / "images" / ("train" if i < 8 else "test") / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        store = pack(tmp_path / "images", tmp_path / "store", size=8, channels=1, held_out=0.0)
        return {"data__source": str(store.path), "data__store": str(store.path)}

    return make


@pytest.mark.parametrize("held", [0, 1])
def test_without_held_out_images_the_training_ones_are_measured_alone(few, make_run, held):
    run, store = make_run(**few(held), train__length="2 steps")
    Trainer(run, store).run()
    last = run.held_out()[-1]
    assert last["num_train"] == 6 and last["num_held_out"] == 0 and len(last["of_train"]) == 6
    assert last["bits_train"] > 0 and last["bits_train_error"] > 0
    assert all(last[key] is None for key in ("held_out", "held_out_error", "of_held_out", "bits", "bits_error"))
    assert (run.path / "losses.png").exists()


def test_memorising_parts_the_splits(few, make_run):
    memorising = {"train__length": "200 steps", "train__lr": 0.003, "train__micro_batch": 0, "model__dropout": 0.0}
    once = {"checkpoint__every": "200 steps", "grids__log_spaced": 1, "grids__steps": 1, "log__held_out_images": 8}
    run, store = make_run(**few(8), data__flip=False, **memorising, **once)
    Trainer(run, store).run()
    start, end = run.held_out()
    mean = lambda line, split: np.mean(line[split])
    assert mean(start, "train") == pytest.approx(mean(start, "held_out"), rel=0.2)
    assert mean(end, "train") < 0.8 * mean(end, "held_out")
    assert end["bits_train"] < end["bits"]


@pytest.mark.parametrize("num", [1, 8, 16, 30])
def test_every_curve_is_seen_and_named_and_no_legend_lies_over_a_panel(num):
    one = {"images": 0, "train": [1.0, 0.5, 0.1], "held_out": [1.0, 0.6, 0.2], "times": [10, 50, 90]}
    one |= {"of_train": [0.5, 0.6], "of_held_out": [0.6, 0.7]}
    one |= {"bits": 3.0, "bits_error": 0.1, "bits_train": 2.9, "bits_train_error": 0.1}
    figure = held_out_figure([{**one, "images": 1000 * i} for i in range(num)])
    course, bound, by_time = figure.axes
    figure.draw_without_rendering()
    for axes in (course, by_time):
        box = axes.get_legend().get_window_extent()
        assert not any(box.overlaps(panel.get_window_extent()) for panel in figure.axes)
        assert figure.bbox.containsx(box.x1) and figure.bbox.containsy(box.y0) and box.x0 > 0
    assert len(by_time.containers) == min(num, 5) and len(course.containers) == len(bound.containers) == 2
    named = [text.get_text() for text in by_time.get_legend().get_texts()]
    assert len(named) == min(num, 5) and named[-1] == f"after {1000 * (num - 1):,} images"
    without = held_out_figure([{**one, "bits": None, "bits_train": None}])
    assert len(without.axes) == 2
    alone = held_out_figure([{**one, "held_out": None, "of_held_out": None}])
    assert len(alone.axes[0].containers) == 1
