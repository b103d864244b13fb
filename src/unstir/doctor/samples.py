"""Checks of the images that a run draws: wrong colours, saturation, images all alike, empty, or still noise.

Each compares samples with real images of the same classes, image by image, so that the spread between images gives the
error of the comparison; and each requires a difference that can be seen as well as one that is decided.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from unstir.doctor.facts import RunFacts, Samples
from unstir.doctor.finding import Finding, check, compared
from unstir.doctor.numbers import times

# Thresholds; docs/doctor.md has what trained runs measure.
BRIGHTER = 0.15  # of the standard deviation of the data's values: a shift of the mean that can be seen
TINTED = 0.05  # of the same, for a channel against the mean of the channels
SATURATED = 0.10  # more of all values than the data has at 0 or 255
ALIKE = 0.5  # of the data's variance between images
EMPTY = 0.4  # of the data's contrast within an image
NOISY = 1.6  # times the data's noise level
GRAIN = 2.0  # levels of 255 by which the noise must exceed the data's too: data as smooth as drawings has hardly any


@check("brightness")
def brightness(facts: RunFacts, samples: Samples) -> Iterator[Finding]:
    """Samples lighter or darker than the data, by the means of images over all values."""
    made, real = (images.double().flatten(1).mean(1) for images in (samples.made, samples.real))
    found, most = compared(real, made), BRIGHTER * _std(samples.real)
    gap = abs(found.value)
    if gap > most and found.decided:
        yield _finding(
            facts,
            f"the mean of their values is {made.mean():.1f}, the data's {real.mean():.1f}: {gap:.1f} levels of 255 "
            f"({abs(found.errors):.0f} standard errors; {samples.chain}); at most {most:.1f} is usual",
            "train for longer (--train.length); if x_T keeps signal (see signal-left), use --diffusion.schedule cosine "
            "or a T of 1000 in a new run",
            gap,
            most,
            f"samples are {'lighter' if found.value > 0 else 'darker'} than the data",
        )


@check("tint")
def tint(facts: RunFacts, samples: Samples) -> Iterator[Finding]:
    """A channel of the samples that stands out of their own grey by more than the data's does."""
    if samples.made.shape[1] == 1:
        return
    made, real = (_colours(images) for images in (samples.made, samples.real))
    gaps = [compared(real[:, c], made[:, c], choices=made.shape[1]) for c in range(made.shape[1])]
    channel = max(range(len(gaps)), key=lambda c: abs(gaps[c].value))
    found, most = gaps[channel], TINTED * _std(samples.real)
    if abs(found.value) > most and found.decided:
        name = ("red", "green", "blue")[channel]
        yield _finding(
            facts,
            f"against the mean of the channels {name} is {made[:, channel].mean():+.1f} levels of 255, in the data "
            f"{real[:, channel].mean():+.1f} ({abs(found.errors):.0f} standard errors; {samples.chain}); a difference "
            f"of at most {most:.1f} is usual",
            "the averaged weights often lag where the colour is far off: try unstir sample --no-ema, and train for "
            "longer (--train.length) or with a faster average (--train.ema_decay 0.999)",
            abs(found.value),
            most,
            f"samples have {'too much' if found.value > 0 else 'too little'} {name}",
        )


@check("saturation", "samples are saturated")
def saturation(facts: RunFacts, samples: Samples) -> Iterator[Finding]:
    """More values at the ends of the range, 0 and 255, than the data has."""
    made, real = (((x == 0) | (x == 255)).double().flatten(1).mean(1) for x in (samples.made, samples.real))
    found = compared(real, made)
    if found.value > SATURATED and found.decided:
        yield _finding(
            facts,
            f"{made.mean():.1%} of their values are 0 or 255, of the data's {real.mean():.1%} ({found.errors:.0f} "
            f"standard errors; {samples.chain}); at most {SATURATED:.0%} more is usual",
            "sample with --threshold 0.995 or a lower --guidance; train for longer, or predict --diffusion.predict v "
            "in a new run",
            found.value,
            SATURATED,
        )


