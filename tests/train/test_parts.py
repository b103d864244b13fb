"""Learning rate, averages, batches, snapshots and a single optimiser step, each against its formula."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from planting import Elsewhere
from refusals import mistake
from unstir.runs import checkpoint, recipes
from unstir.runs.card import DataCard
from unstir.runs.run import Run
from unstir.runs.sections import TrainConfig
from unstir.runs.timetable import all_snapshots, ema_decay, grid_file, learning_rates, newest_grid, snapshots
from unstir.train import trainer
from unstir.train.levers import Batches
from unstir.train.state import WINDOW, averaged_copy, update_average
from unstir.train.trainer import Trainer


def recipe_run(name, images=50_000):
    config = recipes.load_recipe(name)
    return Run(Path("nowhere"), config, DataCard((3, 32, 32), (), {"train": images, "held_out": 0}, ""))


def chained_rates(multiplier, warmup, period):
    """The rates by epoch of a gradual warm-up of 1e-4 to its ``multiplier``, over a cosine, as the two are chained.

    At the epoch after the warm-up the cosine gives its base, which was multiplied; from then on each rate is made of
    the one before: lr_k = lr_(k-1) (1 + cos(pi k / period)) / (1 + cos(pi (k - 1) / period)).
    """
    rate = 1e-4 * multiplier
    yield from (1e-4 * ((multiplier - 1) * epoch / warmup + 1) for epoch in range(warmup + 1))
    yield rate
    for k in range(1, period):
        rate *= (1 + math.cos(math.pi * k / period)) / (1 + math.cos(math.pi * (k - 1) / period))
        yield rate


PRINTED = {20: 2e-4, 21: 2e-4, 50: 1.898028e-4, 100: 1.323917e-4, 150: 5.600608e-5, 199: 5.911923e-6}


@pytest.mark.parametrize(
    ("recipe", "multiplier", "epochs", "printed"),
    [("cifar10-report", 2, 200, PRINTED), ("cifar10-guided", 2.5, 70, {})],
)
def test_the_learning_rate_of_the_public_code_as_its_two_schedulers_make_it(recipe, multiplier, epochs, printed):
    run, reference = recipe_run(recipe), list(chained_rates(multiplier, epochs // 10, epochs))
    assert run.steps_per_epoch == 625 and run.length == epochs * 625
    rates = learning_rates(run)
    for epoch in range(epochs):
        assert rates(epoch * 625) == rates(epoch * 625 + 624) == pytest.approx(reference[epoch], rel=1e-9), epoch
    assert {epoch: rates(epoch * 625) for epoch in printed} == pytest.approx(printed, rel=5e-7)


def test_ho_et_als_learning_rate_and_the_small_recipes_cosine():
    run = recipe_run("cifar10")
    assert learning_rates(run)(0) == pytest.approx(2e-4 / 5000)
    assert learning_rates(run)(4999) == learning_rates(run)(799_999) == 2e-4


def test_a_rate_that_falls_at_the_end(make_run):
    run, _ = make_run("wsd", train__lr_schedule="wsd", train__length="20 steps", train__lr=1e-3)
    assert run.config.train.lr_period == "4 steps"  # a fifth of the run, kept when it is continued
    rates = [learning_rates(run)(step) / 1e-3 for step in range(20)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1]) and rates[3:16] == [1.0] * 13
    assert rates[16:] == pytest.approx([1, 0.75, 0.5, 0.25])
    kept = replace(run, config=replace(run.config, train=replace(run.config.train, lr_period="0 steps")))
    assert learning_rates(kept)(19) == 1e-3


@pytest.mark.parametrize(("recipe", "divisor"), [("cifar10-report", 1000), ("cifar10-guided", 80**2)])
def test_the_loss_scale_is_that_of_the_public_codes_sum(recipe, divisor):
    config = recipe_run(recipe).config
    error = torch.randn(80, 3, 32, 32)
    assert error.square().mean() * config.train.loss_scale == pytest.approx(
        error.square().sum().item() / divisor, rel=1e-5
    )
    assert config.train.ema_decay == 0 and config.grids.steps == config.diffusion.T


@pytest.mark.parametrize("kind", [torch.Tensor, Elsewhere])
def test_the_average_has_its_closed_form(kind):
    net = torch.nn.Linear(1, 1, bias=False)
    average = averaged_copy(net)
    expected, values = average.weight.item(), []
    for step in range(30):
        with torch.no_grad():
            net.weight.fill_(math.sin(step))
        decay = ema_decay(TrainConfig(ema_decay=0.9), step)
        assert decay == min(0.9, (1 + step) / (10 + step))
        update_average(average, net, decay, torch.tensor(1.0).as_subclass(kind))
        expected = decay * expected + (1 - decay) * math.sin(step)
        values.append((average.weight.item(), expected))
    assert all(ours == pytest.approx(exact, rel=1e-5) for ours, exact in values)
    before = average.weight.clone()
    update_average(average, net, 0.5, torch.tensor(0.0).as_subclass(kind))
    assert torch.equal(average.weight, before)
    assert ema_decay(TrainConfig(ema_warmup=False), 3) == 0.9999
    assert not average.training and not average.weight.requires_grad


@pytest.fixture
def batches(digits):
    from unstir.data import Store

    return lambda **changes: Batches(
        Store.open(digits),
        **{"seed": 0, "batch_size": 100, "flip": False, "labels": True, "device": torch.device("cpu"), **changes},
    )


def test_an_epoch_shows_each_image_at_most_once_and_drops_the_rest(batches):
    made = batches()
    made.labels = torch.arange(len(made.images))  # the label tells which image it is
    slots = torch.arange(100)
    epochs = [
        torch.cat([made(step, slots, slice(None))[1] for step in range(first, first + made.steps_per_epoch)])
        for first in (0, made.steps_per_epoch)
    ]
    for seen in epochs:
        assert len(seen) == made.steps_per_epoch * 100 == len(made.images) // 100 * 100
        assert len(seen.unique()) == len(seen)
    assert not torch.equal(*epochs)


def test_a_batch_is_its_bytes_scaled_with_the_labels_that_belong_to_them(batches):
    made, slots = batches(), torch.arange(100)
    x_0, label = made(3, slots, slice(None))
    part, part_label = made(3, slots[40:60], slice(40, 60))
    assert x_0.dtype == torch.float32 and x_0.min() == -1 and x_0.max() == 1
    assert torch.equal(part, x_0[40:60]) and torch.equal(part_label, label[40:60])
    labels, made.labels = made.labels, torch.arange(len(made.images))  # the label tells which image it is
    index = made(3, slots, slice(None))[1]
    assert torch.equal(label, labels[index])
    assert torch.equal(((x_0 + 1) * 127.5).round().byte(), made.images[index])


def test_mirroring_is_drawn_anew_for_each_image_and_step(batches):
    plain, mirrored, slots = batches(), batches(flip=True), torch.arange(100)
    turned = []
    for step in (0, 1):
        a, b = plain(step, slots, slice(None))[0], mirrored(step, slots, slice(None))[0]
        flipped = (b == a.flip(-1)).flatten(1).all(1)
        assert ((b == a).flatten(1).all(1) | flipped).all()
        assert 25 < flipped.sum() < 75
        assert torch.equal(mirrored(step, slots[10:20], slice(10, 20))[0], b[10:20])
        turned.append(flipped)
    assert not torch.equal(*turned)


def test_snapshots_of_the_report_and_of_short_runs(make_run):
    run = recipe_run("cifar10-report")
    assert snapshots(run) == {
        0: "start", 625: "epoch-0000", 51 * 625: "epoch-0050", 101 * 625: "epoch-0100", 151 * 625: "epoch-0150",
        200 * 625: "epoch-0199",
    }  # fmt: skip
    steps = list(snapshots(recipe_run("cifar10")))
    assert steps[0] == 0 and steps[-1] == 800_000 and len(steps) == 9
    ratios = [b / a for a, b in pairwise(steps[1:])]
    assert max(ratios) / min(ratios) < 1.01


def test_a_micro_batch_changes_nothing_but_the_last_bits(make_run):
    weights = []
    for name, size in (("whole", 0), ("halves", 4), ("odd", 3)):
        made = Trainer(*make_run(name, train__micro_batch=size))
        made.take_step()
        weights.append({key: value.clone() for key, value in made.state.net.state_dict().items()})
        assert made.state.window[0] == 1
    for other in weights[1:]:
        worst = max((weights[0][key] - other[key]).abs().max() for key in other)
        assert worst < 1e-6


def spoilt(losses, factor):
    return losses._replace(total=losses.total * factor)


def test_a_gradient_that_is_not_finite_moves_nothing_and_is_counted(make_run):
    run, store = make_run()
    made = Trainer(run, store)
    for _ in range(2):
        made.take_step()
    before = made.state.copied(run)()
    kept = {name: tensor.clone() for name, tensor in before.tensors.items()}
    real = trainer.denoising_loss
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "denoising_loss", lambda *a, **k: spoilt(real(*a, **k), math.nan))
        made.take_step()
    after = made.state.copied(run)()
    assert all(torch.equal(after.tensors[name], kept[name]) for name in kept)
    assert after.state["counters"] == [1, 1] and after.state["window"] == before.state["window"]
    made.take_step()
    assert made.state.counters.tolist() == [1, 0]
    assert not torch.equal(made.state.net.output_conv.weight, kept["model.output_conv.weight"])


def test_ten_in_a_row_end_the_run_with_the_weights_of_before(make_run, monkeypatch):
    run, store = make_run(train__length="40 steps")
    made = Trainer(run, store)
    initial = {name: tensor.clone() for name, tensor in made.state.net.state_dict().items()}
    real = trainer.denoising_loss
    monkeypatch.setattr(trainer, "denoising_loss", lambda *a, **k: spoilt(real(*a, **k), math.inf))
    assert mistake(made.run).key == "train.lr"
    saved = checkpoint.newest(run.checkpoints)[0]
    assert all(torch.equal(saved.part("model")[name], initial[name]) for name in initial)
    assert run.metrics()[-1]["loss"] is None and run.metrics()[-1]["skipped"] == 10


def test_a_step_hands_the_network_every_time_from_0_to_T_minus_1_and_unit_noise(make_run, watched):
    made = Trainer(*make_run(train__batch_size=128, train__micro_batch=0))
    passes, losses = watched(made.state.net, "forward"), watched(trainer, "denoising_loss")
    for _ in range(3):
        made.take_step()
    noises = [eps for _, _, _, eps, *_ in losses]
    assert torch.cat([t for _, t, *_ in passes]).unique().tolist() == list(range(20))
    assert torch.cat(noises).std().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(noises[0], noises[1])


def test_no_clipping_is_none_and_a_gradient_is_clipped_to_the_norm_that_is_asked_for(make_run):
    steps = {}
    for name, clip in (("none", 0.0), ("loose", 1e9), ("tight", 1e-9)):
        made = Trainer(*make_run(name, train__clip=clip, train__adam_eps=1e-3, train__loss_scale=100.0))
        made.take_step()
        norm = torch.nn.utils.get_total_norm([p.grad for p in made.state.net.parameters()]).item()
        assert (norm == pytest.approx(1e-9, rel=1e-4)) if name == "tight" else norm > 1  # of the scaled loss
        steps[name] = made.state.net.output_conv.weight.detach().clone()
        assert made.state.window[WINDOW.index("clipped")] == (name == "tight")
    assert torch.equal(steps["none"], steps["loose"]) and steps["none"].abs().sum() > 0
    assert steps["tight"].abs().max() < steps["none"].abs().max() / 100


def test_the_rate_the_loss_and_the_norm_are_logged_as_they_were(make_run):
    run, store = make_run(train__length="4 steps", log__every="1 step", train__clip=0.5, train__loss_scale=100.0)
    Trainer(run, store).run()
    lines = run.metrics()
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["lr"] for line in lines] == pytest.approx([2e-4 / 3, 4e-4 / 3, 2e-4, 2e-4])
    assert [line["ema_decay"] for line in lines] == pytest.approx([1 / 10, 2 / 11, 3 / 12, 4 / 13])
    assert lines[0]["loss"] == pytest.approx(1, abs=0.3)  # the untrained network predicts zero noise
    assert lines[0]["grad_norm"] > 0.5 and lines[0]["clipped"] == 1
    assert [line["images"] for line in lines] == [8, 16, 24, 32]


def test_log_spaced_snapshots_begin_at_a_thousandth_of_the_run(make_run):
    run, _ = make_run(train__length="4000000 steps", grids__log_spaced=3, train__batch_size=64, train__compile="no")
    assert list(snapshots(run)) == [0, 40_000, 400_000, 4_000_000]
    assert snapshots(run)[40_000] == "images-02560000"
    named, _ = make_run("named", train__length="2000 steps", grids__epochs=[0], train__batch_size=64)
    assert list(snapshots(named).items())[1:] == [(named.steps_per_epoch, "epoch-0000"), (2000, "end-00002000")]
    short, _ = make_run("short", train__length="2 steps", grids__log_spaced=3)
    assert list(snapshots(short)) == [0, 1, 2]


def test_grids_of_a_run_that_was_shorter_keep_their_steps(make_run):
    run, _ = make_run("run", train__length="10 steps", grids__log_spaced=1)
    run.samples.mkdir()
    named, _ = make_run("named", grids__epochs=[0], train__batch_size=64, train__length="30 steps")
    drawn = {**snapshots(run), 23: "epoch-0000", 30: "end-00000030"}
    assert snapshots(named) == {0: "start", 23: "epoch-0000", 30: "end-00000030"}
    for name in (*drawn.values(), "noise", "my-own", "images-"):
        grid_file(run, name).touch()
    longer, _ = make_run("run", train__length="20 steps", grids__log_spaced=1)
    assert snapshots(longer) == {0: "start", 20: "images-00000160"}
    steps = {0: "start", 10: "images-00000080", 20: "images-00000160", 30: "end-00000030"}
    assert all_snapshots(longer) == {**steps, longer.steps_per_epoch: "epoch-0000"}
    assert list(all_snapshots(longer)) == sorted(all_snapshots(longer))


def test_the_last_grid_that_was_drawn_is_the_newest(make_run):
    run, _ = make_run(grids__log_spaced=2)
    assert newest_grid(run) is None
    run.samples.mkdir()
    files = [grid_file(run, name) for name in snapshots(run).values()]
    for file in files[:2]:
        file.touch()
        assert newest_grid(run) == file


@pytest.mark.parametrize(
    ("start", "every", "rates"),
    [
        (0.0, "step", {0: 0.1, 8: 0.9, 9: 1, 10: 1}),
        (0.5, "step", {0: 0.5, 9: 0.95, 10: 1}),
        (0.0, "epoch", {0: 0.8, 7: 0.8, 8: 1, 9: 1, 10: 1, 16: 1}),  # epochs of 8 steps: the second is cut to the peak
        (0.5, "epoch", {0: 0.5, 7: 0.5, 8: 0.9, 16: 1}),
    ],
)
def test_a_warm_up_of_ten_steps_ends_at_its_peak(start, every, rates):
    config = recipes.load_recipe("digits")
    train = replace(config.train, lr=2.0, warmup="10 steps", warmup_start=start, lr_every=every, batch_size=64)
    run = Run(Path("nowhere"), replace(config, train=train), DataCard((1, 8, 8), (), {"train": 512, "held_out": 0}, ""))
    at_once = replace(run, config=replace(run.config, train=replace(train, warmup="0 steps", lr_schedule="constant")))
    assert learning_rates(at_once)(0) == 2
    constant = replace(run, config=replace(run.config, train=replace(train, lr_schedule="constant")))
    assert {step: learning_rates(constant)(step) / 2 for step in rates} == pytest.approx(rates)


def test_a_cosine_falls_to_nothing_at_the_end_of_its_period_and_stays_there():
    config = recipes.load_recipe("digits")
    how = {"lr": 2.0, "warmup": "10 steps", "lr_schedule": "cosine", "lr_period": "20 steps", "lr_every": "step"}
    run = Run(Path("nowhere"), replace(config, train=replace(config.train, **how)), DataCard((1, 8, 8), (), {}, ""))
    run.data.counts["train"] = 512
    rates = {10: 2, 15: 1 + math.sqrt(0.5), 20: 1, 30: 0, 31: 0, 50: 0}
    assert {step: learning_rates(run)(step) for step in rates} == pytest.approx(rates, abs=1e-12)
