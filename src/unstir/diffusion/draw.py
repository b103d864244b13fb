"""From seeds to images: the starting noise of each image, its noise at each step, and the chain.

Image number i is a function of (seed, i) and the settings, whatever batch it is computed in.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from unstir import parts, randomness
from unstir.chain import Chain, facts_of
from unstir.diffusion.denoiser import Denoise, clipped, finite, thresholded
from unstir.diffusion.guidance import guided
from unstir.diffusion.samplers import Step
from unstir.errors import UserError
from unstir.pixels import to_uint8
from unstir.randomness import Key
from unstir.theory.process import Process


def starting_noise(seed: int, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
    """x_T of the images with these indices, int64 [B]: standard normal, float32 [B, *shape]."""
    return randomness.normal(Key(seed, "start", 0, indices), shape)


def steered(
    denoise: Denoise, chain: Chain, process: Process, weak: Denoise | None = None, indices: Tensor | None = None
) -> Denoise:
    """The denoiser with the chain's options: guided away from ``weak``, `finite` of these images, then clamped.

    Raises UserError for guidance without a weak one.
    """
    if chain.guidance != 1:
        if weak is None:
            needs = "needs a network trained with train.condition_dropout, or a weaker one as guide"
            raise UserError("guidance", chain.guidance, needs, {"guidance": 1})
        denoise = guided(denoise, weak, chain.guidance, chain.guidance_low, chain.guidance_high or process.T)
    denoise = finite(denoise, indices)
    if not chain.clip:
        return denoise
    return thresholded(denoise, chain.threshold) if chain.threshold else clipped(denoise)


@torch.no_grad()
def drawn_images(
    denoise: Denoise, process: Process, shape: tuple[int, ...], num: int, chain: Chain, batch_size: int = 64
) -> Iterator[Tensor]:
    """Yield ``num`` images of any denoiser, by batches, as pixels: uint8 [b, *shape]. Errors as `draw`."""
    for indices in torch.split(torch.arange(num), batch_size):
        images = x_T = starting_noise(chain.seed, indices, shape)
        for step in draw(denoise, process, x_T, indices, chain):
            images = step.x
        yield to_uint8(images)


def draw(
    denoise: Denoise, process: Process, x_T: Tensor, indices: Tensor, chain: Chain, weak: Denoise | None = None
) -> Iterator[Step]:
    """Yield the steps from noise ``x_T`` [B, C, H, W] to images; ``indices`` int64 [B] name the images.

    The last step's ``x`` are the images, about [-1, 1]. ``weak`` is what guidance leads away from. Raises UserError for
    settings that `Chain.visited` refuses and for guidance without a weak denoiser, NotFiniteError as `finite`.
    """
    visited = chain.visited(process.schedule)
    shape = tuple(x_T.shape[1:])

    def noise(t: int) -> Tensor:
        return randomness.normal(Key(chain.seed, "sample", t, indices), shape).to(x_T.dtype)

    denoise = steered(denoise, chain, process, weak, indices)
    options = chain.options | {name: getattr(chain, name) for name in facts_of(chain.sampler).options}
    steps = partial(parts.find("sampler", chain.sampler), denoise, process, x_T, visited, noise, **options)
    return _checked(steps, chain.sampler, visited[-1]) if parts.is_own(chain.sampler) else steps()


def _checked(steps: Callable[[], Iterator[Step]], sampler: str, end: int) -> Iterator[Step]:
    """The steps of a sampler of the user's own; UserError where it fails, or its last one is not at t = ``end``."""
    step = None
    with parts.guarded("sampler", sampler):
        for step in steps():
            if not isinstance(step, Step):
                raise UserError("sampler", sampler, f"yields a {type(step).__name__}", "yield Step(t, x, x0)")
            yield step
    if step is None or step.t != end:
        ends = "has no steps" if step is None else f"ends at t={step.t}, not at {end}"
        raise UserError("sampler", sampler, ends, "yield Step(times[-1], x, x0) last")
