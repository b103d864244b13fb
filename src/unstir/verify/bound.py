"""The variational bound, and the losses that train by it or in its place.

Its definition, without the split, is a divergence of two Gaussians over all of x_0..x_T at once. For data of two
correlated values, N(m, S), and a chain of T = 8 steps both of its directions are written as one Gaussian
over the visited times: E[-log p(x_0)] <= KL( q(x_0..x_T) || p(x_0..x_T) ) + H(x_0).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from unstir.diffusion.denoiser import Denoise, Denoiser, Prediction, at_each_time
from unstir.diffusion.likelihood import bound_term, strata, variational_bound
from unstir.diffusion.loss import Losses, LossHistory, Objective, denoising_loss
from unstir.diffusion.samplers.ancestral import ancestral
from unstir.randomness import Key
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Gaussian, Process
from unstir.theory.schedule import linear
from unstir.theory.weighting import loss_weights
from unstir.verify import exact
from unstir.verify.check import absolute, check, relative, relative_to_size, require
from unstir.verify.exact import (
    M,
    Network,
    denoising,
    entropy,
    float64,
    gaussian_denoise,
    ideal_fraction,
    nodes,
    normal,
    scalar_nodes,
    smooth_denoise,
)

_MEAN = float64([0.3, -0.4])
_COVARIANCE = float64([[0.5, 0.2], [0.2, 0.3]])
_TABLE = exact.linear(8, "0.05", "0.6")
_EYE = torch.eye(2, dtype=torch.float64)


def bound_of(s: float, denoise: Denoise, variance: str) -> float:
    """The bound for scalar data N(0.3, s^2), T = 1000 linear, in nats: an exact expectation over x_0 and noise."""
    x_0, eps, weights = scalar_nodes(s)
    out = variational_bound(denoise, Process(linear()), x_0, lambda t: eps, variance=variance, discretised=False)
    return (weights @ out.nats).item()


@check(1e-11, "the definition of the divergence")
def _kl_quadrature() -> Iterator[float]:
    """KL( p || q ) = ( v_p / v_q - 1 - log(v_p / v_q) + (m_p - m_q)^2 / v_q ) / 2 for two Gaussians, in nats.

    Gaussian.kl of 4 pairs with the integral of p log(p / q) over a grid; relative
    """
    z = torch.linspace(-14, 14, 2801, dtype=torch.float64)
    for m_p, v_p, m_q, v_q in ((0.3, 0.25, 0.0, 1.0), (0.0, 1.0, 0.3, 0.25), (-2.0, 0.01, -1.9, 0.02), (5, 9, -3, 4)):
        x = m_p + math.sqrt(v_p) * z
        log_p, log_q = (-0.5 * ((x - m) ** 2 / v + math.log(2 * math.pi * v)) for m, v in ((m_p, v_p), (m_q, v_q)))
        integral = (log_p.exp() * (log_p - log_q)).sum().item() * (x[1] - x[0]).item()
        p, q = (Gaussian(float64([m]), math.log(v)) for m, v in ((m_p, v_p), (m_q, v_q)))
        yield relative(p.kl(q), [integral])
        as_tensors = [Gaussian(g.mean, torch.zeros_like(g.mean) + g.log_var) for g in (p, q)]
        yield relative(as_tensors[0].kl(as_tensors[1]), [integral])
        require(p.kl(p).item() == 0, "the divergence of a Gaussian from itself is not 0")


@check(1e-12, "Ho et al. 2020, eq. 13")
def _decoder_mass() -> Iterator[float]:
    """p(x_0 | x_1) gives pixel k the mass of its bin, 2/255 wide, the outermost bins being open; 256 masses sum to 1.

    Gaussian.discretised_log_prob with math.erfc for 6 Gaussians: masses (those above 1e-100) relative, their sum
    absolute
    """
    pixels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean, std in ((0.0, 0.5), (0.93, 0.01), (-1.5, 0.02), (3.0, 0.3), (0.2, 1e-3), (-1.0, 0.05)):
        out = Gaussian(torch.full((256,), mean, dtype=torch.float64), 2 * math.log(std))
        log_var = torch.full((256,), 2 * math.log(std), dtype=torch.float64)
        masses = out.discretised_log_prob(pixels).exp()
        expected = float64([_bin_mass(k, mean, std) for k in range(256)])
        large = expected > 1e-100  # beyond, the rounding of a bin's edge is seen
        yield absolute(masses.sum().item(), 1.0)
        yield relative(masses[large], expected[large])
        yield relative(Gaussian(out.mean, log_var).discretised_log_prob(pixels).exp()[large], expected[large])


def _bin_mass(k: int, mean: float, std: float) -> float:
    """The mass of pixel k's bin from the complementary error function, in the tail where nothing cancels."""
    edges = -math.inf if k == 0 else (k - 0.5) / 127.5 - 1, math.inf if k == 255 else (k + 0.5) / 127.5 - 1
    lower, upper = ((edge - mean) / std / math.sqrt(2) for edge in edges)
    if lower < 0 < upper:
        return (math.erf(upper) - math.erf(lower)) / 2
    near, far = sorted((abs(lower), abs(upper)))
    return (math.erfc(near) - math.erfc(far)) / 2


