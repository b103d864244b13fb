"""Times drawn by a density of their log-SNR, or by their losses, against definitions computed the slow way; the floor.

For data N(m, s^2 I) the best noise prediction is affine in x_t and leaves a squared error of abar_t s^2 / v_t, with
v_t = abar_t s^2 + 1 - abar_t; its mean over t is the floor (Pierret & Galerne 2025). A trained network that came out
below it would know more than x_t says.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from unstir import randomness
from unstir.diffusion import loss as module
from unstir.diffusion.denoiser import Denoiser
from unstir.diffusion.loss import denoising_loss
from unstir.errors import UserError
from unstir.randomness import Key
from unstir.theory import schedule
from unstir.theory.oracle import GaussianData
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import linear
from unstir.train.trainer import Trainer


@pytest.mark.parametrize("made", [schedule.cosine(), schedule.linear(), schedule.sigmoid(2000)])
@pytest.mark.parametrize(
    ("name", "mean", "scale", "theirs"),
    [
        ("laplace", 0.0, 0.5, stats.laplace(0, 0.5)),  # Hang et al. 2024
        ("normal", 0.5, 1.5, stats.norm(0.5, 1.5)),
        ("normal", 2.4, 2.4, stats.norm(2.4, 2.4)),  # log sigma ~ N(-1.2, 1.2), Karras et al. 2022
    ],
)
def test_the_share_below_a_time_is_that_of_the_density(made, name, mean, scale, theirs):
    p = module.probabilities(name, made, {"mean": mean, "scale": scale})
    assert module.EVEN_SHARE == 0.1  # a tenth
    assert p.sum().item() == pytest.approx(1, abs=1e-12) and (p >= module.EVEN_SHARE / made.T).all()
    by_density = (p - module.EVEN_SHARE / made.T) / (1 - module.EVEN_SHARE)
    middle = lambda t: (made.log_snr(t) + made.log_snr(t + 1)) / 2
    cut = theirs.cdf([middle(made.T - 1), middle(1)])  # lambda has ends; the density is cut there
    for t in range(2, made.T - 1, 37):
        expected = (cut[1] - theirs.cdf(middle(t))) / (cut[1] - cut[0])
        assert by_density[:t].sum().item() == pytest.approx(expected, abs=0.006)


def test_a_time_without_signal_is_drawn_as_often_as_the_one_before_it():
    p = module.normal(schedule.zero_terminal_snr(schedule.cosine(50)), -3.0, 2.0)
    assert p[-1] == p[-2] > p[0] and p.isfinite().all()
    assert module.laplace(schedule.zero_terminal_snr(schedule.cosine(2)), 0.0, 0.5).tolist() == [0.5, 0.5]


def test_draws_follow_the_probabilities_and_no_other_slot():
    p = module.laplace(schedule.cosine(20), 0.0, 1.0)
    slots = torch.arange(40_000)
    t = module.TimeTable(p).draw(Key(0, "time", 3, slots))
    counts = torch.bincount(t, minlength=21)[1:]
    assert t.min() >= 1 and stats.chisquare(counts.numpy(), (p * len(t)).numpy()).pvalue > 0.001
    assert torch.equal(module.TimeTable(p).draw(Key(0, "time", 3, slots[17:40])), t[17:40])


def test_a_time_is_drawn_from_the_edge_below_it_to_before_the_next(monkeypatch):
    monkeypatch.setattr(randomness, "uniform", lambda key, dtype: torch.tensor([0, 0.2499, 0.25, 1], dtype=dtype))
    p = torch.tensor([1, 0, 3], dtype=torch.float64)  # whose sum need not be one
    assert module.TimeTable(p).draw(Key(0, "time", 0, torch.arange(4))).tolist() == [1, 1, 3, 3]


@pytest.mark.parametrize(
    ("name", "mean", "scale"),
    [("cauchy", 0, 1), ("normal", math.nan, 1), ("normal", 0, math.inf), ("laplace", 0, 0), ("normal", 0, 1e-200)],
)
def test_what_is_no_density_is_refused(name, mean, scale):
    with pytest.raises(UserError):
        module.probabilities(name, schedule.linear(), {"mean": mean, "scale": scale})


@pytest.mark.parametrize(
    ("T", "num", "times"),
    [(1000, 10, range(50, 1000, 100)), (20, 2, (5, 15)), (20, 20, range(1, 21)), (4, 10, range(1, 5)), (7, 1, (4,))],
)
def test_times_are_the_middles_of_equal_parts(T, num, times):
    assert module.middles(T, num) == tuple(times)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 1000])
def test_running_sums_are_those_of_numpy(n):
    values = torch.rand(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    np.testing.assert_allclose(module.running_sums(values).numpy(), np.cumsum(values.numpy()), rtol=1e-14)


CPU = torch.device("cpu")
YES, NO = torch.tensor(True), torch.tensor(False)


def filled(losses_by_time):
    history = module.LossHistory.empty(len(losses_by_time), CPU)
    for t, losses in enumerate(losses_by_time, start=1):
        for loss in losses:
            history.record(torch.tensor([t]), torch.tensor([float(loss)]), YES)
    return history


def test_the_ring_holds_the_last_ten_losses_of_each_time_whatever_the_batch():
    generator = torch.Generator().manual_seed(0)
    history, seen = module.LossHistory.empty(3, CPU), {1: [], 2: [], 3: []}
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
    key, history = Key(0, "time", 0, torch.arange(20_000)), module.LossHistory.empty(50_000, CPU)
    t, weight = history.draw(key)
    assert torch.equal(t, module.TimeTable(history.probabilities().double()).draw(key))
    assert not torch.equal(t, module.TimeTable(history.probabilities()).draw(key))
    torch.testing.assert_close(weight, torch.ones(20_000))


def test_training_records_its_losses_and_comes_to_favour_large_ones(make_run):
    changes = {"diffusion__T": 4, "diffusion__learned_variance": True, "loss__objective": "vlb"}
    run, store = make_run(loss__times="importance", train__length="15 steps", grids__log_spaced=0, **changes)
    trainer = Trainer(run, store)
    trainer.run()
    history = trainer.state.history
    assert history.counts.sum() == 15 * 8 and (history.counts >= 10).all()
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


T, MEAN, BATCH, STEPS = 1000, 0.3, 512, 1500
FLOOR = 0.173053406


class Small(nn.Module):
    """A perceptron of one pixel and of its time in cosines."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(17, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x, t, label=None):
        angle = math.pi * (t[:, None] + 0.5) / T * torch.arange(16)
        return self.layers(torch.cat((x.flatten(1), angle.cos()), 1)).view_as(x)


