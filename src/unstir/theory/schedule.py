"""How fast the signal fades: abar_t for t = 0..T, and which of those times a sampler visits.

The forward process scales an image by alpha_t = sqrt(abar_t) and adds noise of std sigma_t = sqrt(1 - abar_t), with
abar_t = prod_{s <= t} (1 - beta_s) (Ho et al. 2020, eq. 4). Here t = 0 is clean data, so abar_0 = 1 and every table has
T + 1 entries; there is no "previous" table and no "t minus one".

The table held is log abar in float64. From it 1 - abar = -expm1(log abar) is exact to the last bits even where abar is
nearly one; in float32 its relative error is 1.7e-4. Coefficients are Python floats, cast where they meet a tensor.
"""

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
import torch
from torch import Tensor

from unstir import parts
from unstir.errors import UserError

Coefficient = Tensor | float
BETA_MAX = 0.999  # Nichol & Dhariwal 2021, sec. 3.2: keeps the last steps of a cosine schedule from being singular


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """abar_0..abar_T as a table of logarithms.

    ``log_abar`` is float64 [T+1], starts at exactly 0 and falls strictly; its last entry may be -inf (zero terminal
    SNR). Raises ValueError otherwise. A method of a time t in 0..T (int) returns a float. `gather` and `log_snr` also
    take the times of a batch, int64 [B], and return tensors.
    """

    log_abar: Tensor

    def __post_init__(self) -> None:
        table = self.log_abar
        if table.dtype != torch.float64 or table.ndim != 1 or len(table) < 2:
            raise ValueError(f"log_abar must be float64 [T+1] with T >= 1, not {table.dtype} {list(table.shape)}")
        if table[0] != 0 or not bool((table[1:] < table[:-1]).all()):
            raise ValueError("log_abar must start at 0 (t = 0 is clean data) and fall strictly")

    @property
    def T(self) -> int:  # noqa: N802 - the papers' letter
        """The number of steps of the forward process."""
        return len(self.log_abar) - 1

    @property
    def snr(self) -> Tensor:
        """The signal-to-noise ratio abar_t / (1 - abar_t), float64 [T+1]: +inf at t = 0."""
        return torch.exp(self.log_abar) / torch.expm1(self.log_abar).abs()

    def abar(self, t: int) -> float:
        """abar_t, the share of the variance that is signal."""
        return math.exp(self._log_abar(t))

    def alpha(self, t: int) -> float:
        """alpha_t = sqrt(abar_t), the scale of the image in x_t (a whole product, not one step's 1 - beta_t)."""
        return math.exp(0.5 * self._log_abar(t))

    def sigma(self, t: int) -> float:
        """sigma_t = sqrt(1 - abar_t), the std of the noise in x_t: 0 at t = 0, and at most 1.

        The variance is preserved: alpha_t^2 + sigma_t^2 = 1. Karras et al. 2022 call sigma_t / alpha_t sigma.
        """
        return math.sqrt(-math.expm1(self._log_abar(t)))

    @overload
    def log_snr(self, t: int) -> float: ...
    @overload
    def log_snr(self, t: Tensor) -> Tensor: ...
    def log_snr(self, t: int | Tensor) -> float | Tensor:
        """log( alpha_t^2 / sigma_t^2 ), natural logarithm: +inf at t = 0, -inf at zero terminal SNR.

        Of times int64 [B] it is float32 [B], on their device.
        """
        if isinstance(t, Tensor):
            return self._tables(t.device, torch.float32)[2][t]
        return math.inf if t == 0 else self._log_abar(t) - math.log(-math.expm1(self._log_abar(t)))

    def beta(self, t: int, s: int | None = None) -> float:
        """The variance that the step s -> t adds, 1 - abar_t / abar_s in 0..1; s = t - 1 unless given."""
        s = t - 1 if s is None else s
        if not 0 <= s < t:
            raise ValueError(f"a step goes from s to a later t >= 1; got s={s}, t={t}")
        return -math.expm1(self._log_abar(t) - self._log_abar(s))

    def gather(self, t: int | Tensor, like: Tensor) -> tuple[Coefficient, Coefficient]:
        """(alpha_t, sigma_t), ready to multiply ``like`` [B, ...].

        One int t gives Python floats, exact and without touching the device. int64 [B] gives tensors [B, 1, ...] in
        the dtype and on the device of ``like``, float64 until that cast.
        """
        if isinstance(t, int):
            return self.alpha(t), self.sigma(t)
        alpha, sigma, _ = self._tables(like.device, like.dtype)
        shape = (-1, *[1] * (like.ndim - 1))
        return alpha[t].view(shape), sigma[t].view(shape)

    def _log_abar(self, t: int) -> float:
        if not 0 <= t <= self.T:
            raise ValueError(f"t={t} is outside 0..{self.T}")
        return self._as_floats[t]

    @cached_property
    def _as_floats(self) -> list[float]:
        return [float(value) for value in self.log_abar]

    @cached_property
    def _tables_made(self) -> dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]]:
        return {}

    def _tables(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """alpha, sigma and the log-SNR of the times 0..T."""
        if (device, dtype) not in self._tables_made:
            alpha, sigma = torch.exp(0.5 * self.log_abar), torch.sqrt(-torch.expm1(self.log_abar))
            tables = alpha, sigma, self.snr.log()
            # cast before they are moved: MPS has no float64
            self._tables_made[device, dtype] = tuple(table.to(dtype).to(device) for table in tables)
        return self._tables_made[device, dtype]


def from_betas(betas: Tensor) -> NoiseSchedule:
    """The schedule of given one-step variances beta_1..beta_T, float64 [T], each in (0, 1]; else UserError."""
    if (outside := betas[~((betas > 0) & (betas <= 1))]).numel():
        raise UserError("", f"beta={outside[0]:g}", "is outside (0, 1]", "choose other options of the schedule")
    zero = torch.zeros(1, dtype=torch.float64)
    return NoiseSchedule(torch.cat((zero, torch.log1p(-betas.double()).cumsum(0))))


@parts.schedule
def linear(T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> NoiseSchedule:
    """beta_t rises linearly from beta_1 to beta_T (Ho et al. 2020, sec. 4). The betas are taken literally for any T."""
    _check_steps(T)
    if not 0 < beta_1 <= beta_T < 1:
        raise UserError("beta_1", beta_1, f"and beta_T={beta_T} must satisfy 0 < beta_1 <= beta_T < 1")
    return from_betas(torch.linspace(beta_1, beta_T, T, dtype=torch.float64))


@parts.schedule
def cosine(T: int = 1000, offset: float = 0.008) -> NoiseSchedule:
    """abar_t ~ cos^2( (t/T + offset) / (1 + offset) * pi/2 ), beta clipped to 0.999 and abar recomputed from it.

    Nichol & Dhariwal 2021, eq. 17. At T = 1000 the last abar is 2.4e-9: with eps prediction x_0 must be clamped.
    """
    _check_steps(T)
    time = torch.arange(T + 1, dtype=torch.float64) / T
    return _from_curve(torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2)


@parts.schedule
def sigmoid(T: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> NoiseSchedule:
    """abar falls as a logistic curve between ``start`` and ``end`` at temperature ``tau``, beta clipped to 0.999.

    Jabri, Fleet & Chen 2022, "Scalable adaptive computation for iterative generation".
    """
    _check_steps(T)
    if not start < end or tau <= 0:
        raise UserError("start", start, f"with end={end}, tau={tau} must satisfy start < end and tau > 0")
    time = torch.arange(T + 1, dtype=torch.float64) / T
    curve = torch.sigmoid((time * (end - start) + start) / tau)
    return _from_curve((curve[-1] - curve) / (curve[-1] - curve[0]))


@parts.schedule
def table(T: int, log_abar: str = "") -> NoiseSchedule:
    """The schedule of a table: log abar_0..abar_T as little-endian float64 in base64, which `as_text` writes."""
    try:
        values = np.frombuffer(base64.b64decode(log_abar, validate=True), "<f8")
    except ValueError:
        values = np.empty(0)
    if len(values) != T + 1:
        raise UserError("log_abar", log_abar[:20], f"is no table of T + 1 = {T + 1} numbers in base64")
    return NoiseSchedule(torch.from_numpy(values.astype(np.float64)))


def as_text(schedule: NoiseSchedule) -> str:
    """The option log_abar of `table` for any schedule."""
    return base64.b64encode(schedule.log_abar.cpu().numpy().astype("<f8").tobytes()).decode()


def zero_terminal_snr(schedule: NoiseSchedule) -> NoiseSchedule:
    """The schedule with alpha shifted and scaled so that alpha_T = 0 and alpha_1 stays (Lin et al. 2024, alg. 1).

    x_T is then pure noise, so eps does not determine x_0 there: only x0 and v prediction may be used.
    """
    alpha = torch.exp(0.5 * schedule.log_abar)
    first, last = alpha[1].item(), alpha[-1].item()
    scaled = (alpha - last) * (first / (first - last))
    scaled[0], scaled[-1] = 1.0, 0.0
    return NoiseSchedule(2 * torch.log(scaled))


def _log_snr(schedule: NoiseSchedule, steps: int) -> list[float]:
    last = schedule.T if schedule.abar(schedule.T) > 0 else schedule.T - 1  # zero SNR is visited, but has no logarithm
    start, steps = [float(schedule.T)] * (schedule.T - last), steps - (schedule.T - last)
    values = [schedule.log_snr(t) for t in range(1, last + 1)]  # falling
    wanted = [values[-1] + (values[0] - values[-1]) * i / max(steps - 1, 1) for i in range(steps)]
    return start + [1.0 + min(range(last), key=lambda k: abs(values[k] - value)) for value in wanted]


SPACINGS: dict[str, Callable[[NoiseSchedule, int], list[float]]] = {
    "trailing": lambda schedule, K: [schedule.T * (1 - i / K) for i in range(K)],
    "leading": lambda schedule, K: [schedule.T // K * (K - 1 - i) + 1 for i in range(K)],
    "linspace": lambda schedule, K: [schedule.T - (schedule.T - 1) * i / max(K - 1, 1) for i in range(K)],
    "quadratic": lambda schedule, K: [schedule.T * (1 - i / K) ** 2 for i in range(K)],
    "log_snr": _log_snr,
    "leading_open": lambda schedule, K: [
        min(max(schedule.T // (K + 1), 1) * (K - i) + 1, schedule.T) for i in range(K)
    ],
    # half to even, of times counted from 0
    "linspace_open": lambda schedule, K: [1.0 + round((schedule.T - 1) / K * (K - i)) for i in range(K)],
}


def times(schedule: NoiseSchedule, steps: int, spacing: str = "trailing") -> list[int]:
    """The times a sampler visits, falling from at most T, and 0: steps + 1 entries.

    "trailing" (the default) starts at T, where x_T is the noise that sampling starts from; "leading" never visits T
    unless steps = T; "linspace" visits both T and 1. All three are T, T-1, ..., 0 when steps = T. "quadratic" goes as
    T (1 - i / steps)^2 and "log_snr" in equal steps of the log-SNR between T and 1 (Lu et al. 2022): both crowd
    together near 1, where whole times repeat; repeated ones are visited once, so that there may be fewer steps.
    "leading_open" and "linspace_open" are steps + 1 such times without the last, as diffusers' solvers take them.
    Raises UserError unless 1 <= steps <= T and the spacing is known.
    """
    T = schedule.T
    if not 1 <= steps <= T:
        raise UserError("steps", steps, f"is outside 1..{T}, the times of the chain", {"steps": T})
    if spacing not in SPACINGS:
        raise UserError("spacing", spacing, "is unknown", f"choose one of {', '.join(SPACINGS)}")
    rounded = (max(round(t), 1) for t in SPACINGS[spacing](schedule, steps))
    return [*dict.fromkeys(rounded), 0]


def _from_curve(abar: Tensor) -> NoiseSchedule:
    return from_betas((1 - abar[1:] / abar[:-1]).clamp(max=BETA_MAX))


def _check_steps(T: int) -> None:
    if T < 2:
        raise UserError("T", T, "must be at least 2", "the papers use 1000")