@check(1e-12, "Ho et al. 2020, eq. 5")
def _prior_kl() -> Iterator[float]:
    """L_T = KL( q(x_T | x_0) || N(0, I) ) = ( abar_T ||x_0||^2 - D (abar_T + log(1 - abar_T)) ) / 2 nats.

    the prior of variational_bound, T = 8, all times and fewer, 12 values per image, with the formula; relative
    """
    x_0, process = normal("x_0", 4, 3, 2, 2), Process(linear(8, 0.05, 0.6))
    for visited in ([8, 7, 6, 5, 4, 3, 2, 1, 0], [5, 2, 0]):
        out = variational_bound(smooth_denoise(_TABLE), process, x_0, lambda t: x_0, times=visited, discretised=False)
        abar, var = _TABLE.abar(visited[0]), _TABLE.var(visited[0])
        yield relative(out.prior, 0.5 * (12 * (-abar - math.log(var)) + abar * x_0.square().sum((1, 2, 3))))


@check(1e-9, "Ho et al. 2020, eqs. 3 and 5")
def _bound_is_joint_kl() -> Iterator[float]:
    """L_T + L_{T-1} + .. + L_0 = KL( q(x_0..x_T) || p(x_0..x_T) ) + H(x_0): the split loses nothing.

    variational_bound in nats per image and in bits per dimension with the divergence of the two joint Gaussians: two
    correlated values, T = 8, all times and fewer, beta and beta~; absolute
    """
    (n, eps, weights), process = nodes(2), Process(linear(8, 0.05, 0.6))
    x_0 = (_MEAN + n @ torch.linalg.cholesky(_COVARIANCE).mT).view(-1, 1, 1, 2)
    denoise = denoising(_TABLE, lambda x_t, t: _MEAN + (x_t - _TABLE.alpha(t) * _MEAN) @ _gain(t).mT)
    for visited in ([8, 7, 6, 5, 4, 3, 2, 1, 0], [8, 6, 3, 2, 0], [7, 4, 0], [6, 0]):
        for variance in ("large", "small"):
            out = variational_bound(
                denoise, process, x_0, lambda t: eps.view_as(x_0), variance=variance, times=visited, discretised=False
            )
            nats, bits = (weights @ out.nats).item(), (weights @ out.bits_per_dim).item()
            truth = _divergence(visited, variance) + 0.5 * torch.logdet(2 * math.pi * math.e * _COVARIANCE).item()
            yield from [absolute(nats, truth), absolute(bits, truth / (2 * math.log(2)))]


def _gain(t: int) -> Tensor:
    """G of E[x_0 | x_t] = m + G (x_t - alpha_t m): alpha_t S (alpha_t^2 S + sigma_t^2 I)^-1, [2, 2]."""
    ratio: Tensor = torch.linalg.solve(_noisy(t), _COVARIANCE, left=False)
    return _TABLE.alpha(t) * ratio


