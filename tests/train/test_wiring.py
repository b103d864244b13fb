"""That what is configured is what is trained: the gradient, dropout and average of a step, each setting of a loss."""

from dataclasses import replace

import pytest
import torch
from test_parts import spoilt

from conftest import on
from refusals import refusing
from unstir import randomness
from unstir.diffusion.augmentation import augmentation, transformed
from unstir.diffusion.likelihood import bound_term
from unstir.diffusion.loss import Objective, TimeTable, denoising_loss, nearest_noise, normal
from unstir.randomness import Key
from unstir.runs import build
from unstir.runs.toml import from_dict
from unstir.theory.weighting import loss_weights
from unstir.train import trainer
from unstir.train.observer import Observer
from unstir.train.trainer import Trainer

HYBRID = {"diffusion__learned_variance": True, "loss__objective": "hybrid", "loss__times": "importance"}


def filled(trainer):
    """Give each time ten losses, so that times are no longer drawn alike."""
    history = trainer.state.history
    history.losses.copy_(torch.arange(1.0, len(history.losses) + 1)[:, None].expand(-1, 10) ** 2)
    history.counts.fill_(10)
    return history


def step_follows(made, loss):
    """Take a step, whose gradient is that of this loss."""
    expected = torch.autograd.grad(loss, list(made.state.net.parameters()))
    made.take_step()
    for parameter, gradient in zip(made.state.net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_one_steps_gradient_is_the_weighted_one(make_run):
    run, store = make_run(model__dropout=0.0, data__flip=False, train__clip=0.0, train__loss_scale=3.0, **HYBRID)
    made = Trainer(run, store)
    history = filled(made)
    slots = torch.arange(8)
    t, weight = history.draw(Key(0, "time", 0, slots))
    assert weight.max() > 3 * weight.min()
    x_0, _ = made._batches(0, slots, slice(0, 8))
    eps = randomness.normal(Key(0, "noise", 0, slots), (1, 8, 8))
    losses = denoising_loss(made._denoiser, x_0, t, eps, objective=Objective("hybrid"))
    step_follows(made, 3 * (losses.total * weight).mean())
    sums = dict(zip(("steps", "loss", "mse", "bits"), made.state.window.tolist(), strict=False))
    for name, values in (("loss", losses.total), ("mse", losses.mse), ("bits", losses.bits)):
        assert sums[name] == pytest.approx((values * weight).mean().item(), rel=1e-5)
    last = {time: losses.total[t == time][-1].item() for time in set(t.tolist())}
    for time, loss in last.items():
        assert any(held == pytest.approx(loss, rel=1e-5) for held in history.losses[time - 1].tolist())


def test_levers_draw_by_the_place_in_the_whole_batch(make_run):
    levers = {"train__augment": 0.6, "loss__times": "normal", "loss__times_options": {"mean": 1.0}}
    levers |= {"loss__input_perturbation": 0.3, "loss__noise_choices": 4}
    levers |= {"model__num_classes": 10, "train__condition_dropout": 0.5}
    run, store = make_run(model__dropout=0.0, train__clip=0.0, **levers)
    made, slots = Trainer(run, store), torch.arange(8)
    torch.nn.init.normal_(made.state.net.output_conv.weight)  # which begins at zero, and lets no gradient pass
    schedule = made._denoiser.process.schedule
    t = TimeTable(normal(schedule, mean=1.0)).draw(Key(0, "time", 0, slots))
    x_0, label = made._batches(0, slots, slice(0, 8))
    hidden = randomness.coin(Key(0, "label dropout", 0, slots), 0.5)
    assert hidden[:4].tolist() != hidden[4:].tolist() and hidden.any()  # or a micro-batch might begin at slot 0
    label = torch.where(hidden, 10, label)  # one class more, which stands for none
    x_0 = transformed(x_0, how := augmentation(0, 0, slots, 0.6))
    xi = randomness.normal(Key(0, "perturbation", 0, slots), (1, 8, 8))
    eps = nearest_noise(Key(0, "noise", 0, slots), x_0, 4)
    denoiser = replace(made._denoiser, augmentation=how)
    step_follows(made, denoising_loss(denoiser, x_0, t, eps, label, perturbation=0.3 * xi).total.mean())  # in two parts


def test_a_step_that_is_not_finite_is_not_remembered(make_run, monkeypatch):
    made = Trainer(*make_run(**HYBRID))
    history, real = filled(made), trainer.denoising_loss
    before = history.losses.clone(), history.counts.clone()
    monkeypatch.setattr(trainer, "denoising_loss", lambda *given: spoilt(real(*given), float("nan")))
    made.take_step()
    assert torch.equal(history.losses, before[0]) and torch.equal(history.counts, before[1])
    assert made.state.counters.tolist() == [1, 1]


def test_the_hybrid_weighs_its_squared_error_and_the_vlb_without_learned_variance_takes_the_large_one():
    config = from_dict({"diffusion": {"T": 50, "options": {"beta_T": 0.2}}}, "test")
    net = torch.nn.Conv2d(3, 3, 1)
    net.forward = lambda x, t, label=None: torch.nn.functional.conv2d(x, net.weight, net.bias)  # type: ignore[method-assign]
    denoiser = build.denoiser(config, net, torch.float32)
    x_0 = torch.randint(0, 256, (4, 3, 4, 4), generator=torch.Generator().manual_seed(0)) / 127.5 - 1
    eps, t = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 2, 20, 50])
    weights = loss_weights("min_snr", denoiser.process.schedule, denoiser.parameterization)
    with torch.no_grad():
        hybrid = denoising_loss(denoiser, x_0, t, eps, objective=Objective("hybrid", weights, 0.01))
        torch.testing.assert_close(hybrid.total, weights.float()[t] * hybrid.mse + 0.01 * hybrid.bits)
        prediction = denoiser(denoiser.process.diffuse(x_0, t, eps), t)
        nats = bound_term(prediction, denoiser.process, x_0, t, "large")
    torch.testing.assert_close(hybrid.bits, nats * 50 / (48 * torch.tensor(2.0).log()))


