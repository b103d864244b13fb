"""What training minimises, the simple loss, the variational bound, or both, and at which times.

    simple       w(t) || F(x_t, t) - target ||^2 / D           (Ho et al. 2020, eq. 14, where w = 1; D elements)
    vlb          T L_{t-1}, the bound's term at a random t     (an unbiased estimate of the bound without its prior)
    hybrid       simple + 0.001 vlb                            (Nichol & Dhariwal 2021, eq. 16)

The vlb is in bits per dimension, as in their code. In the hybrid the mean of the reverse step is a constant for it, so
that it trains only the variance. What a run that learns from a teacher minimises is in `paths`.

Other fixed distributions of the times than the even one give a time the probability that a density of lambda = log SNR
(natural logarithm) gives to its stretch of lambda: Hang et al. 2024 ("Improved noise schedule for diffusion training")
take Laplace's of scale 0.5 about 0, where signal and noise are of one size. Karras et al. 2022's log-normal sigma (mean
-1.2, std 1.2 of log sigma) is the normal density with mean 2.4 and std 2.4 of lambda = -2 log sigma.

A tenth of the draws is even over 1..T: a sampler begins at T, which such a density alone would never train. `middles`
are the times at which losses are followed.

Importance sampling (Nichol & Dhariwal 2021, sec. 3.3) draws t with probability p_t ~ sqrt( E[L_t^2] ) of the last ten
losses seen at each t, and weighs the loss by 1 / (T p_t). No t has more than about nine tenths, so that one extreme
loss cannot keep the others from being drawn; that raises the variance by a ninth at most. This table (`LossHistory`) is
the only state of training that depends on history.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unstir import parts, randomness
from unstir.diffusion.denoiser import Conditioned, Denoiser, Prediction, returned
from unstir.diffusion.likelihood import bound_term, dims
from unstir.errors import UserError
from unstir.randomness import Key
from unstir.theory.schedule import NoiseSchedule

EVEN_SHARE = 0.1
REMEMBERED, UNIFORM_SHARE = 10, 0.001
MOST_OF_OTHERS = 9.0  # the greatest root of a time, in sums of all others: nine tenths of the probability


class Losses(NamedTuple):
    """Per image, float [B]: the loss before the weight of its time, mean squared error, T L_{t-1} in bits/dim."""

    total: Tensor
    mse: Tensor
    bits: Tensor | None = None


@dataclass(frozen=True)
class Objective:
    """What is minimised. ``weights`` are those of the squared error by time, float64 [T+1]; None weighs all equally.

    ``kind`` is "simple", "hybrid", "vlb", or a loss of the user's own, which takes ``options``; ``vlb_weight`` is the
    bound's factor in the hybrid.
    """

    kind: str = "simple"
    weights: Tensor | None = None
    vlb_weight: float = 0.001
    options: Mapping[str, Any] = field(default_factory=dict)


SIMPLE = Objective()


def denoising_loss(
    denoiser: Denoiser,
    x_0: Tensor,
    t: Tensor,
    eps: Tensor,
    condition: Tensor | None = None,
    dropout_key: Key | None = None,
    objective: Objective = SIMPLE,
    perturbation: Tensor | None = None,
    present: Tensor | None = None,
) -> Losses:
    """The losses of each image, in the dtype of x_0.

    ``x_0`` [B, C, H, W] in [-1, 1], ``t`` int64 [B] in 1..T, ``eps`` standard normal. Noising and the error keep x_0's
    float32 whatever the network computes in: in bfloat16 abar_t rounds to 1 for t <= 10 of the linear schedule, so that
    x_t would be clean while its target is pure noise. ``perturbation``, shaped like eps, is noise of x_t alone (Ning et
    al. 2023, "Input perturbation reduces exposure bias"). A squared error of 1 is what predicting zero noise costs.
    Where ``present``, bool like x_0, is false a value is missing, x_0 is 0, and it is left out of all means; the
    decoder's term of the bound is then that of a density, without bins.
    """
    if parts.is_own(objective.kind):
        return _own_loss(Conditioned(denoiser, condition, dropout_key), x_0, t, eps, objective, present)
    schedule = denoiser.process.schedule
    x_t = denoiser.process.diffuse(x_0, t, eps if perturbation is None else eps + perturbation)
    prediction = denoiser(x_t, t, condition, dropout_key)
    mse = squared_error(denoiser, prediction, x_0, t, eps, present)
    simple = mse if objective.weights is None else objective.weights.to(mse)[t] * mse
    if objective.kind == "simple":
        return Losses(simple, mse)
    if objective.kind == "hybrid":
        prediction = replace(prediction, x0=prediction.x0.detach())
    variance = "learned" if denoiser.learned_variance else "large"
    nats = bound_term(prediction, denoiser.process, x_0, t, variance, present is None, present)
    bits = nats * (schedule.T / (dims(x_0, present) * math.log(2)))
    return Losses(bits if objective.kind == "vlb" else simple + objective.vlb_weight * bits, mse, bits)


def _own_loss(
    denoise: Conditioned, x_0: Tensor, t: Tensor, eps: Tensor, objective: Objective, present: Tensor | None
) -> Losses:
    """What a loss of the user's own gives; UserError where that is not one number for each image."""
    name, section = objective.kind, "loss.objective_options"
    total = parts.make("loss", name, denoise, x_0, t, eps, options=objective.options, section=section, present=present)
    if returned(total) != returned(t) or total.dtype != x_0.dtype:
        given = f"returns {returned(total)} of {getattr(total, 'dtype', 'no numbers')}"
        due = f"{given}, not {list(t.shape)} of {x_0.dtype}"
        raise UserError("loss.objective", name, due, "return the loss of each image: loss.flatten(1).mean(1)")
    return Losses(total, total)