def batch(std, stream, step, size):
    slots = torch.arange(size)
    draw = lambda name: randomness.normal(Key(0, f"{stream} {name}", step, slots), (1, 1, 1))
    return MEAN + std * draw("data"), draw("noise"), randomness.integers(Key(0, f"{stream} time", step, slots), 1, T)


@pytest.mark.slow
def test_a_trained_network_reaches_the_floor_and_stays_above_it():
    std = 0.5
    process = Process(linear())
    torch.manual_seed(0)
    denoiser = Denoiser(Small(), process, PARAMETERIZATIONS["eps"])
    optimizer = torch.optim.Adam(denoiser.net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        x_0, eps, t = batch(std, "train", step, BATCH)
        loss = denoising_loss(denoiser, x_0, t, eps).total.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    parts = []
    for part in range(8):
        x_0, eps, _ = batch(std, "held out", part, 200 * T)
        with torch.no_grad():
            losses = denoising_loss(denoiser, x_0, torch.arange(1, T + 1).repeat(200), eps).total
        parts.append(losses.double().view(200, T))
    losses = torch.cat(parts)
    mean = losses.mean().item()
    error = (losses.var(0).mean() / losses.numel()).sqrt().item()  # every t equally often: within-time variance alone
    data = GaussianData(torch.tensor([MEAN]).double(), torch.tensor([[std**2]]).double())
    floors = [data.loss_floor(process.schedule.alpha(t), process.schedule.sigma(t)) for t in range(1, T + 1)]
    floor = sum(floors) / T
    assert floor == pytest.approx(FLOOR, abs=1e-9)
    assert error < 0.0025 * floor  # so that the 4 below are within 1%
    assert floor - 4 * error < mean < 1.02 * floor