@pytest.mark.parametrize(
    ("weighting", "options"),
    [("min_snr", {"gamma": 2.0}), ("p2", {"gamma": 0.5}), ("p2", {"k": 3.0}), ("truncated_snr", {})],
)
def test_each_setting_of_the_loss_reaches_the_objective(weighting, options):
    loss = {"objective": "hybrid", "vlb_weight": 0.02, "weighting": weighting, "weighting_options": options}
    config = from_dict({"loss": loss, "diffusion": {"learned_variance": True}}, "test")
    denoiser = build.denoiser(config, torch.nn.Linear(1, 1), torch.float32)
    made = build.objective(config, denoiser)
    assert made.kind == "hybrid" and made.vlb_weight == 0.02
    schedule, kind = denoiser.process.schedule, denoiser.parameterization
    torch.testing.assert_close(made.weights, loss_weights(weighting, schedule, kind, options).float())
    if options:
        assert not torch.allclose(made.weights, loss_weights(weighting, schedule, kind).float())


def test_likelihood_gives_each_image_its_own_label(trained, watched):
    from unstir.metrics import likelihood as judged
    from unstir.runs.model import Model

    run, store = trained("classes", model__num_classes=10)
    bounds, denoised = watched(judged, "variational_bound"), watched(Model, "denoise")
    judged.split_likelihood(run.model(), store, judged.Protocol(num=20, batch_size=8, clip=False))
    images, labels = store.images("held_out"), store.labels("held_out")
    index = randomness.permutation(0, "likelihood", 0, len(images))[:20].sort().values
    assert torch.equal(torch.cat([label for _, label in denoised]), labels[index])
    torch.testing.assert_close(torch.cat([x_0 for _, _, x_0, *_ in bounds]), images[index].float() / 127.5 - 1)


