"""The variational bound: its divergences, its decoder, its split into terms, and its distance from the entropy.

Its definition, without the split, is a divergence of two Gaussians over all of x_0..x_T at once. For data of two
correlated values, N(MEAN, COVARIANCE), and a chain of T = 8 steps both of its directions are written as one Gaussian
over the visited times: E[-log p(x_0)] <= KL( q(x_0..x_T) || p(x_0..x_T) ) + H(x_0).
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from unstir.diffusion.denoiser import Denoise, Prediction
from unstir.diffusion.likelihood import bound_term, variational_bound
from unstir.diffusion.samplers.ancestral import ancestral
from unstir.theory.process import Gaussian, Process
from unstir.theory.schedule import linear
from unstir.verify import exact
from unstir.verify.check import absolute, check, relative, require
from unstir.verify.exact import M, denoising, entropy, gaussian_denoise, nodes, normal, scalar_nodes, smooth_denoise

MEAN = torch.tensor([0.3, -0.4], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
TABLE = exact.linear(8, "0.05", "0.6")
EYE = torch.eye(2, dtype=torch.float64)


def bound_of(s: float, denoise: Denoise, variance: str) -> float:
    """The bound for scalar data N(0.3, s^2), T = 1000 linear, in nats: an exact expectation over x_0 and noise."""
    x_0, eps, weights = scalar_nodes(s)
    made = variational_bound(denoise, Process(linear()), x_0, lambda t: eps, variance=variance, discretised=False)
    return (weights @ made.nats).item()


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
        p, q = (Gaussian(torch.tensor([m], dtype=torch.float64), math.log(v)) for m, v in ((m_p, v_p), (m_q, v_q)))
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
        made = Gaussian(torch.full((256,), mean, dtype=torch.float64), 2 * math.log(std))
        log_var = torch.full((256,), 2 * math.log(std), dtype=torch.float64)
        masses = made.discretised_log_prob(pixels).exp()
        expected = torch.tensor([_bin_mass(k, mean, std) for k in range(256)], dtype=torch.float64)
        large = expected > 1e-100  # beyond, the rounding of a bin's edge is seen
        yield absolute(masses.sum().item(), 1.0)
        yield relative(masses[large], expected[large])
        yield relative(Gaussian(made.mean, log_var).discretised_log_prob(pixels).exp()[large], expected[large])


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
        made = variational_bound(smooth_denoise(TABLE), process, x_0, lambda t: x_0, times=visited, discretised=False)
        abar, var = TABLE.abar(visited[0]), TABLE.var(visited[0])
        yield relative(made.prior, 0.5 * (12 * (-abar - math.log(var)) + abar * x_0.square().sum((1, 2, 3))))


@check(1e-9, "Ho et al. 2020, eqs. 3 and 5")
def _bound_is_joint_kl() -> Iterator[float]:
    """L_T + L_{T-1} + .. + L_0 = KL( q(x_0..x_T) || p(x_0..x_T) ) + H(x_0): the split loses nothing.

    variational_bound in nats per image and in bits per dimension with the divergence of the two joint Gaussians: two
    correlated values, T = 8, all times and fewer, beta and beta~; absolute
    """
    (n, eps, weights), process = nodes(2), Process(linear(8, 0.05, 0.6))
    x_0 = (MEAN + n @ torch.linalg.cholesky(COVARIANCE).mT).view(-1, 1, 1, 2)
    denoise = denoising(TABLE, lambda x_t, t: MEAN + (x_t - TABLE.alpha(t) * MEAN) @ _gain(t).mT)
    for visited in ([8, 7, 6, 5, 4, 3, 2, 1, 0], [8, 6, 3, 2, 0], [7, 4, 0], [6, 0]):
        for variance in ("large", "small"):
            made = variational_bound(
                denoise, process, x_0, lambda t: eps.view_as(x_0), variance=variance, times=visited, discretised=False
            )
            nats, bits = (weights @ made.nats).item(), (weights @ made.bits_per_dim).item()
            truth = _divergence(visited, variance) + 0.5 * torch.logdet(2 * math.pi * math.e * COVARIANCE).item()
            yield from [absolute(nats, truth), absolute(bits, truth / (2 * math.log(2)))]


def _gain(t: int) -> Tensor:
    """G of E[x_0 | x_t] = m + G (x_t - alpha_t m): alpha_t S (alpha_t^2 S + sigma_t^2 I)^-1, [2, 2]."""
    ratio: Tensor = torch.linalg.solve(_noisy(t), COVARIANCE, left=False)
    return TABLE.alpha(t) * ratio


def _noisy(t: int) -> Tensor:
    """The covariance of x_t, [2, 2]."""
    return TABLE.abar(t) * COVARIANCE + TABLE.var(t) * EYE


def _divergence(visited: Sequence[int], variance: str) -> float:
    """KL( q || p ) in nats between the joint distributions of x at the visited times."""
    (mean_q, cov_q), (mean_p, cov_p) = _forward(visited), _reverse(visited, variance)
    shift = mean_p - mean_q
    quadratic = shift @ torch.linalg.solve(cov_p, shift) + torch.linalg.solve(cov_p, cov_q).trace()
    return 0.5 * float(quadratic - len(shift) + torch.logdet(cov_p) - torch.logdet(cov_q))


def _forward(visited: Sequence[int]) -> tuple[Tensor, Tensor]:
    """q's mean [2 (K+1)] and covariance: Cov(x_s, x_t) = alpha_t / alpha_s Cov(x_s, x_s) for s < t."""
    pairs = [[(min(a, b), max(a, b)) for b in visited] for a in visited]
    rows = [torch.cat([TABLE.alpha(t) / TABLE.alpha(s) * _noisy(s) for s, t in row], 1) for row in pairs]
    return torch.cat([TABLE.alpha(t) * MEAN for t in visited]), torch.cat(rows)


