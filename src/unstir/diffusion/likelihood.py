"""The variational bound on the negative log-likelihood, every term of it (Ho et al. 2020, eq. 5).

    -log p(x_0)  <=  L_T + sum_{t=2..T} L_{t-1} + L_0

    L_T      KL( q(x_T | x_0) || N(0, I) )                       the prior's, without parameters
    L_{t-1}  KL( q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t) )      two Gaussians: closed form
    L_0      -log p(x_0 | x_1)                                    the decoder's: the mass of each pixel's bin

in expectation over x_t ~ q(x_t | x_0), of which one sample is drawn at each t. The two Gaussians of L_{t-1} share the
coefficient of x_t in their means, so their difference is (coefficient of x_0) (x_0 - x_0_hat).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from unstir import randomness
from unstir.diffusion.denoiser import Denoise, Prediction
from unstir.randomness import Key
from unstir.theory.parameterization import log_variance
from unstir.theory.process import Gaussian, Process
from unstir.theory.schedule import Coefficient


@dataclass(frozen=True)
class Bound:
    """The terms of the bound for each of B images, float64 on the CPU, in nats per image.

    ``prior`` [B] is L_T and ``decoder`` [B] is L_0. ``terms`` [B, K] are the L_{t-1} at ``times`` (K rising values of
    2..T), each of which stands for ``weights`` [K] of them: 1 in the full sum. ``dims`` is the number of values of an
    image, or [B] of those that are there.
    """

    prior: Tensor
    terms: Tensor
    decoder: Tensor
    times: tuple[int, ...]
    weights: Tensor
    dims: int | Tensor

    @cached_property
    def nats(self) -> Tensor:
        """The bound, in nats per image: [B]."""
        return self.prior + self.terms @ self.weights + self.decoder

    @cached_property
    def bits_per_dim(self) -> Tensor:
        """The bound, in bits per dimension (a pixel's channel), as papers print it: [B]."""
        return self.to_bits(self.nats)

    def to_bits(self, nats: Tensor) -> Tensor:
        """Nats per image, [B] or [B, K], as bits per dimension: divided by ``dims`` and by log 2."""
        dims = self.dims if isinstance(self.dims, int) else self.dims.to(nats).view(-1, *[1] * (nats.ndim - 1))
        return nats / (dims * math.log(2))


def variational_bound(
    denoise: Denoise,
    process: Process,
    x_0: Tensor,
    noise: Callable[[int], Tensor],
    *,
    variance: str = "large",
    times: Sequence[int] | None = None,
    sampled: Mapping[int, float] | None = None,
    discretised: bool = True,
    present: Tensor | None = None,
    on_call: Callable[[], None] | None = None,
) -> Bound:
    """The bound of every image of ``x_0`` [B, C, H, W], whose values are k/127.5 - 1 for whole k in 0..255.

    ``noise(t)`` is standard normal, shaped like x_0. ``variance`` is "small", "large", "learned" or "optimal", which
    needs a denoiser that knows its errors; the decoder of bins is then as with "large". ``times``, falling to 0, is the
    chain to bound; all T steps by default. The sum runs over all of its steps, or, where ``sampled`` gives {step:
    weight} as `strata` does, over those, the decoder's step 1 always being one. ``discretised=False`` takes the
    decoder's density rather than the mass of a bin, for data that is not made of pixels. Where ``present``, bool like
    x_0, is false a value is missing and counts nowhere; x_0 is 0 there. ``on_call()`` is called after each network
    call. Raises ValueError for times that do not fall to 0 or an unknown variance.
    """
    visited = list(range(process.T, -1, -1)) if times is None else list(times)
    chain = process if times is None else process.respaced(visited)
    steps = dict.fromkeys(range(2, chain.T + 1), 1.0) if sampled is None else dict(sorted(sampled.items()))
    prior = _sum(chain.marginal(x_0, chain.T).kl(Gaussian(torch.zeros_like(x_0), 0.0)), present)
    columns = []
    for k in (1, *steps):
        t = visited[-1 - k]
        prediction = denoise(chain.diffuse(x_0, k, noise(t)), t)
        columns.append(bound_term(prediction, chain, x_0, k, variance, discretised, present))
        if on_call is not None:
            on_call()
    decoder, *terms = (column.cpu().double() for column in columns)  # there is no float64 on MPS
    return Bound(
        prior=prior.cpu().double(),
        terms=torch.stack(terms, 1) if terms else decoder.new_zeros(len(x_0), 0),
        decoder=decoder,
        times=tuple(visited[-1 - k] for k in steps),
        weights=torch.tensor(list(steps.values()), dtype=torch.float64),
        dims=dims(x_0, present),
    )


def dims(x_0: Tensor, present: Tensor | None) -> int | Tensor:
    """The number of values of an image, or of those ``present`` in each, at least 1: int64 [B]."""
    return x_0[0].numel() if present is None else present.flatten(1).sum(1).clamp(min=1)


def bound_term(
    prediction: Prediction,
    process: Process,
    x_0: Tensor,
    t: int | Tensor,
    variance: str,
    discretised: bool = True,
    present: Tensor | None = None,
) -> Tensor:
    """L_{t-1} in nats per image, [B], for t >= 2, and the decoder's L_0 for t = 1; t is an int or int64 [B].

    ``prediction`` is made from one x_t ~ q(x_t | x_0). Differentiable with respect to the prediction. ``present`` as in
    `variational_bound`.
    """
    at_x_0, log_small, log_large = process.step(t, x_0)
    if variance == "optimal" and isinstance(t, int) and prediction.error is not None:
        # a bin hides small errors, so the decoder's best variance is not that of a density: it keeps the large one
        binned = t == 1 and discretised
        log_var: Coefficient = log_large if binned else process.optimal_log_variance(t, t - 1, prediction.error)
    else:
        log_var = log_variance(variance, log_small, log_large, prediction.var_fraction)
    if isinstance(t, int) and t == 1:
        return _decoder(x_0, prediction.x0, log_var, discretised, present)
    divergence = _sum(Gaussian(at_x_0 * x_0, log_small).kl(Gaussian(at_x_0 * prediction.x0, log_var)), present)
    if isinstance(t, int):
        return divergence
    first = (t == 1).view(-1, *[1] * (x_0.ndim - 1))
    # the decoder of the other rows is computed where it is harmless, for a gradient times 0 must not be NaN
    mean = torch.where(first, prediction.x0, x_0)
    decoder = _decoder(x_0, mean, torch.where(first, log_var, 0.0), discretised, present)
    return torch.where(t == 1, decoder, divergence)


def strata(steps: int, n: int, key: Key) -> dict[int, float]:
    """n of the steps 2..``steps``, one at random from each of n parts, with the sizes of the parts as weights.

    The weighted sum over them is an unbiased estimate of the full sum. The parts grow geometrically, for the terms fall
    about as 1/t: with equal ones nearly all of the error would come from the first. ``key`` has one slot per part,
    and n is in 1..steps - 1.
    """
    edges = [2]
    for i in range(1, n + 1):  # at least one step per part
        edges.append(max(round(2 * ((steps + 1) / 2) ** (i / n)), edges[-1] + 1))
    uniform = randomness.uniform(key).tolist()
    sizes = [end - begin for begin, end in pairwise(edges)]
    return {edges[i] + int(uniform[i] * size): float(size) for i, size in enumerate(sizes)}


def _decoder(x_0: Tensor, mean: Tensor, log_var: Coefficient, discretised: bool, present: Tensor | None) -> Tensor:
    """-log p(x_0 | x_1), in double precision where there is any: far tails lose their gradient in float32."""
    wide = x_0.dtype if x_0.device.type == "mps" else torch.float64
    reverse = Gaussian(mean.to(wide), log_var.to(wide) if isinstance(log_var, Tensor) else log_var)
    x = x_0.to(wide)
    return -_sum(reverse.discretised_log_prob(x) if discretised else reverse.log_prob(x), present).to(x_0.dtype)


def _sum(values: Tensor, present: Tensor | None) -> Tensor:
    return (values if present is None else values * present).flatten(1).sum(1)