@pytest.mark.parametrize("decay", [0.9, 0.0])
def test_every_step_is_taken_with_dropout_also_after_a_grid(make_run, monkeypatch, decay):
    """With raw weights the grid is drawn from the very network that is trained, in evaluation mode."""
    run, store = make_run(train__ema_decay=decay, grids__log_spaced=6, train__length="6 steps", model__dropout=0.5)
    made = Trainer(run, store)
    seen, masks, forward = [], [], made.state.net.forward
    real = made.state.net._dropout_masks

    def spy(x, t, label=None, *, dropout_key=None):
        if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            seen.append(made.state.net.training)
        return forward(x, t, label, dropout_key=dropout_key)

    monkeypatch.setattr(made.state.net, "forward", spy)
    monkeypatch.setattr(made.state.net, "_dropout_masks", lambda *a: masks.append(real(*a)) or masks[-1])
    assert made.run()
    assert seen == [True] * 12  # six steps of two micro-batches
    assert len(masks) == 12 and all(0.4 < mask.float().mean() < 0.6 for batch in masks for mask in batch)


def test_the_gradient_of_a_step_is_the_one_with_its_dropout(make_run):
    made = Trainer(*make_run(model__dropout=0.5, data__flip=False, train__clip=0.0, train__micro_batch=0))
    with torch.no_grad():
        for parameter in made.state.net.parameters():
            parameter.add_(0.05)  # the last convolutions begin at 0, which would hide what was dropped before
    slots = torch.arange(8)
    x_0, _ = made._batches(0, slots, slice(0, 8))
    t = randomness.integers(Key(0, "time", 0, slots), 1, 20)
    eps, dropout = randomness.normal(Key(0, "noise", 0, slots), (1, 8, 8)), Key(0, "dropout", 0, slots)
    gradients = {}
    for mode in (True, False):
        net = made.state.net.train(mode)
        loss = denoising_loss(made._denoiser, x_0, t, eps, None, dropout).total.mean()
        gradients[mode] = torch.autograd.grad(loss, net.input_conv.weight)[0]
    made.state.net.eval()
    made.take_step()
    torch.testing.assert_close(made.state.net.input_conv.weight.grad, gradients[True], rtol=1e-4, atol=1e-6)
    assert (gradients[True] - gradients[False]).abs().max() > 0.01 * gradients[True].abs().max()


def test_the_average_moves_by_the_decay_that_is_logged(make_run):
    seen = []

    class Weights(Observer):
        def metrics(self, line):
            nets = made.state.average, made.state.net
            seen.append((line["ema_decay"], *(net.output_conv.weight.detach().double() for net in nets)))

    settings = {"train__lr": 0.01, "train__warmup": "0 steps", "train__length": "4 steps", "log__every": "1 step"}
    made = Trainer(*make_run(**settings, grids__log_spaced=0), Weights())
    before = made.state.average.output_conv.weight.detach().double()
    assert made.run()
    for number, (decay, average, weight) in enumerate(seen):
        assert decay == pytest.approx((1 + number) / (10 + number))
        moved, whole = average - before, weight - before
        assert ((moved * whole).sum() / whole.square().sum()).item() == pytest.approx(1 - decay, rel=1e-4)
        before = average
    assert len(seen) == 4


def test_a_batch_may_be_the_whole_training_set(make_run, few):
    count = (small := few(80, held_out=0.25)).count("train")
    whole = {**on(small), "train__batch_size": count, "train__micro_batch": 0, "train__length": "3 epochs"}
    measured = {"log__held_out_images": 12, "log__held_out_times": 1}
    run, store = make_run(**whole, **measured, train__warmup="0 steps", grids__log_spaced=0)
    assert store.count("train") == count and run.steps_per_epoch == 1 and run.length == 3
    made = Trainer(run, store)
    made._batches.labels = torch.arange(count)  # the label tells which image it is
    orders = [made._batches(step, torch.arange(count), slice(None))[1] for step in range(3)]
    for step, order in enumerate(orders):
        assert torch.equal(order.sort().values, torch.arange(count))
        assert torch.equal(order, randomness.permutation(0, "order", step, count))
    assert not torch.equal(orders[0], orders[1]) and not torch.equal(orders[1], orders[2])
    made._batches.labels = None
    assert made.run() and [line["step"] for line in run.metrics()] == [2, 3]
    assert [line["epoch"] for line in run.metrics()] == [1, 2]
    assert [(line["step"], line["epoch"], line["bits_num"]) for line in run.held_out()] == [(0, 0, 3), (3, 2, 3)]
    with refusing("train.batch_size", count + 1, {"train.batch_size": count}):
        make_run("more", **on(small), train__batch_size=count + 1, train__micro_batch=0)
