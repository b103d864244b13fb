"""Checks of what a run draws: images of the wrong colour, saturated, all alike, empty, or still noise.

Each compares samples with real images of the same classes, image by image, so that the spread between images gives the
error of the comparison; and each asks for a difference that can be seen as well as for one that is sure.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from unstir.doctor.facts import RunFacts, Samples
from unstir.doctor.finding import Check, Finding, Severity, compared, times

BRIGHTER = 0.15
"""Of the standard deviation of the data's values: a shift of the mean that is seen. Trained runs: at most 0.02."""

TINTED = 0.05
"""The same for a channel against the mean of the channels. Trained runs: at most 0.005, where it can be told."""

SATURATED = 0.10
"""More of all values than the data has at 0 or 255. Trained runs have fewer than their data."""

ALIKE = 0.5
"""Of the data's variance between images. Trained runs: 0.9 to 1.0; after a tenth of the training 0.7."""

EMPTY = 0.4
"""Of the data's contrast within an image. Trained runs: 0.96 to 1.0."""

NOISY = 1.6
"""Times the data's noise level. Trained runs: 0.9 to 1.1; after a hundredth of the training 2.8."""

GRAIN = 2.0
"""Levels of 255 by which the noise must exceed the data's too, for data as smooth as drawings has hardly any."""


def _samples(facts: RunFacts) -> Samples:
    assert facts.samples is not None
    return facts.samples


def _severity(facts: RunFacts, worst: Severity) -> Severity:
    """What samples show of a run in training may pass: one degree milder."""
    if facts.finished:
        return worst
    return "warning" if worst == "problem" else "note"


def _going_on(facts: RunFacts) -> str:
    if facts.finished:
        return ""
    return f"the run is at step {facts.step} of {facts.run.length}: look again at its end; if it stays, "


def brightness(facts: RunFacts) -> Finding | None:
    """Samples lighter or darker than the data, by the means of images over all values."""
    made, real = (images.double().flatten(1).mean(1) for images in (_samples(facts).made, _samples(facts).real))
    found = compared(real, made)
    gap = found.value
    most = BRIGHTER * _std(_samples(facts).real)
    if abs(gap) <= most or not found.decided:
        return None
    return Finding(
        "brightness",
        _severity(facts, "problem"),
        f"samples are {'lighter' if gap > 0 else 'darker'} than the data",
        f"the mean of their values is {made.mean():.1f}, the data's {real.mean():.1f}: {abs(gap):.1f} levels of 255 "
        f"({abs(found.errors):.0f} standard errors; {_samples(facts).chain}); at most {most:.1f} is usual",
        _going_on(facts) + "train for longer (--train.length); if x_T keeps signal (see signal-left), use "
        "--diffusion.schedule cosine or a T of 1000 in a new run",
        abs(gap),
        most,
    )


def tint(facts: RunFacts) -> Finding | None:
    """A channel of the samples that stands out of their own grey by more than the data's does."""
    parts = _samples(facts)
    if parts.made.shape[1] == 1:
        return None
    made, real = (_colours(images) for images in (parts.made, parts.real))
    gaps = [compared(real[:, c], made[:, c], choices=made.shape[1]) for c in range(made.shape[1])]
    channel = max(range(len(gaps)), key=lambda c: abs(gaps[c].value))
    found = gaps[channel]
    gap = found.value
    most = TINTED * _std(parts.real)
    if abs(gap) <= most or not found.decided:
        return None
    name = ("red", "green", "blue")[channel]
    return Finding(
        "tint",
        _severity(facts, "problem"),
        f"samples have {'too much' if gap > 0 else 'too little'} {name}",
        f"against the mean of the channels {name} is {made[:, channel].mean():+.1f} levels of 255, in the data "
        f"{real[:, channel].mean():+.1f} ({abs(found.errors):.0f} standard errors; {parts.chain}); "
        f"a difference of at most {most:.1f} is usual",
        _going_on(facts) + "the averaged weights often lag where the colour is far off: look at unstir sample "
        "--no-ema, and train for longer (--train.length) or with a faster average (--train.ema_decay 0.999)",
        abs(gap),
        most,
    )