def _noisy(t: int) -> Tensor:
    """The covariance of x_t, [2, 2]."""
    return _TABLE.abar(t) * _COVARIANCE + _TABLE.var(t) * _EYE


def _divergence(visited: Sequence[int], variance: str) -> float:
    """KL( q || p ) in nats between the joint distributions of x at the visited times."""
    (mean_q, cov_q), (mean_p, cov_p) = _forward(visited), _reverse(visited, variance)
    shift = mean_p - mean_q
    quadratic = shift @ torch.linalg.solve(cov_p, shift) + torch.linalg.solve(cov_p, cov_q).trace()
    return 0.5 * float(quadratic - len(shift) + torch.logdet(cov_p) - torch.logdet(cov_q))


def _forward(visited: Sequence[int]) -> tuple[Tensor, Tensor]:
    """q's mean [2 (K+1)] and covariance: Cov(x_s, x_t) = alpha_t / alpha_s Cov(x_s, x_s) for s < t."""
    pairs = [[(min(a, b), max(a, b)) for b in visited] for a in visited]
    rows = [torch.cat([_TABLE.alpha(t) / _TABLE.alpha(s) * _noisy(s) for s, t in row], 1) for row in pairs]
    return torch.cat([_TABLE.alpha(t) * _MEAN for t in visited]), torch.cat(rows)


def _reverse(visited: Sequence[int], variance: str) -> tuple[Tensor, Tensor]:
    """p's mean and covariance: each x_s is written as an affine function of the independent normals of all steps."""
    K = len(visited)
    means, rows = [torch.zeros(2, dtype=torch.float64)], [torch.zeros(2, 2 * K, dtype=torch.float64)]
    rows[0][:, :2] = _EYE
    for k, (t, s) in enumerate(pairwise(visited), start=1):
        at_x_t, at_x_0, _ = _TABLE.posterior(t, s)
        step = at_x_t * _EYE + at_x_0 * _gain(t)
        means.append(step @ means[-1] + at_x_0 * (_MEAN - _TABLE.alpha(t) * _gain(t) @ _MEAN))
        row = step @ rows[-1]
        small = _TABLE.beta(t, s) if K == 2 else _TABLE.small(t, s, visited[k - 2])  # one step alone has no other
        var = _TABLE.beta(t, s) if variance == "large" else small
        row[:, 2 * k : 2 * k + 2] = math.sqrt(var) * _EYE
        rows.append(row)
    scale = torch.cat(rows)
    return torch.cat(means), scale @ scale.mT


@check(1e-9, "Gibbs' inequality, Jensen's inequality")
def _bound_order() -> Iterator[float]:
    """Entropy <= negative log-likelihood <= bound: 0.725791353 <= 0.725794244 <= 0.726885424 nats of N(0.3, 0.5^2).

    a formula, the output of `ancestral` read as an affine map, and variational_bound, T = 1000, variance beta, with the
    known values; absolute, nats
    """
    s, table = 0.5, exact.linear()
    denoise = gaussian_denoise(table, s)
    mean, var = exact.output(ancestral, denoise, Process(linear()), range(1000, -1, -1), variance="large")
    of_model = var.item() + table.beta(1)  # the sampler leaves out the last step's noise
    nll = 0.5 * math.log(2 * math.pi * of_model) + (s**2 + (M - mean.item()) ** 2) / (2 * of_model)
    rising = entropy(s), nll, bound_of(s, denoise, "large")
    require(rising[0] <= rising[1] <= rising[2], f"{rising} do not rise")
    yield absolute(rising, (0.725791353, 0.725794244, 0.726885424))


@check(1e-12, "Ho et al. 2020, sec. 3.2")
def _bound_gap() -> Iterator[float]:
    """Data N(m, 1) with variance beta: bound - entropy = abar_T m^2 / 2 = 1.816123e-6 nats, m = 0.3.

    variational_bound, T = 1000, with decimals; absolute, nats
    """
    gap = bound_of(1.0, gaussian_denoise(exact.linear(), 1.0), "large") - entropy(1.0)
    yield absolute(gap, exact.linear().abar(1000) * M**2 / 2)