@check("collapse", "samples are nearly all alike")
def collapse(facts: RunFacts, samples: Samples) -> Iterator[Finding]:
    """Samples that differ from each other by less than the data's images do: one image, again and again."""
    made, real = (images.double().flatten(1).var(0).mean().item() for images in (samples.made, samples.real))
    ratio = made / real if real else math.inf
    if not ratio >= ALIKE:
        yield _finding(
            facts,
            f"the variance between images is {ratio:.2f} of the data's ({samples.chain}); at least {ALIKE} is usual",
            "if the loss is low, look for copies in the data (see copies); else train for longer or with a lower "
            "--train.lr in a new run",
            ratio,
            ALIKE,
        )


@check("emptiness", "samples are nearly of one colour")
def emptiness(facts: RunFacts, samples: Samples) -> Iterator[Finding]:
    """Samples of hardly any contrast: grey or of one colour, however they differ from each other."""
    contrasts = (images.double().flatten(2).std(2).mean(1) for images in (samples.made, samples.real))
    typical, usual = (contrast.median().item() for contrast in contrasts)
    ratio = typical / usual if usual else math.inf
    if not ratio >= EMPTY:
        yield _finding(
            facts,
            f"the contrast within an image (median of standard deviations) is {typical:.1f} levels of 255, the data's "
            f"{usual:.1f}: {ratio:.2f} of it ({samples.chain}); at least {EMPTY} is usual",
            "try unstir sample --no-ema: if those samples have contrast, the average lags (see slow-average); else "
            "start a new run with a lower --train.lr",
            ratio,
            EMPTY,
        )


@check("noise", "samples are still noise in part")
def noise(facts: RunFacts, samples: Samples) -> Iterator[Finding]:
    """Samples with more noise than the data has, as after too short a training or too few steps."""
    made, real = noise_level(samples.made), noise_level(samples.real)
    found = compared(real, made)
    ratio = made.mean().item() / max(real.mean().item(), 1e-9)
    if ratio > NOISY and found.value > GRAIN and found.decided:
        yield _finding(
            facts,
            f"their noise level is {made.mean():.1f} levels of 255, the data's {real.mean():.1f}: {times(ratio)} as "
            f"much ({samples.chain}); at most {NOISY} times is usual",
            "train for longer (--train.length), and see slow-average and not-learned if they are named",
            ratio,
            NOISY,
        )


def _finding(facts: RunFacts, evidence: str, remedy: str, figure: float, threshold: float, says: str = "") -> Finding:
    """A problem; of a run in training a warning, for it may pass, and the remedy is to wait first."""
    if facts.finished:
        return Finding("problem", evidence, remedy, figure, threshold, says=says)
    wait = f"the run is at step {facts.step} of {facts.run.length}: look again at its end; if it stays, "
    return Finding("warning", evidence, wait + remedy, figure, threshold, says=says)


def noise_level(images: Tensor) -> Tensor:
    """The noise of each image, uint8 [N, C, H, W], as the std in levels of 255, float64 [N] (Immerkær 1996).

    sqrt(pi / 2) / 6 times the mean absolute output of a mask that is 0 on planes and on edges along the axes. Images
    with sides under 3 pixels are smaller than the mask; their noise counts as 0.
    """
    N, C, H, W = images.shape
    if min(H, W) < 3:
        return torch.zeros(N, dtype=torch.float64)
    mask = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=torch.float64)
    filtered = conv2d(images.double().view(N * C, 1, H, W), mask[None, None]).abs()
    return filtered.flatten(1).mean(1).view(N, C).mean(1) * math.sqrt(math.pi / 2) / 6


def _colours(images: Tensor) -> Tensor:
    """The mean of each channel less that of all channels, for each image: float64 [N, C]."""
    means = images.double().mean((2, 3))
    return means - means.mean(1, keepdim=True)


def _std(images: Tensor) -> float:
    return images.double().std().item()