def squared_error(
    denoiser: Denoiser, prediction: Prediction, x_0: Tensor, t: int | Tensor, eps: Tensor, present: Tensor | None = None
) -> Tensor:
    """|| F - target ||^2 / D of a prediction for each image, float [B]; arguments as those of `denoising_loss`."""
    target = denoiser.parameterization.target(denoiser.process.schedule, x_0, t, eps)
    return _mean((prediction.raw - target).square(), present)


def _mean(values: Tensor, present: Tensor | None) -> Tensor:
    """The mean over the values of each image that are there: [B, C, H, W] to [B]; 0 of none."""
    if present is None:
        return values.flatten(1).mean(1)
    return (values * present).flatten(1).sum(1) / dims(values, present)


def nearest_noise(key: Key, x_0: Tensor, choices: int = 1) -> Tensor:
    """Standard normal noise for each of ``x_0`` [B, C, H, W], float32: of ``choices`` drawn, the one at least distance.

    Pairs of near image and noise cross less on their way to each other, so that less is left to average over (Li et al.
    2025, "Improved immiscible diffusion"). A pair depends on the image and the key of its slot alone.
    """
    drawn = randomness.normal(key, (choices, *x_0.shape[1:]))
    nearest = (drawn - x_0[:, None]).square().flatten(2).sum(2).argmin(1)
    return drawn[torch.arange(len(x_0), device=x_0.device), nearest]


@parts.times
def uniform(schedule: NoiseSchedule) -> Tensor:
    """p_t = 1 / T."""
    return torch.full((schedule.T,), 1 / schedule.T, dtype=torch.float64)


@parts.times
def importance(schedule: NoiseSchedule) -> Tensor:
    """p_t before any loss was seen, 1 / T; then `LossHistory` says, and its weights undo that."""
    return uniform(schedule)