def _reverse(visited: Sequence[int], variance: str) -> tuple[Tensor, Tensor]:
    """p's mean and covariance: each x_s is written as an affine function of the independent normals of all steps."""
    K = len(visited)
    means, rows = [torch.zeros(2, dtype=torch.float64)], [torch.zeros(2, 2 * K, dtype=torch.float64)]
    rows[0][:, :2] = EYE
    for k, (t, s) in enumerate(pairwise(visited), start=1):
        at_x_t, at_x_0, _ = TABLE.posterior(t, s)
        step = at_x_t * EYE + at_x_0 * _gain(t)
        means.append(step @ means[-1] + at_x_0 * (MEAN - TABLE.alpha(t) * _gain(t) @ MEAN))
        row = step @ rows[-1]
        small = TABLE.beta(t, s) if K == 2 else TABLE.small(t, s, visited[k - 2])  # one step alone has no other
        var = TABLE.beta(t, s) if variance == "large" else small
        row[:, 2 * k : 2 * k + 2] = math.sqrt(var) * EYE
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
    found = entropy(s), nll, bound_of(s, denoise, "large")
    require(found[0] <= found[1] <= found[2], f"{found} do not rise")
    yield absolute(found, (0.725791353, 0.725794244, 0.726885424))


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
    made = variational_bound(denoise, process, x_0, lambda t: noise, variance="small", discretised=False)
    require(made.times == tuple(range(2, 1001)), "the sum does not run over t = 2..T")
    columns, batched, at = [], [], torch.arange(2, 1001)
    for t in made.times:
        prediction = denoise(table.alpha(t) * x_0 + table.sigma(t) * noise, t)
        columns.append((table.snr(t - 1) - table.snr(t)) / 2 * (x_0 - prediction.x0).square().flatten(1).sum(1))
        batched.append(prediction.x0[0])
    estimates = Prediction(torch.stack(batched), torch.stack(batched))
    one_call = bound_term(estimates, process, x_0[:1].expand(999, -1, -1, -1), at, "small")
    expected = torch.stack(columns, 1)
    yield from (relative(made.terms, expected), relative(one_call, expected[0]))
