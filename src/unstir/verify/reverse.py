"""The reverse process: the posterior q(x_s | x_t, x_0), in the papers' forms, and what a prediction stands for."""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from unstir.diffusion.denoiser import at_each_time
from unstir.diffusion.likelihood import variational_bound
from unstir.theory.oracle import FiniteData, GaussianData, MixtureData
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import cosine, linear, times
from unstir.verify import exact
from unstir.verify.check import absolute, check, relative, relative_to_size, require
from unstir.verify.exact import float64, normal

_STRIDES = ((2, 1), (3, 2), (500, 499), (1000, 999), (500, 100), (1000, 1), (1000, 800), (7, 3))
_SPARSE = (1, 2, 3, 10, 100, 500, 900, 999, 1000)


@check(1e-9, "Bayes' rule")
def _posterior_bayes() -> Iterator[float]:
    """q(x_s | x_t, x_0) is proportional to q(x_t | x_s) q(x_s | x_0), for any s < t.

    mean and variance of Process.posterior with those of the product, summed over a grid, for 8 pairs (t, s), strides
    among them; mean relative to the standard deviation, variance relative
    """
    process, table = Process(linear()), exact.linear()
    x_0, x_t = (float64([x]) for x in (0.4, -0.3))
    for t, s in _STRIDES:
        q = process.posterior(x_t, x_0, t, s)
        std = float(q.std)
        x_s = q.mean + std * torch.linspace(-12, 12, 2401, dtype=torch.float64)
        beta, alpha = table.beta(t, s), table.alpha(t) / table.alpha(s)
        log_weight = -0.5 * ((x_t - alpha * x_s) ** 2 / beta + (x_s - table.alpha(s) * x_0) ** 2 / table.var(s))
        weight = torch.softmax(log_weight, 0)
        mean = (weight * x_s).sum(0, keepdim=True)
        yield absolute(q.mean, mean) / std
        yield relative(float(q.var), (weight * (x_s - mean) ** 2).sum().item())


@check(1e-11, "Ho et al. 2020, eqs. 6-7")
def _posterior_ho() -> Iterator[float]:
    """Its mean is sqrt(1 - beta_t) (1 - abar_{t-1}) / (1 - abar_t) x_t + sqrt(abar_{t-1}) beta_t / (1 - abar_t) x_0,
    and its variance beta~_t = (1 - abar_{t-1}) / (1 - abar_t) beta_t.

    the three coefficients at every t, linear and cosine, and on strides, with decimals; relative
    """
    for schedule, table in ((linear(), exact.linear()), (cosine(), exact.cosine())):
        process = Process(schedule)
        for t in range(2, process.T + 1):
            yield relative(process.posterior_coefficients(t, t - 1), table.posterior(t))
        last = process.posterior_coefficients(1, 0)
        require(last == (0.0, 1.0, 0.0), f"q(x_0 | x_1, x_0) is not x_0 itself but has the coefficients {last}")
    for t, s in _STRIDES:
        yield relative(Process(linear()).posterior_coefficients(t, s), exact.linear().posterior(t, s))


@check(1e-12, "the Markov property")
def _posterior_composes() -> Iterator[float]:
    """A stride is its two halves: q(x_s | x_t, x_0) is q(x_s | x_u, x_0) averaged over q(x_u | x_t, x_0).

    the coefficients of 6 strides, linear and cosine, with those of their halves; relative
    """
    for process in (Process(linear()), Process(cosine())):
        for t, u, s in ((900, 400, 30), (1000, 999, 998), (1000, 500, 1), (3, 2, 1), (1000, 300, 0), (12, 7, 2)):
            to_u, at_x_0_u, var_u = process.posterior_coefficients(t, u)
            to_s, at_x_0_s, var_s = process.posterior_coefficients(u, s)
            halves = (to_s * to_u, to_s * at_x_0_u + at_x_0_s, to_s**2 * var_u + var_s)
            yield relative(process.posterior_coefficients(t, s), halves)


@check(1e-11, "Nichol & Dhariwal 2021, sec. 4")
def _respaced_chain() -> Iterator[float]:
    """The chain over fewer times has their abar, beta = 1 - abar_t / abar_s, and the strided posteriors as its own.

    Process.respaced over three sets of times with decimals and with the strides of the whole chain; relative
    """
    process, table = Process(linear()), exact.linear()
    for visited in (times(process.schedule, 37), times(process.schedule, 10, "leading"), [900, 400, 399, 3, 0]):
        chain, steps = process.respaced(visited), len(visited) - 1
        require(steps == chain.T, f"the chain of {steps} steps has {chain.T}")
        x = torch.ones(1, dtype=torch.float64)
        for k in range(1, steps + 1):
            t, s = visited[-1 - k], visited[-k]
            of_chain = chain.posterior_coefficients(k, k - 1)
            yield relative([chain.schedule.abar(k), chain.schedule.beta(k)], [table.abar(t), table.beta(t, s)])
            yield relative(of_chain, process.posterior_coefficients(t, s))
            yield relative(of_chain, table.posterior(t, s))
            short, long = chain.one_step(x, k), process.one_step(x, t, s)
            yield relative([short.mean.item(), float(short.var)], [long.mean.item(), float(long.var)])