@parts.times
def laplace(schedule: NoiseSchedule, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    """p_t by the density exp(-|lambda - mean| / scale) of the log-SNR; UserError outside -100..100, 0.01..100."""
    return _by_density(schedule, mean, scale, lambda away: -away.abs())


@parts.times
def normal(schedule: NoiseSchedule, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    """p_t by the normal density of the log-SNR, in nats, with std ``scale``; errors as `laplace`."""
    return _by_density(schedule, mean, scale, lambda away: -away.square() / 2)


def _by_density(schedule: NoiseSchedule, mean: float, scale: float, log_of: Callable[[Tensor], Tensor]) -> Tensor:
    """The stretch of a time is half the way to its neighbours; T is like its neighbour where lambda_T = -inf."""
    for name, value, least in (("mean", mean, -100), ("scale", scale, 0.01)):
        if not least <= value <= 100:
            raise UserError(name, value, f"must be {least} to 100", {name: 0.0 if name == "mean" else 0.5})
    last = schedule.T if schedule.abar(schedule.T) > 0 else schedule.T - 1
    log_snr = torch.tensor([schedule.log_snr(t) for t in range(1, last + 1)], dtype=torch.float64)
    log_density = log_of((log_snr - mean) / scale)
    log_mass = log_density + (-torch.gradient(log_snr)[0]).log() if last > 1 else log_density
    p = torch.cat((log_mass, log_mass[last - 1 :].expand(schedule.T - last))).softmax(0)
    return (1 - EVEN_SHARE) * p + EVEN_SHARE / schedule.T


def probabilities(
    name: str, schedule: NoiseSchedule, options: Mapping[str, parts.Option] = MappingProxyType({})
) -> Tensor:
    """p_t of times 1..T, float64 [T], ours or MODULE:NAME's. UserError as `parts.make`, or for no such numbers."""
    p = parts.make("times", name, schedule, options=options, section="times_options")
    if not isinstance(p, Tensor) or p.shape != (schedule.T,):
        raise UserError("times", name, f"must return a tensor of T = {schedule.T} numbers")
    if not (bool((p >= 0).all() and p.isfinite().all()) and p.sum() > 0):
        raise UserError("times", name, "gives probabilities that are negative, not finite, or all 0")
    return p.double()


@dataclass(frozen=True, eq=False)
class TimeTable:
    """Draws times with given probabilities: ``p`` float64 (float32 on MPS) [T], of the times 1..T."""

    p: Tensor

    def draw(self, key: Key) -> Tensor:
        """The time, int64 [B], at which the probabilities from t = 1 on exceed each slot's number in [0, 1)."""
        edges = running_sums(self.p)
        shares = randomness.uniform(key, self.p.dtype)
        return torch.searchsorted(edges, shares * edges[-1], right=True).clamp(max=len(self.p) - 1) + 1


def running_sums(values: Tensor) -> Tensor:
    """The sums of the first 1..n of ``values`` [n], by doubling: the same bits each time, unlike cumsum's on CUDA."""
    reach = 1
    while reach < len(values):
        values = torch.cat((values[:reach], values[reach:] + values[:-reach]))
        reach *= 2
    return values


def middles(T: int, num: int) -> tuple[int, ...]:
    """The middle of each of ``num`` equal parts of 1..T, the lower of two, rising; every time where num >= T."""
    num = min(num, T)
    return tuple(-(-(2 * k + 1) * T // (2 * num)) for k in range(num))


@dataclass
class LossHistory:
    """The last losses at each time 1..T: ``losses`` float32 [T, 10], rings, ``counts`` int64 [T]; on their device."""

    losses: Tensor
    counts: Tensor

    @classmethod
    def empty(cls, T: int, device: torch.device) -> "LossHistory":
        """A history in which nothing has been seen."""
        return cls(torch.zeros(T, REMEMBERED, device=device), torch.zeros(T, dtype=torch.int64, device=device))

    def probabilities(self) -> Tensor:
        """p_t of the times 1..T: float32 [T], all equal until each was seen ten times."""
        T, tiny = len(self.counts), torch.finfo(torch.float32).tiny
        # Any loss that float32 holds may be squared: each row is divided by its greatest, all roots by the greatest.
        most = self.losses.abs().amax(1, keepdim=True).clamp(min=tiny)
        root = (self.losses / most).square().mean(1).sqrt() * (most[:, 0] / most.max())
        others = root.scatter(0, root.argmax(0, keepdim=True), 0.0).sum()
        root = root.clamp(max=MOST_OF_OTHERS * others)
        share = root / root.sum().clamp(min=tiny)
        learned = share * (1 - UNIFORM_SHARE) + UNIFORM_SHARE / T
        ready = (self.counts >= REMEMBERED).all() & (root.sum() > 0)
        return torch.where(ready, learned, torch.full_like(learned, 1 / T))

    def draw(self, key: Key) -> tuple[Tensor, Tensor]:
        """(t, weight) per slot: times in 1..T, int64 [B], and the factors 1 / (T p_t) of their losses, float32 [B]."""
        p = self.probabilities()
        wide = torch.float32 if p.device.type == "mps" else torch.float64  # so that rare times are not rounded away
        t = TimeTable(p.to(wide)).draw(key)
        return t, 1 / (len(p) * p[t - 1])

    def record(self, t: Tensor, losses: Tensor, applied: Tensor) -> None:
        """Record the losses [B] of a step at times ``t`` [B], if finite, in the batch's order, if ``applied``."""
        taken = applied & losses.isfinite()
        same = (t[:, None] == t[None, :]) & taken
        before, after = same.tril(-1).sum(1), same.triu(1).sum(1)
        row = t - 1
        place = (self.counts[row] + before) % REMEMBERED
        kept = taken & (after < REMEMBERED)
        # What is not to be kept goes to a row of its own, so that every other entry is written once, in any order.
        spare = torch.cat((self.losses, self.losses.new_zeros(1, REMEMBERED)))
        spare[torch.where(kept, row, len(self.losses)), place] = losses.to(spare.dtype)
        self.losses.copy_(spare[:-1])
        self.counts.index_add_(0, row, taken.long())
