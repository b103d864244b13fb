"""What a planted bug of the trainer once survived: dropout off, the decay of another step, a batch of all images."""

import pytest
import torch

from refusals import refusing
from unstir import randomness
from unstir.diffusion.loss import denoising_loss
from unstir.randomness import Key
from unstir.train.observer import Observer
from unstir.train.trainer import Trainer


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


def test_a_batch_may_be_the_whole_training_set(make_run, monkeypatch):
    count = 1498
    whole = {"train__batch_size": count, "train__micro_batch": 0, "train__length": "3 epochs"}
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
        make_run("more", train__batch_size=count + 1, train__micro_batch=0)
