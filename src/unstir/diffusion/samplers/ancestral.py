"""Ancestral sampling, the reverse chain of Ho et al. 2020 (algorithm 2), over all T times or any falling subset.

Each step draws x_s ~ N( mean of q(x_s | x_t, x_0_hat), variance ). With x_0_hat = (x_t - sigma_t eps_hat) / alpha_t and
s = t - 1 the mean is 1/sqrt(1 - beta_t) ( x_t - beta_t / sigma_t eps_hat ); the form used here stays right when x_0_hat
has been clamped. The variance is one of `theory.parameterization`, of the stride. Ho et al. use the large one with all
T steps, where it is the better of the fixed two; with strides it hands the network states noisier than any it was
trained on, so the small one is the default there. A learned one is right for both, and so is the optimal one.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from unstir import parts
from unstir.diffusion.denoiser import Denoise, Prediction
from unstir.diffusion.samplers import Noise, Step
from unstir.theory.parameterization import check_variance, chosen_variance, log_variance
from unstir.theory.process import Gaussian, Process


@parts.sampler
def ancestral(
    denoise: Denoise, process: Process, x_T: Tensor, times: Sequence[int], noise: Noise, variance: str = "auto"
) -> Iterator[Step]:
    """Yield a Step for each of ``times[1:]``, starting from ``x_T`` [B, C, H, W] at ``times[0]``.

    ``times`` fall strictly, usually to 0; a step to 0 adds no noise. ``variance`` is "small", "large", "learned",
    "optimal" or "auto" (`chosen_variance`). Raises UserError as `check_variance`.
    """
    x, every_time = x_T, len(times) == process.T + 1
    for t, s in pairwise(times):
        prediction = denoise(x, t)
        x = reverse_step(process, x, t, s, prediction, noise, variance, every_time)
        yield Step(s, x, prediction.x0)


def reverse_step(
    process: Process, x: Tensor, t: int, s: int, prediction: Prediction, noise: Noise, variance: str, every_time: bool
) -> Tensor:
    """x_s drawn from x_t [B, C, H, W] and what was predicted of it, 0 <= s < t; to s = 0 no noise is added.

    ``every_time`` is whether the chain visits all T times, which decides what "auto" is. Errors as `check_variance`.
    """
    learned = prediction.var_fraction is not None
    check_variance(variance, learned, prediction.error is not None)
    at_x_t, at_x_0, _ = process.posterior_coefficients(t, s)
    mean = at_x_t * x + at_x_0 * prediction.x0
    if s == 0:
        return mean
    kind = chosen_variance(variance, learned, every_time)
    if kind == "optimal" and prediction.error is not None:
        return Gaussian(mean, process.optimal_log_variance(t, s, prediction.error)).sample(noise(t))
    return Gaussian(mean, log_variance(kind, *process.log_variances(t, s), prediction.var_fraction)).sample(noise(t))
