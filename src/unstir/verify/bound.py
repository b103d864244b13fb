"""The variational bound: its divergences, its decoder, its split into terms, and its distance from the entropy."""

import math
from collections.abc import Iterator

import torch

from unstir.diffusion.denoiser import Denoise, Prediction
from unstir.diffusion.likelihood import bound_term, variational_bound
from unstir.diffusion.samplers.ancestral import ancestral
from unstir.theory.gaussian import Gaussian
from unstir.theory.process import Process
from unstir.theory.schedule import linear
from unstir.verify import exact, joint
from unstir.verify.check import absolute, check, relative, require
from unstir.verify.known import M, entropy, gaussian_denoise, normal, output, scalar_nodes, smooth_denoise

ORDER = (0.725791353, 0.725794244, 0.726885424)
"""Entropy, negative log-likelihood and bound of N(0.3, 0.5^2) under the ideal chain with variance beta, nats."""


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
        means = [torch.tensor([m], dtype=torch.float64) for m in (m_p, m_q)]
        p, q = Gaussian(means[0], math.log(v_p)), Gaussian(means[1], math.log(v_q))
        as_tensors = [Gaussian(g.mean, torch.zeros_like(g.mean) + g.log_var) for g in (p, q)]
        yield from [relative(p.kl(q), [integral]), relative(as_tensors[0].kl(as_tensors[1]), [integral])]
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
        yield from [
            absolute(masses.sum().item(), 1.0),
            relative(masses[large], expected[large]),
            relative(Gaussian(made.mean, log_var).discretised_log_prob(pixels).exp()[large], expected[large]),
        ]


def _bin_mass(k: int, mean: float, std: float) -> float:
    """The mass of pixel k's bin from the complementary error function, in the tail where nothing cancels."""
    lower = -math.inf if k == 0 else ((k - 0.5) / 127.5 - 1 - mean) / std
    upper = math.inf if k == 255 else ((k + 0.5) / 127.5 - 1 - mean) / std
    if lower < 0 < upper:
        return (math.erf(upper / math.sqrt(2)) - math.erf(lower / math.sqrt(2))) / 2
    near, far = sorted((abs(lower), abs(upper)))
    return (math.erfc(near / math.sqrt(2)) - math.erfc(far / math.sqrt(2))) / 2


@check(1e-12, "Ho et al. 2020, eq. 5")
def _prior_kl() -> Iterator[float]:
    """L_T = KL( q(x_T | x_0) || N(0, I) ) = ( abar_T ||x_0||^2 - D (abar_T + log(1 - abar_T)) ) / 2 nats.

    the prior of variational_bound, T = 8, all times and fewer, 12 values per image, with the formula; relative
    """
    table, x_0 = exact.linear(8, "0.05", "0.6"), normal("x_0", 4, 3, 2, 2)
    for visited in ([8, 7, 6, 5, 4, 3, 2, 1, 0], [5, 2, 0]):
        process, first = Process(linear(8, 0.05, 0.6)), visited[0]
        made = variational_bound(smooth_denoise(table), process, x_0, lambda t: x_0, times=visited, discretised=False)
        spread = -table.abar(first) - math.log(table.var(first))
        yield relative(made.prior, 0.5 * (12 * spread + table.abar(first) * x_0.square().sum((1, 2, 3))))


@check(1e-9, "Ho et al. 2020, eqs. 3 and 5")
def _bound_is_joint_kl() -> Iterator[float]:
    """L_T + L_{T-1} + .. + L_0 = KL( q(x_0..x_T) || p(x_0..x_T) ) + H(x_0): the split loses nothing.

    variational_bound in nats per image and in bits per dimension with the divergence of the two joint Gaussians: two
    correlated values, T = 8, all times and fewer, beta and beta~; absolute
    """
    for visited in ([8, 7, 6, 5, 4, 3, 2, 1, 0], [8, 6, 3, 2, 0], [7, 4, 0], [6, 0]):
        for variance in ("large", "small"):
            nats, bits = joint.bound(visited, variance)
            truth = joint.divergence(visited, variance) + joint.entropy()
            yield from [absolute(nats, truth), absolute(bits, truth / (2 * math.log(2)))]


@check(1e-9, "Gibbs' inequality, Jensen's inequality")
def _bound_order() -> Iterator[float]:
    """Entropy <= negative log-likelihood <= bound: 0.725791353 <= 0.725794244 <= 0.726885424 nats of N(0.3, 0.5^2).

    a formula, the output of `ancestral` read as an affine map, and variational_bound, T = 1000, variance beta, with the
    known values; absolute, nats
    """
    s, table = 0.5, exact.linear()
    denoise = gaussian_denoise(table, s)
    mean, var = output(ancestral, denoise, Process(linear()), range(1000, -1, -1), variance="large")
    of_model = var.item() + table.beta(1)  # the sampler leaves out the last step's noise
    nll = 0.5 * math.log(2 * math.pi * of_model) + (s**2 + (M - mean.item()) ** 2) / (2 * of_model)
    found = entropy(s), nll, bound_of(s, denoise, "large")
    require(found[0] <= found[1] <= found[2], f"{found} do not rise")
    yield absolute(found, ORDER)


@check(1e-12, "Ho et al. 2020, sec. 3.2")
def _bound_gap() -> Iterator[float]:
    """Data N(m, 1) with variance beta: bound - entropy = abar_T m^2 / 2 = 1.816123e-6 nats, m = 0.3.

    variational_bound, T = 1000, with decimals; absolute, nats
    """
    table = exact.linear()
    gap = bound_of(1.0, gaussian_denoise(table, 1.0), "large") - entropy(1.0)
    yield absolute(gap, table.abar(1000) * M**2 / 2)


@check(1e-9, "Kingma et al. 2021, sec. 4")
def _bound_snr() -> Iterator[float]:
    """With variance beta~, L_{t-1} = (SNR_{t-1} - SNR_t) / 2 ||x_0 - x_0_hat||^2 for t = 2..T.

    each term of variational_bound, and bound_term on a batch of all t at once, for a denoiser that is not ideal, with
    decimals; relative
    """
    table, process = exact.linear(), Process(linear())
    x_0, noise = normal("x_0", 3, 2, 2, 2), normal("noise", 3, 2, 2, 2)
    denoise = smooth_denoise(table)
    made = variational_bound(denoise, process, x_0, lambda t: noise, variance="small", discretised=False)
    require(made.times == tuple(range(2, 1001)), "the sum does not run over t = 2..T")
    columns, batched, at = [], [], torch.arange(2, 1001)
    for t in made.times:
        prediction = denoise(table.alpha(t) * x_0 + table.sigma(t) * noise, t)
        columns.append(table.snr_fall(t, t - 1) / 2 * (x_0 - prediction.x0).square().flatten(1).sum(1))
        batched.append(prediction.x0[0])
    estimates = Prediction(torch.stack(batched), torch.stack(batched))
    one_call = bound_term(estimates, process, x_0[:1].expand(999, -1, -1, -1), at, "small")
    expected = torch.stack(columns, 1)
    yield from (relative(made.terms, expected), relative(one_call, expected[0]))
