"""Importance sampling of times against its definition, computed the slow way."""

import pytest
import torch

from unstir.diffusion.loss import LossHistory, TimeTable
from unstir.randomness import Key
from unstir.train.trainer import Trainer

CPU = torch.device("cpu")
YES, NO = torch.tensor(True), torch.tensor(False)


def filled(losses_by_time):
    history = LossHistory.empty(len(losses_by_time), CPU)
    for t, losses in enumerate(losses_by_time, start=1):
        for loss in losses:
            history.record(torch.tensor([t]), torch.tensor([float(loss)]), YES)
    return history


def test_the_ring_holds_the_last_ten_losses_of_each_time_whatever_the_batch():
    generator = torch.Generator().manual_seed(0)
    history, seen = LossHistory.empty(3, CPU), {1: [], 2: [], 3: []}
    for size in (1, 7, 40, 3, 64):  # in batches of 40 and 64 each time occurs more often than the ring is long
        t = torch.randint(1, 4, (size,), generator=generator)
        losses = torch.rand(size, generator=generator)
        history.record(t, losses, YES)
        for time, loss in zip(t.tolist(), losses.tolist(), strict=True):
            seen[time].append(loss)
        for time, kept in seen.items():
            held = history.losses[time - 1][: min(len(kept), 10)]
            assert sorted(held.tolist()) == sorted(kept[-10:])
            assert history.counts[time - 1] == len(kept)


def test_all_times_are_alike_until_each_was_seen_ten_times():
    assert filled([[0.0] * 10] * 4).probabilities().tolist() == [0.25] * 4
    history = filled([[5.0] * 10, [1.0] * 9])
    assert history.probabilities().tolist() == [0.5, 0.5]
    history.record(torch.tensor([2]), torch.tensor([1.0]), YES)
    p = history.probabilities()
    assert p[0].item() == pytest.approx(0.999 * 5 / 6 + 0.0005, rel=1e-6)


def test_probabilities_go_by_the_root_of_the_second_moment():
    losses = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [0.5] * 10, [0] * 9 + [20]]
    p = filled(losses).probabilities().double()
    root = torch.tensor([(sum(x * x for x in row) / 10) ** 0.5 for row in losses], dtype=torch.float64)
    torch.testing.assert_close(p, 0.999 * root / root.sum() + 0.001 / 3, rtol=1e-6, atol=0)
    assert p.sum().item() == pytest.approx(1, abs=1e-6)


def test_times_are_drawn_by_their_probabilities_and_weighed_back():
    n = 2**20
    history = filled([[4.0] * 10, [1.0] * 10, [0.01] * 10])
    p = history.probabilities().double()
    t, weight = history.draw(Key(0, "time", 0, torch.arange(n)))
    counts = torch.bincount(t, minlength=4).double()
    assert counts[0] == 0
    # 5.1 standard deviations of a binomial: three intervals at a false alarm of 1e-6 in all
    assert ((counts[1:] / n - p).abs() < 5.1 * (p * (1 - p) / n).sqrt() + 2**-23).all()
    torch.testing.assert_close(weight.double(), 1 / (3 * p[t - 1]), rtol=1e-6, atol=0)
    of_time = torch.tensor([0.0, 7.0, -2.0, 300.0], dtype=torch.float64)
    per_draw = of_time[t] * weight
    assert per_draw.mean().item() == pytest.approx(of_time[1:].mean().item(), abs=5.1 * per_draw.std().item() / n**0.5)


def test_many_times_are_drawn_in_double_precision():
    key, history = Key(0, "time", 0, torch.arange(20_000)), LossHistory.empty(50_000, CPU)
    t, weight = history.draw(key)
    assert torch.equal(t, TimeTable(history.probabilities().double()).draw(key))
    assert not torch.equal(t, TimeTable(history.probabilities()).draw(key))
    torch.testing.assert_close(weight, torch.ones(20_000))


def test_training_records_its_losses_and_comes_to_favour_large_ones(make_run):
    changes = {"diffusion__T": 4, "diffusion__learned_variance": True, "loss__objective": "vlb"}
    run, store = make_run(loss__times="importance", train__length="30 steps", grids__log_spaced=0, **changes)
    trainer = Trainer(run, store)
    trainer.run()
    history = trainer.state.history
    assert history.counts.sum() == 30 * 8 and (history.counts >= 10).all()
    p = history.probabilities()
    assert p.argmax() == history.losses.square().mean(1).argmax() and p.max() > 2 * p.min()
    assert run.metrics()[-1]["bits"] == pytest.approx(run.metrics()[-1]["loss"], rel=1e-5)


@pytest.mark.parametrize("absurd", [1e19, 1e30, 3.4e38])
@pytest.mark.parametrize("rows", [(2,), (1, 2)])
def test_an_absurd_loss_does_not_own_the_draws_and_is_forgotten(absurd, rows):
    losses = [[1.0] * 10 for _ in range(5)]
    for row in rows:
        losses[row][3] = absurd
    history = filled(losses)
    p = history.probabilities()
    assert p.isfinite().all() and p.sum().item() == pytest.approx(1, abs=1e-6)
    assert (p > 0.999e-3 / 5).all() and p.max() < 0.9 + 1e-4
    if len(rows) == 1:
        assert p[2].item() == pytest.approx(0.999 * 0.9 + 0.001 / 5, rel=1e-5)
        assert p[0].item() == pytest.approx(0.999 * 0.1 / 4 + 0.001 / 5, rel=1e-5)  # the others keep their ratios
    t, weight = history.draw(Key(0, "time", 0, torch.arange(1 << 16)))
    assert set(t.tolist()) == {1, 2, 3, 4, 5} and weight.isfinite().all()
    for _ in range(10):
        history.record(torch.arange(1, 6), torch.ones(5), YES)
    assert history.probabilities().tolist() == pytest.approx([0.2] * 5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_not_remembered_nor_one_of_a_step_that_was_not_applied(bad):
    history = filled([range(1, 11), range(11, 21)])
    history.record(torch.tensor([1, 2, 2]), torch.tensor([bad, 3.0, 1.0]), NO)
    history.record(torch.tensor([1, 2, 1, 2]), torch.tensor([bad, 30.0, 40.0, bad]), YES)
    assert sorted(history.losses[0].tolist()) == [*range(2, 11), 40] and history.counts.tolist() == [11, 11]
    assert sorted(history.losses[1].tolist()) == [*range(12, 21), 30]
