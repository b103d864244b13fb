"""What the network predicts: the noise, the image, or the velocity.

Each is a pair (c_skip, c_out) that turns the network's output F into an estimate of the clean image,

    x_0_hat = c_skip x_t + c_out F            target = (x_0 - c_skip x_t) / c_out

eps: F estimates the noise (Ho et al. 2020); x0: the image; v: alpha eps - sigma x_0 (Salimans & Ho 2022). A loss
compares F with its target, so it never divides an error by sigma.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from unstir.errors import UserError
from unstir.theory.schedule import Coefficient, NoiseSchedule

LEAST = 1e-30
"""The least alpha_T that eps is predicted with: x_T / alpha_T is then far below the largest float32 number, 3e38."""

OfSchedule = Callable[[Coefficient, Coefficient], Coefficient]  # a function of (alpha_t, sigma_t)


@dataclass(frozen=True)
class Parameterization:
    """One choice of prediction: ``c_skip`` and ``c_out`` as functions of (alpha_t, sigma_t), and its target."""

    name: str
    c_skip: OfSchedule
    c_out: OfSchedule
    _target: Callable[[Coefficient, Coefficient, Tensor, Tensor], Tensor]

    def x0(self, schedule: NoiseSchedule, x_t: Tensor, t: int | Tensor, raw: Tensor) -> Tensor:
        """x_0_hat = c_skip x_t + c_out F, shaped like x_t; ``raw`` is the network's output F."""
        alpha, sigma = schedule.gather(t, x_t)
        return self.c_skip(alpha, sigma) * x_t + self.c_out(alpha, sigma) * raw

    def target(self, schedule: NoiseSchedule, x_0: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
        """What F should be for x_t = alpha_t x_0 + sigma_t eps: shaped like x_0, written without a division."""
        alpha, sigma = schedule.gather(t, x_0)
        return self._target(alpha, sigma, x_0, eps)

    def check(self, schedule: NoiseSchedule) -> None:
        """Raise UserError where the pair is undefined or no float32 number: eps, for an alpha_T below `LEAST`."""
        if self.name != "eps" or (last := schedule.alpha(schedule.T)) >= LEAST:
            return
        small = f"{last:.1e}, too small for float32 numbers" if last else "0"
        raise UserError("predict", self.name, f"divides by alpha_T, which is {small}", {"predict": "v"})


PARAMETERIZATIONS = {
    "eps": Parameterization(
        "eps", lambda alpha, sigma: 1 / alpha, lambda alpha, sigma: -sigma / alpha, lambda alpha, sigma, x_0, eps: eps
    ),
    "x0": Parameterization(
        "x0", lambda alpha, sigma: 0.0, lambda alpha, sigma: 1.0, lambda alpha, sigma, x_0, eps: x_0
    ),
    "v": Parameterization(
        "v",
        lambda alpha, sigma: alpha,
        lambda alpha, sigma: -sigma,
        lambda alpha, sigma, x_0, eps: alpha * eps - sigma * x_0,
    ),
}