def saturation(facts: RunFacts) -> Finding | None:
    """More values at the ends of the range, 0 and 255, than the data has."""
    parts = _samples(facts)
    made, real = (((x == 0) | (x == 255)).double().flatten(1).mean(1) for x in (parts.made, parts.real))
    found = compared(real, made)
    gap = found.value
    if gap <= SATURATED or not found.decided:
        return None
    return Finding(
        "saturation",
        _severity(facts, "problem"),
        "samples are saturated",
        f"{made.mean():.1%} of their values are 0 or 255, of the data's {real.mean():.1%} ({found.errors:.0f} standard "
        f"errors; {parts.chain}); at most {SATURATED:.0%} more is usual",
        _going_on(facts) + "sample with --threshold 0.995 or a lower --guidance; train for longer, or predict "
        "--diffusion.predict v in a new run",
        gap,
        SATURATED,
    )


def collapse(facts: RunFacts) -> Finding | None:
    """Samples that differ from each other by less than the data's images do: one image, again and again."""
    parts = _samples(facts)
    made, real = (images.double().flatten(1).var(0).mean().item() for images in (parts.made, parts.real))
    ratio = made / real if real else math.inf
    if ratio >= ALIKE:
        return None
    return Finding(
        "collapse",
        _severity(facts, "problem"),
        "samples are nearly all alike",
        f"the variance from image to image is {ratio:.2f} of the data's ({parts.chain}); at least {ALIKE} is usual",
        _going_on(facts) + "if the loss is low, look for copies in the data (see copies); else train for longer or "
        "with a lower --train.lr in a new run",
        ratio,
        ALIKE,
    )


def emptiness(facts: RunFacts) -> Finding | None:
    """Samples of hardly any contrast: grey or of one colour, whatever they differ by."""
    parts = _samples(facts)
    made, real = (images.double().flatten(2).std(2).mean(1) for images in (parts.made, parts.real))
    typical, usual = made.median().item(), real.median().item()
    ratio = typical / usual if usual else math.inf
    if ratio >= EMPTY:
        return None
    return Finding(
        "emptiness",
        _severity(facts, "problem"),
        "samples are nearly of one colour",
        f"the contrast within an image (median of standard deviations) is {typical:.1f} levels of 255, the data's "
        f"{usual:.1f}: {ratio:.2f} of it ({parts.chain}); at least {EMPTY} is usual",
        _going_on(facts) + "look at unstir sample --no-ema: if that is well, the average lags (see slow-average); "
        "else begin anew with a lower --train.lr",
        ratio,
        EMPTY,
    )


def noise(facts: RunFacts) -> Finding | None:
    """Samples with more noise than the data has, as after too short a training or too few steps."""
    parts = _samples(facts)
    made, real = noise_level(parts.made), noise_level(parts.real)
    found = compared(real, made)
    ratio = made.mean().item() / max(real.mean().item(), 1e-9)
    if ratio <= NOISY or found.value <= GRAIN or not found.decided:
        return None
    return Finding(
        "noise",
        _severity(facts, "problem"),
        "samples are still noise in part",
        f"their noise level is {made.mean():.1f} levels of 255, the data's {real.mean():.1f}: {times(ratio)} as "
        f"much ({parts.chain}); at most {NOISY} times is usual",
        _going_on(facts) + "train for longer (--train.length), and see slow-average and not-learned if they are named",
        ratio,
        NOISY,
    )


def noise_level(images: Tensor) -> Tensor:
    """The noise of each image, uint8 [N, C, H, W], as the std in levels of 255, float64 [N] (Immerkær 1996).

    sqrt(pi / 2) / 6 times the mean absolute answer of a mask that is blind to planes and edges along the axes. Sides
    under 3 pixels have no such mask, and no noise that could be told.
    """
    N, C, H, W = images.shape
    if min(H, W) < 3:
        return torch.zeros(N, dtype=torch.float64)
    mask = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=torch.float64)
    answers = conv2d(images.double().view(N * C, 1, H, W), mask[None, None]).abs()
    return answers.flatten(1).mean(1).view(N, C).mean(1) * math.sqrt(math.pi / 2) / 6


def _colours(images: Tensor) -> Tensor:
    """The mean of each channel over that of all channels, image by image: float64 [N, C]."""
    means = images.double().mean((2, 3))
    return means - means.mean(1, keepdim=True)


def _std(images: Tensor) -> float:
    return images.double().std().item()


_NEEDS = ("samples",)
CHECKS = (
    Check("brightness", "mean of the samples' values against the data's", brightness, _NEEDS),
    Check("tint", "colour of the samples against the data's", tint, _NEEDS),
    Check("saturation", "share of the samples' values at 0 and 255", saturation, _NEEDS),
    Check("collapse", "variance between samples", collapse, _NEEDS),
    Check("emptiness", "contrast within samples", emptiness, _NEEDS),
    Check("noise", "noise level of the samples", noise, _NEEDS),
)
