"""Ancestral sampling, the reverse chain of Ho et al. 2020 (algorithm 2), over all T times or any falling subset.

Each step draws x_s ~ N( mean of q(x_s | x_t, x_0_hat), variance ). With x_0_hat = (x_t - sigma_t eps_hat) / alpha_t and
s = t - 1 the mean is 1/sqrt(1 - beta_t) ( x_t - beta_t / sigma_t eps_hat ); the form used here stays right when x_0_hat
has been clamped. The variance is one of `theory.variance`, of the stride. Ho et al. use the large one with all T
steps, where it is the better of the fixed two; with strides it hands the network states noisier than any it was
trained on, so the small one is the default there. A learned one is right for both.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from unstir.diffusion.denoiser import Denoise
from unstir.diffusion.samplers.step import Noise, Step, check_times
from unstir.errors import UserError
from unstir.theory.gaussian import Gaussian
from unstir.theory.process import Process
from unstir.theory.variance import VARIANCES, log_variance


def ancestral(
    denoise: Denoise, process: Process, x_T: Tensor, times: Sequence[int], noise: Noise, variance: str = "auto"
) -> Iterator[Step]:
    """Yield a Step for each of ``times[1:]``, starting from ``x_T`` [B, C, H, W] at ``times[0]``.

    ``times`` fall strictly and end at 0; the last step adds no noise. ``variance`` is "small", "large", "learned", or
    "auto": learned where the denoiser has learned it, else large when the chain visits every time, else small. Raises
    UserError for another name or for "learned" of a denoiser that has not, ValueError for times that do not fall to 0.
    """
    check_times(times, process)
    if variance not in ("auto", *VARIANCES):
        raise UserError(f"variance={variance!r} is unknown; choose one of auto, {', '.join(VARIANCES)}")
    fixed = "large" if len(times) == process.T + 1 else "small"
    x = x_T
    for t, s in pairwise(times):
        prediction = denoise(x, t)
        if variance == "learned" and prediction.var_fraction is None:
            raise UserError(
                'variance="learned" was asked of a network that has not learned it; use auto, small or large'
            )
        kind = variance if variance != "auto" else fixed if prediction.var_fraction is None else "learned"
        at_x_t, at_x_0, _ = process.posterior_coefficients(t, s)
        x = at_x_t * x + at_x_0 * prediction.x0
        if s > 0:
            log_var = log_variance(kind, *process.log_variances(t, s), prediction.var_fraction)
            x = Gaussian(x, log_var).sample(noise(t))
        yield Step(s, x, prediction.x0)