@check(1e-11, "Ho et al. 2020, eq. 11")
def _noise_form() -> Iterator[float]:
    """The posterior's mean at x_0_hat is 1/sqrt(1 - beta_t) ( x_t - beta_t / sqrt(1 - abar_t) eps ).

    Process.posterior at the x_0_hat of a noise prediction, at every t, with the formula in decimals; relative to the
    largest element
    """
    process, table = Process(linear()), exact.linear()
    x_t, eps = normal("x_t", 2, 3, 4, 4), normal("eps", 2, 3, 4, 4)
    for t in range(1, 1001):
        x_0_hat = PARAMETERIZATIONS["eps"].x0(process.schedule, x_t, t, eps)
        beta = table.beta(t)
        mean = (x_t - beta / table.sigma(t) * eps) / math.sqrt(1 - beta)
        yield relative_to_size(process.posterior(x_t, x_0_hat, t, t - 1).mean, mean)


@check(1e-10, "Salimans & Ho 2022, sec. 4")
def _conversions() -> Iterator[float]:
    """eps, x_0 and v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0 say the same: each gives back the image, and the image
    gives eps and the score -eps / sqrt(1 - abar_t).

    targets and round trips at 9 times, linear and cosine; absolute, over the condition number
    """
    for schedule, table in ((linear(), exact.linear()), (cosine(), exact.cosine())):
        process, n = Process(schedule), len(_SPARSE)
        x_0, eps, t = normal("x_0", n, 3, 2, 2), normal("eps", n, 3, 2, 2), torch.tensor(_SPARSE)
        alpha, sigma = (table.tensor(of, _SPARSE).view(n, 1, 1, 1) for of in (table.alpha, table.sigma))
        x_t = alpha * x_0 + sigma * eps
        targets = {"eps": eps, "x0": x_0, "v": alpha * eps - sigma * x_0}
        conditions = {"eps": 1 / alpha, "x0": torch.ones_like(alpha), "v": torch.ones_like(alpha)}
        for name, kind in PARAMETERIZATIONS.items():
            target = kind.target(schedule, x_0, t, eps)
            back = kind.x0(schedule, x_t, t, target)
            yield from [absolute(target, targets[name]), absolute(back / conditions[name], x_0 / conditions[name])]
            for i, time in enumerate(_SPARSE):
                one = slice(i, i + 1)
                alone = kind.x0(schedule, x_t[one], time, kind.target(schedule, x_0[one], time, eps[one]))
                yield absolute(alone / conditions[name][one], x_0[one] / conditions[name][one])
        yield absolute(process.eps(x_t, x_0, t) * sigma, eps * sigma)  # the condition number is 1 / sigma
        yield absolute(process.score(x_t, x_0, t) * sigma**2, -eps * sigma)  # and here 1 / sigma^2


@check(1e-9, "Tweedie's formula, Efron 2011")
def _score_tweedie() -> Iterator[float]:
    """grad log q(x_t) = ( sqrt(abar_t) E[x_0 | x_t] - x_t ) / (1 - abar_t).

    Process.score of the ideal estimate with autograd's gradient of the log-density, for a Gaussian, a mixture and 20
    images; relative to the largest element
    """
    process = Process(linear())
    factor = normal("factor", 12, 12) / 4
    parts = torch.stack([0.3 * factor @ factor.mT, 0.05 * torch.eye(12, dtype=torch.float64)])
    weights = float64([0.4, 0.6])
    gaussian = GaussianData(0.3 * normal("mean", 3, 2, 2), factor @ factor.mT)
    mixture = MixtureData(weights, 0.3 * normal("means", 2, 3, 2, 2), parts)
    finite = FiniteData(normal("images", 20, 3, 2, 2))
    for t in (1, 10, 300, 700, 1000):
        alpha, sigma = process.schedule.alpha(t), process.schedule.sigma(t)
        for data in (gaussian, mixture, finite):
            x = alpha * 0.5 * normal("images", 5, 3, 2, 2) + sigma * normal("noise", 5, 3, 2, 2)
            with torch.enable_grad():
                leaf = x.clone().requires_grad_()
                (gradient,) = torch.autograd.grad(data.log_prob(leaf, alpha, sigma).sum(), leaf)
            yield relative_to_size(process.score(x, data.estimate(x, alpha, sigma), t), gradient)


@check(1e-9, "Bao et al. 2022, theorem 1")
def _optimal_variance() -> Iterator[float]:
    """beta~ + c^2 m_t is Var( x_s | x_t ) = beta v_s / v_t for Gaussian data, on any stride, where m_t is the error of
    the ideal denoiser; with it bound - entropy is KL( q(x_T) || N(0, 1) ) alone.

    Process.optimal_log_variance of 8 pairs (t, s), s = 0.5, with decimals; variational_bound over all 1000 steps and
    over 5; absolute, nats
    """
    std, table, process = 0.5, exact.linear(), Process(linear())
    ideal, var = exact.gaussian_denoise(table, std), [table.abar(t) * std**2 + table.var(t) for t in range(1001)]
    errors = [std**2 * table.var(t) / var[t] for t in range(1001)]
    for t, s in _STRIDES:
        yield absolute(process.optimal_log_variance(t, s, errors[t]), math.log(table.beta(t, s) * var[s] / var[t]))
    denoise = at_each_time(lambda x_t, t: replace(ideal(x_t, t), error=errors[t]))
    x_0, eps, weights = exact.scalar_nodes(std)
    prior = 0.5 * (var[1000] - 1 - math.log(var[1000]) + table.abar(1000) * exact.M**2)
    for visited in (range(1000, -1, -1), [1000, 700, 300, 20, 1, 0]):
        given = denoise, process, x_0, lambda t: eps
        out = variational_bound(*given, variance="optimal", times=visited, discretised=False)
        yield absolute((weights @ out.nats).item() - exact.entropy(std), prior)