@check(1e-9, "Kingma et al. 2021, sec. 4")
def _bound_snr() -> Iterator[float]:
    """With variance beta~, L_{t-1} = (SNR_{t-1} - SNR_t) / 2 ||x_0 - x_0_hat||^2 for t = 2..T.

    each term of variational_bound, and bound_term on a batch of all t at once, for a denoiser that is not ideal, with
    decimals; relative
    """
    table, process, denoise = exact.linear(), Process(linear()), smooth_denoise(exact.linear())
    x_0, noise = normal("x_0", 3, 2, 2, 2), normal("noise", 3, 2, 2, 2)
    out = variational_bound(denoise, process, x_0, lambda t: noise, variance="small", discretised=False)
    require(out.times == tuple(range(2, 1001)), "the sum does not run over t = 2..T")
    columns, batched, at = [], [], torch.arange(2, 1001)
    for t in out.times:
        prediction = denoise(table.alpha(t) * x_0 + table.sigma(t) * noise, t)
        columns.append((table.snr(t - 1) - table.snr(t)) / 2 * (x_0 - prediction.x0).square().flatten(1).sum(1))
        batched.append(prediction.x0[0])
    estimates = Prediction(torch.stack(batched), torch.stack(batched))
    one_call = bound_term(estimates, process, x_0[:1].expand(999, -1, -1, -1), at, "small")
    expected = torch.stack(columns, 1)
    yield from (relative(out.terms, expected), relative(one_call, expected[0]))


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
    require(all(sum(one.values()) == T - 1 for one in drawn), "the weights do not sum to T - 1")
    for t in range(2, T + 1):
        share = 1 / next((one[t] for one in drawn if t in one), math.nan)
        _require_share(f"step {t}", sum(t in one for one in drawn), seeds, share)
    choices = {tuple(one.items()) for one in drawn}
    possible = math.prod(drawn[0].values())
    require(len(choices) == possible, f"{len(choices)} of the {possible:.0f} choices were seen")
    mean = torch.stack([bound(sampled=dict(one)).nats for one in sorted(choices)]).mean(0)
    yield relative(mean, bound().nats)


def _require_share(name: str, count: float, draws: int, share: float) -> None:
    """Of so many draws this share is expected: the count may be off by 6 standard errors."""
    off, error = abs(count - draws * share), math.sqrt(draws * share * (1 - share))
    require(off < 6 * error, f"{name} is drawn too often or too rarely, by {off:.0f} of {draws}")


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
            fraction = ideal_fraction(table, s, t) if of is None else of
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
            out = denoising_loss(denoiser, x_0, t, eps, objective=Objective(kind))
            (gradient,) = torch.autograd.grad(out.total.sum(), leaf)
        return out, gradient

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
        out = denoising_loss(denoiser, x_0.repeat(1000, 1, 1, 1), t.repeat_interleave(9), eps.repeat(1000, 1, 1, 1))
        by_time = out.total.view(1000, 9) @ weights
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
    p = [0.999 * one / sum(root) + 0.001 / T for one in root]
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
        (partial(weighting, "min_snr", options={"gamma": 2.0}), snr.clamp(max=2)),
        (partial(weighting, "truncated_snr"), snr.clamp(min=1)),
        (partial(weighting, "p2"), snr / (1 + snr)),
        (partial(weighting, "p2", options={"gamma": 0.5, "k": 3.0}), snr / (3 + snr).sqrt()),
    ):
        for predict, output in outputs.items():
            kind = PARAMETERIZATIONS[predict]
            denoiser = Denoiser(Network(output), Process(linear()), kind)
            out = denoising_loss(denoiser, x_0, t, eps, objective=Objective(weights=weights(parameterization=kind)))
            yield relative(out.total, expected * error)
