"""The bound and the simple loss in use: sampled, with a learned variance, as training losses, weighted."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from unstir.diffusion.denoiser import Denoise, Denoiser, Prediction, at_each_time
from unstir.diffusion.likelihood import bound_term, strata, variational_bound
from unstir.diffusion.loss import Losses, LossHistory, Objective, denoising_loss
from unstir.randomness import Key
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import linear
from unstir.theory.weighting import loss_weights
from unstir.verify import exact
from unstir.verify.bound import bound_of
from unstir.verify.check import absolute, check, relative, relative_to_size, require
from unstir.verify.exact import M, Table, entropy, gaussian_denoise, normal, scalar_nodes, smooth_denoise


class Network(nn.Module):
    """A network whose output is always the same, or a function of x_t and of t - 1, which every network receives."""

    def __init__(self, output: Tensor | Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None) -> Tensor:
        """The output."""
        return self.output if isinstance(self.output, Tensor) else self.output(x, time)


@check(1e-12, "stratified sampling")
def _bound_strata() -> Iterator[float]:
    """One step drawn from each of n parts of 2..T, weighted by the part's size, estimates the whole sum without bias.

    mean of variational_bound over all choices that `strata` makes at T = 12, n = 3, with the whole sum; relative. Each
    step is drawn as often as another of its part, to 6 standard errors (false alarm 3e-8)
    """
    T, n, seeds = 12, 3, 3000
    process, denoise = Process(linear(T, 0.01, 0.4)), smooth_denoise(exact.linear(T, "0.01", "0.4"))
    x_0, noise = normal("x_0", 2, 1, 2, 2), normal("noise", 2, 1, 2, 2)
    bound = partial(variational_bound, denoise, process, x_0, lambda t: noise, discretised=False)
    drawn = [strata(T, n, Key(0, "verify strata", seed, torch.arange(n))) for seed in range(seeds)]
    require(all(sum(each.values()) == T - 1 for each in drawn), "the weights do not sum to T - 1")
    for t in range(2, T + 1):
        share = 1 / next((each[t] for each in drawn if t in each), math.nan)
        _require_share(f"step {t}", sum(t in each for each in drawn), seeds, share)
    choices = {tuple(each.items()) for each in drawn}
    possible = math.prod(drawn[0].values())
    require(len(choices) == possible, f"{len(choices)} of the {possible:.0f} choices were seen")
    mean = torch.stack([bound(sampled=dict(each)).nats for each in sorted(choices)]).mean(0)
    yield relative(mean, bound().nats)


def _require_share(what: str, count: float, draws: int, share: float) -> None:
    """Of so many draws this share is expected: the count may be off by 6 standard errors."""
    off, error = abs(count - draws * share), math.sqrt(draws * share * (1 - share))
    require(off < 6 * error, f"{what} is drawn too often or too rarely, by {off:.0f} of {draws}")


@check(1e-9, "Nichol & Dhariwal 2021, eq. 15")
def _learned_variance() -> Iterator[float]:
    """Fraction v means exp( v log beta + (1 - v) log beta~ ); with the variance of the ideal reverse step, bound -
    entropy is KL( q(x_T) || N(0, 1) ) alone.

    variational_bound at v = 0, 1 and the ideal v, T = 1000, and one term at v = 0.5, with beta~, beta and formulas;
    absolute, nats
    """
    s, table = 0.5, exact.linear()
    (x_0, eps, _), ideal = scalar_nodes(s), gaussian_denoise(table, s)

    def with_fraction(of: float | None) -> Denoise:
        def denoise(x_t: Tensor, t: int) -> Prediction:
            fraction = _exact_fraction(table, s, t) if of is None else of
            return replace(ideal(x_t, t), var_fraction=torch.full_like(x_t, fraction))

        return at_each_time(denoise)

    for end, variance in ((0.0, "small"), (1.0, "large")):
        yield absolute(bound_of(s, with_fraction(end), "learned"), bound_of(s, ideal, variance))
    _, at_x_0, small = table.posterior(7)
    between = math.sqrt(small * table.beta(7))
    distance = (at_x_0 * (x_0 - ideal(eps, 7).x0)).square().flatten() / between
    middle = bound_term(with_fraction(0.5)(eps, 7), Process(linear()), x_0, 7, "learned")
    yield absolute(middle, 0.5 * (small / between - 1 - math.log(small / between) + distance))
    var = table.abar(1000) * s**2 + table.var(1000)
    prior = 0.5 * (var - 1 - math.log(var) + table.abar(1000) * M**2)
    yield absolute(bound_of(s, with_fraction(None), "learned") - entropy(s), prior)


def _exact_fraction(table: Table, s: float, t: int) -> float:
    """Where the log-variance of p(x_{t-1} | x_t) lies between those of beta~ and beta, for data N(m, s^2)."""
    _, at_x_0, small = table.posterior(t)
    remaining = s**2 * table.var(t) / (table.abar(t) * s**2 + table.var(t))
    low, high = math.log(table.small(t, t - 1, t + 1)), math.log(table.beta(t))
    return (math.log(small + at_x_0**2 * remaining) - low) / (high - low)


@check(1e-9, "Nichol & Dhariwal 2021, eq. 16")
def _hybrid_gradient() -> Iterator[float]:
    """L_simple + 0.001 L_vlb: the bound moves the variance and gives the mean no gradient.

    gradients of denoising_loss and its value in bits with the formulas differentiated by hand, t in 1, 2, 3, 40, 500
    and 1000; relative
    """
    table, T, D = exact.linear(), 1000, 6
    t = torch.tensor([1, 2, 3, 40, 500, 1000])
    x_0 = torch.arange(36, dtype=torch.float64).view(6, 3, 1, 2) * 7 / 127.5 - 1
    eps, output = normal("eps", 6, 3, 1, 2), normal("output", 6, 6, 1, 2)

    def losses(kind: str) -> tuple[Losses, Tensor]:
        leaf = output.clone().requires_grad_()
        denoiser = Denoiser(Network(leaf), Process(linear()), PARAMETERIZATIONS["eps"], learned_variance=True)
        with torch.enable_grad():
            made = denoising_loss(denoiser, x_0, t, eps, objective=Objective(kind))
            (gradient,) = torch.autograd.grad(made.total.sum(), leaf)
        return made, gradient

    alpha, sigma, at_x_0, large = (
        table.tensor(of, t.tolist()).view(6, 1, 1, 1)
        for of in (table.alpha, table.sigma, lambda i: table.posterior(i)[1], table.beta)
    )
    width = (large / table.tensor(lambda i: table.small(i, i - 1, i + 1), t.tolist()).view(6, 1, 1, 1)).log()
    mean, log_var = output[:, :3], large.log() - width * (1 - output[:, 3:]) / 2
    distance = (at_x_0 * (sigma * (mean - eps) / alpha)).square()
    ratio = (large.log() - width - log_var).exp()
    terms = 0.5 * (ratio - 1 - ratio.log() + distance / log_var.exp())
    bits = T / (D * math.log(2)) * terms.sum((1, 2, 3))
    slope = 0.001 * T / (D * math.log(2)) * 0.5 * (1 - ratio - distance / log_var.exp()) * width / 2
    hybrid, gradient = losses("hybrid")
    simple = (mean - eps).square().mean((1, 2, 3))
    require(bool((losses("vlb")[1][:, :3] != 0).all()), "the bound alone teaches the mean nothing")
    require(bool((gradient[:1, 3:] != 0).all()), "the decoder's term does not reach the variance")
    assert hybrid.bits is not None
    yield relative(gradient[:, :3], (mean - eps) * 2 / D)
    yield relative_to_size(gradient[1:, 3:], slope[1:])
    yield relative(hybrid.bits[1:], bits[1:])
    yield relative(hybrid.total[1:], simple[1:] + 0.001 * bits[1:])


@check(1e-9, "the posterior variance of Gaussian data")
def _loss_floor() -> Iterator[float]:
    """No network does better than mean_t abar_t s^2 / (abar_t s^2 + 1 - abar_t): 0.275513233, 0.173053406 and
    0.098639296 for s = 1, 0.5 and 0.25.

    denoising_loss of the ideal network over all t, its mean and each time, with known values and formula; absolute
    """
    table, t = exact.linear(), torch.arange(1, 1001)
    alpha, sigma = (table.tensor(of, range(1, 1001)).view(-1, 1, 1, 1) for of in (table.alpha, table.sigma))

    def ideal(s: float, x: Tensor, time: Tensor) -> Tensor:
        """The best prediction of the noise: sigma_t (x_t - alpha_t m) / v_t."""
        return sigma[time] * (x - alpha[time] * M) / (alpha[time] ** 2 * s**2 + sigma[time] ** 2)

    for s, floor in ((1.0, 0.275513233), (0.5, 0.173053406), (0.25, 0.098639296)):
        x_0, eps, weights = scalar_nodes(s)
        denoiser = Denoiser(Network(partial(ideal, s)), Process(linear()), PARAMETERIZATIONS["eps"])
        made = denoising_loss(denoiser, x_0.repeat(1000, 1, 1, 1), t.repeat_interleave(9), eps.repeat(1000, 1, 1, 1))
        by_time = made.total.view(1000, 9) @ weights
        of_theory = [table.abar(i) * s**2 / (table.abar(i) * s**2 + table.var(i)) for i in t.tolist()]
        yield from [absolute(by_time.mean().item(), floor), absolute(by_time, of_theory)]


@check(1e-6, "Nichol & Dhariwal 2021, eq. 18")
def _importance() -> Iterator[float]:
    """Times drawn with p_t ~ sqrt( E[L_t^2] ) of the last ten losses and weighted by 1 / (T p_t) keep the mean.

    probabilities and weights of LossHistory (float32) after 15 rounds over 6 times, with plain Python, relative; times
    are drawn as often as p_t says, to 6 standard errors (false alarm 2e-8)
    """
    T, rounds, draws = 6, 15, 1 << 16
    history = LossHistory.empty(T, torch.device("cpu"))
    losses = [[float((t + 1) * (1 + (k * k + t * k) % (3 + 2 * t))) for k in range(rounds)] for t in range(T)]
    for k in range(rounds):
        history.record(torch.arange(1, T + 1), torch.tensor([row[k] for row in losses]), torch.tensor(True))
    root = [math.sqrt(sum(loss**2 for loss in row[-10:]) / 10) for row in losses]
    p = [0.999 * each / sum(root) + 0.001 / T for each in root]
    t, weight = history.draw(Key(0, "verify importance", 0, torch.arange(draws)))
    for time, share in enumerate(p, start=1):
        _require_share(f"t = {time}", (t == time).sum().item(), draws, share)
    yield relative(history.probabilities(), p)
    yield relative(weight, [1 / (T * p[time - 1]) for time in t.tolist()])
    yield absolute(sum(share * weight[t == time].double().mean() for time, share in enumerate(p, 1)), 1.0)


@check(1e-9, "Hang et al. 2023; Salimans & Ho 2022; Choi et al. 2022")
def _weightings() -> Iterator[float]:
    """min(SNR, gamma), max(SNR, 1) and SNR / (k + SNR)^gamma on the image's error, whatever the network predicts.

    denoising_loss under each weighting, gamma = 5, 2, 1 and 0.5, for networks of eps, x0 and v with one estimate, at
    every t, with the formulas in decimals; relative
    """
    table, t = exact.linear(), torch.arange(1, 1001)
    x_0, eps, x_0_hat = (normal(name, 1000, 1, 1, 2) for name in ("x_0", "eps", "x_0_hat"))
    alpha, sigma = (table.tensor(of, t.tolist()).view(-1, 1, 1, 1) for of in (table.alpha, table.sigma))
    x_t = alpha * x_0 + sigma * eps
    outputs = {"eps": (x_t - alpha * x_0_hat) / sigma, "x0": x_0_hat, "v": (alpha * x_t - x_0_hat) / sigma}
    snr, error = table.tensor(table.snr, t.tolist()), (x_0 - x_0_hat).square().mean((1, 2, 3))
    weighting = partial(loss_weights, schedule=linear())
    for weights, expected in (
        (partial(weighting, "min_snr"), snr.clamp(max=5)),
        (partial(weighting, "min_snr", min_snr_gamma=2.0), snr.clamp(max=2)),
        (partial(weighting, "truncated_snr"), snr.clamp(min=1)),
        (partial(weighting, "p2"), snr / (1 + snr)),
        (partial(weighting, "p2", p2_gamma=0.5, p2_k=3.0), snr / (3 + snr).sqrt()),
    ):
        for predict, output in outputs.items():
            kind = PARAMETERIZATIONS[predict]
            denoiser = Denoiser(Network(output), Process(linear()), kind)
            made = denoising_loss(denoiser, x_0, t, eps, objective=Objective(weights=weights(parameterization=kind)))
            yield relative(made.total, expected * error)
