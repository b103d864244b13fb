"""Edits of given images with a trained model, all through its samplers and without training.

`inpaint`   the chain, with what is known put back at every step (RePaint: Lugmayr et al. 2022)
`vary`      noise on the image, and the chain back from there (SDEdit: Meng et al. 2022)
`invert`    DDIM backwards, from an image to the noise that DDIM turns into it (Song, Meng & Ermon 2021, sec. 5.4)
`between`   two noises, such as those of two images inverted, joined by `slerp`, and DDIM from there
`mixed`     two denoisers as one between them, such as one network with two labels

Images are [B, C, H, W], about [-1, 1]. The first four yield Steps, as a sampler does.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from unstir.chain import Chain
from unstir.diffusion.denoiser import Denoise, Prediction
from unstir.diffusion.draw import draw, starting_noise
from unstir.diffusion.samplers import Step
from unstir.diffusion.samplers.ancestral import reverse_step
from unstir.diffusion.samplers.ddim import ddim
from unstir.errors import UserError
from unstir.theory.process import Process

InpaintNoise = Callable[[str, int, int], Tensor]
"""(use, t, repeat) -> fresh standard normal noise [B, C, H, W]; the same arguments always give the same noise.

``use`` is "step" (the reverse step that leaves time t), "known" (the known pixels diffused to time t) or "back" (all
pixels diffused back to time t); ``repeat`` counts the visits to this part of the chain from 0. No two may share noise.
"""


def inpaint(
    denoise: Denoise,
    process: Process,
    image: Tensor,
    mask: Tensor,
    x_T: Tensor,
    times: Sequence[int],
    noise: InpaintNoise,
    *,
    resamples: int = 10,
    jump: int = 1,
    variance: str = "auto",
) -> Iterator[Step]:
    """Fill in what ``mask`` does not keep (Lugmayr et al. 2022, alg. 1); yields a Step per network call.

    ``mask`` is bool [B or 1, 1 or C, H, W], True where ``image`` [B, C, H, W] is kept; in the last x it is kept
    exactly. At each step the unknown pixels take a step of `ancestral`, with its ``variance``, and the known ones are
    diffused from the image to the same time, independently of each other. To make them agree, each ``jump`` steps are
    taken ``resamples`` times (their U or r, and j), with all pixels diffused back in between; the step onto the image
    is taken once. Raises as `ancestral` does.
    """
    x, every_time = x_T, len(times) == process.T + 1

    def of_step(repeat: int, t: int) -> Tensor:
        return noise("step", t, repeat)

    for block, visits in _blocks(times, resamples, jump):
        first, last = block[0][0], block[-1][1]
        for repeat in range(visits):
            if repeat > 0:
                x = process.one_step(x, first, last).sample(noise("back", first, repeat))
            for t, s in block:
                prediction = denoise(x, t)
                made = reverse_step(process, x, t, s, prediction, partial(of_step, repeat), variance, every_time)
                known = process.diffuse(image, s, noise("known", s, repeat)) if s > 0 else image
                x = torch.where(mask, known, made)
                yield Step(s, x, prediction.x0)


def inpainting_calls(steps: int, resamples: int = 10, jump: int = 1) -> int:
    """The network calls per image that `inpaint` makes over ``steps`` steps: all but the last are taken again."""
    return sum(len(block) * visits for block, visits in _blocks(range(steps, -1, -1), resamples, jump))


def below(process: Process, strength: float, chain: Chain) -> tuple[Process, Chain]:
    """The process ended at the time that `vary` diffuses to, its times unchanged, and the chain cut to fit below it.

    That time is round(strength T) and at least 1. Raises UserError for a strength outside (0, 1], and for a chain that
    no strength would allow.
    """
    if not 0 < strength <= 1:
        raise UserError("strength", strength, "is outside (0, 1]: near 0 the image stays, at 1 it is lost", "try 0.6")
    start = max(1, round(strength * process.T))
    chain.check(process.T)
    lower, steps = tuple(t for t in chain.times if t < start), min(chain.steps, start)
    given: dict[str, Any] = {"times": (start, *lower)} if lower else {"steps": steps, "spacing": chain.spacing}
    chain = replace(chain.changed(**given), guidance_high=min(chain.guidance_high, start))
    if chain.guidance_low > start:  # guidance would end before the chain begins
        chain = chain.changed(guidance=1.0)
    return process.respaced(range(start, -1, -1)), chain


def vary(
    denoise: Denoise,
    process: Process,
    image: Tensor,
    strength: float,
    indices: Tensor,
    chain: Chain,
    weak: Denoise | None = None,
) -> Iterator[Step]:
    """Diffuse ``image`` to time round(strength T) and `draw` from there (Meng et al. 2022, alg. 1): variants of it.

    ``strength`` is in (0, 1]; ``image`` is [B or 1, C, H, W]; ``indices`` int64 [B] name the images drawn, whose noise
    is that of `draw`: at strength 1 they are nearly those of `draw`. The ``chain`` visits its number of times below
    that one, or as many as there are. Raises as `below` and `draw` do.
    """
    part, chain = below(process, strength, chain)
    eps = starting_noise(chain.seed, indices, tuple(image.shape[1:])).to(image)
    x = process.diffuse(image, chain.visited(part.schedule)[0], eps)
    return draw(denoise, part, x, indices, chain, weak)


def invert(
    denoise: Denoise, process: Process, image: Tensor, times: Sequence[int], refinements: int = 0
) -> Iterator[Step]:
    """DDIM backwards: a Step for each of ``times[1:]``, up to the noise x_T that `ddim` turns into ``image``.

    ``times`` rise strictly from 0 to at most T. The step s -> t wants the estimate at x_t, which is not known yet, and
    takes the one at x_s instead, an error of first order in the step's length. (The network has no time 0: there it
    receives the next time.) Each of ``refinements`` puts the x_t found into the estimate and solves again: one order
    more, and in the limit the exact inverse of DDIM's step. It keeps the estimate of the noise where the signal is
    stronger than the noise, and that of the image elsewhere; the other choice may not converge. Where an image's x_t
    moves farther than the time before, the step is too long for either, and what was found is kept.

    What is inverted is `ddim` with this very ``denoise``: clamp in both or in neither.
    """
    x = image
    for s, t in pairwise(times):
        network_t = s if s > 0 else t
        x0 = denoise(x, network_t).x0
        x_t = _ahead(process, x, process.eps(x, x0, network_t), s, t)
        before = torch.full((len(x),), math.inf, device=x.device)
        for _ in range(refinements):
            x0 = denoise(x_t, t).x0
            refined = _ahead(process, x, _noise_of_step(process, x, x_t, x0, s, t), s, t)
            moved = (refined - x_t).flatten(1).norm(dim=1)
            nearer = moved < before
            x_t = torch.where(nearer.view(-1, *[1] * (x.ndim - 1)), refined, x_t)
            before = moved.where(nearer, 0)
        x = x_t
        yield Step(t, x, x0)


def slerp(a: Tensor, b: Tensor, weight: float | Tensor) -> Tensor:
    """From noise ``a`` at weight 0 to noise ``b`` at weight 1 along the arc between them, image by image: [B, C, H, W].

    A straight line would pass through vectors that are too short to be noise. ``a`` and ``b`` are [B or 1, C, H, W],
    ``weight`` a number or [B]. Ends are exact; between noises of one norm it stays that norm. Where the two are
    parallel or opposite, to within sqrt(rounding), no arc is preferred, and the line is taken.
    """
    shape = (-1, *[1] * (a.ndim - 1))
    w = torch.as_tensor(weight, dtype=a.dtype, device=a.device).reshape(shape)
    one, other = (x.flatten(1) / x.flatten(1).norm(dim=1, keepdim=True) for x in (a, b))
    # the arc tangent is accurate for every angle, the arc cosine is not (Kahan 2006, sec. 12)
    angle = 2 * torch.atan2((one - other).norm(dim=1), (one + other).norm(dim=1)).view(shape)
    flat = ~(angle.sin() > torch.finfo(a.dtype).eps ** 0.5)  # also where a noise is zero and the angle is not a number
    angle = angle.where(~flat, 1.0)
    at_a, at_b = (torch.sin(share * angle) / torch.sin(angle) for share in (1 - w, w))
    return torch.where(flat, 1 - w, at_a) * a + torch.where(flat, w, at_b) * b


def between(
    denoises: tuple[Denoise, Denoise],
    process: Process,
    noises: tuple[Tensor, Tensor],
    weight: float | Tensor,
    times: Sequence[int],
) -> Iterator[Step]:
    """The Steps of `ddim` to images between two: what lies between their ``noises`` [B or 1, C, H, W] is drawn.

    ``weight`` is a number or [B], 0 the first and 1 the second; ``times`` fall to 0 as a sampler's. Each image has its
    own of the ``denoises``, which may be one; they are `mixed`.
    """
    x_T = slerp(*noises, weight)
    yield from ddim(mixed(*denoises, weight), process, x_T, times, lambda _: torch.zeros_like(x_T))


def mixed(first: Denoise, second: Denoise, weight: float | Tensor) -> Denoise:
    """The denoiser that estimates (1 - weight) of the first's estimate and weight of the second's; a number or [B].

    Both are of one model but for their conditions, so this is the score of the two densities' weighted geometric mean,
    time by time.
    """
    if first is second:
        return first

    def mixed_denoise(x_t: Tensor, t: int | Tensor) -> Prediction:
        w = torch.as_tensor(weight, dtype=x_t.dtype, device=x_t.device).reshape(-1, *[1] * (x_t.ndim - 1))
        one, other = first(x_t, t), second(x_t, t)
        between = {name: (1 - w) * getattr(one, name) + w * getattr(other, name) for name in ("x0", "raw")}
        if one.var_fraction is not None and other.var_fraction is not None:
            between["var_fraction"] = (1 - w) * one.var_fraction + w * other.var_fraction
        return Prediction(**between)

    return mixed_denoise


def _blocks(times: Sequence[int], resamples: int, jump: int) -> list[tuple[list[tuple[int, int]], int]]:
    """The chain's steps (t, s) in parts of ``jump`` steps, the last step by itself, each with how often it is taken."""
    steps = list(pairwise(times))
    inner = [(steps[i : min(i + jump, len(steps) - 1)], resamples) for i in range(0, len(steps) - 1, jump)]
    return [*inner, (steps[-1:], 1)]


def _ahead(process: Process, x_s: Tensor, eps: Tensor, s: int, t: int) -> Tensor:
    """x_t of the image and the noise eps that x_s consists of."""
    alpha, sigma = process.schedule.alpha, process.schedule.sigma
    ratio = alpha(t) / alpha(s)
    return ratio * x_s + (sigma(t) - ratio * sigma(s)) * eps


def _noise_of_step(process: Process, x_s: Tensor, x_t: Tensor, x0: Tensor, s: int, t: int) -> Tensor:
    """The noise in x_t, or in x_s, if the image is ``x0``: in that of the two from which a fixed point attracts."""
    table = process.schedule
    if s == 0 or table.log_snr(s) + table.log_snr(t) > 0:
        return process.eps(x_t, x0, t)
    return process.eps(x_s, x0, s)
