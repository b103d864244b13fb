"""The simple loss (Ho et al. 2020, eq. 14): the squared error of what the network predicts."""

from torch import Tensor

from unstir.diffusion.denoiser import Denoiser
from unstir.randomness import Key


def denoising_loss(
    denoiser: Denoiser,
    x_0: Tensor,
    t: Tensor,
    eps: Tensor,
    label: Tensor | None = None,
    dropout_key: Key | None = None,
) -> Tensor:
    """|| F(x_t, t) - target ||^2 averaged over the elements of each image: float [B], in the dtype of x_0.

    ``x_0`` [B, C, H, W] in [-1, 1], ``t`` int64 [B] in 1..T, ``eps`` standard normal. Noising and the error keep x_0's
    float32 whatever the network computes in: in bfloat16 abar_t rounds to 1 for t <= 10, so that x_t would be clean
    while its target is pure noise. An error of 1 is what predicting zero noise everywhere costs.
    """
    schedule = denoiser.process.schedule
    x_t = denoiser.process.diffuse(x_0, t, eps)
    target = denoiser.parameterization.target(schedule, x_0, t, eps)
    return (denoiser.raw(x_t, t, label, dropout_key) - target).square().flatten(1).mean(1)
