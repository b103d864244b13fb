"""Checks of the weights, of their average, from which a run is sampled, and of the images that are drawn with it.

Each check of images compares samples with real images of the same classes, image by image, so that the spread between
images gives the error of the comparison; and each requires a difference that can be seen as well as one that is
decided.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from unstir.doctor.check import Errors, Finding, RunFacts, Samples, check, compared, sureness
from unstir.doctor.numbers import Lines, logged_errors, times
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.run import Run
from unstir.runs.timetable import ema_decay
from unstir.significance import effect, mean_of, paired

# Thresholds; docs/doctor.md has what trained runs measure.
INITIAL_WARNING, INITIAL_PROBLEM = 0.01, 0.1  # share of the average that is still initial weights
BEHIND_WARNING, BEHIND_PROBLEM = 1.1, 1.5  # times the loss of the raw weights
LOSS = 1.5  # times the loss of the log's last lines
BRIGHTER = 0.15  # of the standard deviation of the data's values: a shift of the mean that can be seen
TINTED = 0.05  # of the same, for a channel against the mean of the channels
SATURATED = 0.10  # more of all values than the data has at 0 or 255
ALIKE = 0.5  # of the data's variance between images
EMPTY = 0.4  # of the data's contrast within an image
NOISY = 1.6  # times the data's noise level
GRAIN = 2.0  # levels of 255 by which the noise must exceed the data's too: data as smooth as drawings has hardly any


def initial_share(run: Run, steps: int) -> float:
    """The share of the average after ``steps`` updates that is the initial weights: the product of the decays."""
    share = 1.0
    for step in range(steps):
        share *= ema_decay(run.config.train, step)
        if share < 1e-20:  # a long run gets there early
            return 0.0
    return share


@check("slow-average", "the average of the weights is too slow for the run")
def _slow_average(facts: RunFacts) -> Iterator[Finding]:
    length, cfg = facts.run.length, facts.run.config.train
    share = initial_share(facts.run, length)
    if share > INITIAL_WARNING and not cfg.init:
        better = next((d for d in (0.9999, 0.9995, 0.999, 0.995, 0.99) if d**length < INITIAL_WARNING), 0.9)
        evidence = f"""with train.ema_decay={cfg.ema_decay:g} and no warm-up {share:.1%} of the average after {length}
            steps is initial weights; at most {INITIAL_WARNING:.0%} is harmless"""
        remedy = f"""a new run with --train.ema_warmup, or with --train.ema_decay {better:g}; sample this one with
            --no-ema"""
        yield Finding("problem" if share > INITIAL_PROBLEM else "warning", evidence, remedy, share, INITIAL_WARNING)


@check("average-behind", "the averaged weights are worse than the raw ones")
def _average_behind(facts: RunFacts, errors: Errors) -> Iterator[Finding]:
    """An average whose loss is clearly above that of the weights it averages, on the same images, times and noise."""
    if errors.raw is None or errors.average is None:
        return
    behind = paired(errors.raw.tolist(), errors.average.tolist())
    average, raw = errors.average.mean().item(), errors.raw.mean().item()
    ratio = average / raw if raw else math.inf
    if ratio > BEHIND_WARNING and (behind.positive or not math.isfinite(ratio)):
        sure, num = f"{behind.errors:.0f} standard errors, ", len(errors.raw)
        if not math.isfinite(behind.errors):
            sure = f"not finite for {int((~errors.average.isfinite()).sum())} of "
        evidence = f"""the squared error of the average is {average:.4g}, that of the raw weights {raw:.4g}:
            {times(ratio)} ({sure}{num} training images); at most {BEHIND_WARNING} is usual"""
        remedy = """sample with --no-ema; in a new run --train.ema_warmup, a lower --train.ema_decay such as 0.999, or a
            learning rate that falls (--train.lr_schedule cosine)"""
        severe = ratio > BEHIND_PROBLEM and facts.finished
        yield Finding("problem" if severe else "warning", evidence, remedy, ratio, BEHIND_WARNING)


@check("weights-loss", "the saved weights do not have the loss that was logged")
def _weights_loss(facts: RunFacts, errors: Errors, loaded: Checkpoint, lines: Lines) -> Iterator[Finding]:
    measured = errors.average if errors.raw is None else errors.raw
    logged = logged_errors([line for line in lines if line["step"] <= loaded.step][-3:])
    if measured is None or not logged:
        return
    usual = math.fsum(logged) / len(logged)
    mean, error, df = mean_of(measured.tolist())
    if not mean <= LOSS * usual and (effect(mean - usual, error, df, "Student's t").decided or not math.isfinite(mean)):
        evidence = f"""their squared error is {mean:.4g} (mean of {len(measured)} training images), the log's up to step
            {loaded.step} is {usual:.4g}; at most {LOSS} times that is usual"""
        remedy = """the weights were trained with other data, or the file is another one: check the store and the
            checkpoints and go back to an earlier step (--checkpoint)"""
        yield Finding("problem", evidence, remedy, mean / usual if usual else math.inf, LOSS)


@check("weights-finite", "weights are not finite")
def _weights_finite(facts: RunFacts, loaded: Checkpoint) -> Iterator[Finding]:
    broken = [name for name, t in loaded.tensors.items() if not bool(torch.isfinite(t).all())]
    if broken:
        evidence = f"""{len(broken)} of {len(loaded.tensors)} tensors of step {loaded.step} hold NaN or infinity, the
            first is {broken[0]}; none may"""
        remedy = """delete that checkpoint and continue from the one before; if there is none, start a new run with a
            lower --train.lr"""
        yield Finding("problem", evidence, remedy, len(broken), 0)


@check("brightness")
def _brightness(facts: RunFacts, samples: Samples) -> Iterator[Finding]:
    """Samples lighter or darker than the data, by the means of images over all values."""
    made, real = (images.double().flatten(1).mean(1) for images in (samples.made, samples.real))
    found, most = compared(real, made), BRIGHTER * samples.real.double().std().item()
    gap = abs(found.value)
    if gap > most and found.decided:
        evidence = f"""the mean of their values is {made.mean():.1f}, the data's {real.mean():.1f}: {gap:.1f} levels of
            255 ({sureness(found)}; {samples.chain}); at most {most:.1f} is usual"""
        remedy = """train for longer (--train.length); if x_T keeps signal (see signal-left), use --diffusion.schedule
            cosine or a T of 1000 in a new run"""
        says = f"samples are {'lighter' if found.value > 0 else 'darker'} than the data"
        yield _finding(facts, evidence, remedy, gap, most, says)


@check("tint")
def _tint(facts: RunFacts, samples: Samples) -> Iterator[Finding]:
    """A channel of the samples that stands out of their own grey by more than the data's does."""
    made, real = (images.double().mean((2, 3)) for images in (samples.made, samples.real))  # [N, C]
    made, real = made - made.mean(1, keepdim=True), real - real.mean(1, keepdim=True)
    gaps = [compared(real[:, c], made[:, c], choices=made.shape[1]) for c in range(made.shape[1])]
    channel = max(range(len(gaps)), key=lambda c: abs(gaps[c].value))
    found, most = gaps[channel], TINTED * samples.real.double().std().item()
    if abs(found.value) > most and found.decided:
        name = ("red", "green", "blue")[channel]
        evidence = f"""against the mean of the channels {name} is {made[:, channel].mean():+.1f} levels of 255, in the
            data {real[:, channel].mean():+.1f} ({sureness(found)}; {samples.chain}); a difference
            of at most {most:.1f} is usual"""
        remedy = """the averaged weights often lag where the colour is far off: try unstir sample --no-ema, and train
            for longer (--train.length) or with a faster average (--train.ema_decay 0.999)"""
        says = f"samples have {'too much' if found.value > 0 else 'too little'} {name}"
        yield _finding(facts, evidence, remedy, abs(found.value), most, says)


@check("saturation", "samples are saturated")
def _saturation(facts: RunFacts, samples: Samples) -> Iterator[Finding]:
    made, real = (((x == 0) | (x == 255)).double().flatten(1).mean(1) for x in (samples.made, samples.real))
    found = compared(real, made)
    if found.value > SATURATED and found.decided:
        evidence = f"""{made.mean():.1%} of their values are 0 or 255, of the data's {real.mean():.1%}
            ({sureness(found)}; {samples.chain}); at most {SATURATED:.0%} more is usual"""
        config = facts.run.config
        guided = " or a lower --guidance" if config.model.num_classes else ""
        other = "" if config.diffusion.predict == "v" else ", or predict --diffusion.predict v in a new run"
        remedy = f"sample with --threshold 0.995{guided}; train for longer{other}"
        yield _finding(facts, evidence, remedy, found.value, SATURATED)


@check("collapse", "samples are nearly all alike")
def _collapse(facts: RunFacts, samples: Samples) -> Iterator[Finding]:
    made, real = (images.double().flatten(1).var(0).mean().item() for images in (samples.made, samples.real))
    ratio = made / real if real else math.inf
    if not ratio >= ALIKE:
        evidence = f"""the variance between images is {ratio:.2f} of the data's ({samples.chain}); at least {ALIKE} is
            usual"""
        remedy = """if the loss is low, look for copies in the data (see copies); else train for longer or with a lower
            --train.lr in a new run"""
        yield _finding(facts, evidence, remedy, ratio, ALIKE)


@check("emptiness", "samples are nearly of one colour")
def _emptiness(facts: RunFacts, samples: Samples) -> Iterator[Finding]:
    contrasts = (images.double().flatten(2).std(2).mean(1) for images in (samples.made, samples.real))
    typical, usual = (contrast.median().item() for contrast in contrasts)
    ratio = typical / usual if usual else math.inf
    if not ratio >= EMPTY:
        evidence = f"""the contrast within an image (median of standard deviations) is {typical:.1f} levels of 255, the
            data's {usual:.1f}: {ratio:.2f} of it ({samples.chain}); at least {EMPTY} is usual"""
        remedy = """try unstir sample --no-ema: if those samples have contrast, the average lags (see slow-average);
            else start a new run with a lower --train.lr"""
        yield _finding(facts, evidence, remedy, ratio, EMPTY)


@check("noise", "samples are still noise in part")
def _noise(facts: RunFacts, samples: Samples) -> Iterator[Finding]:
    made, real = noise_level(samples.made), noise_level(samples.real)
    found, ratio = compared(real, made), made.mean().item() / max(real.mean().item(), 1e-9)
    if ratio > NOISY and found.value > GRAIN and found.decided:
        evidence = f"""their noise level is {made.mean():.1f} levels of 255, the data's {real.mean():.1f}:
            {times(ratio)} as much ({samples.chain}); at most {NOISY} times is usual"""
        remedy = "train for longer (--train.length), and see slow-average and not-learned if they are named"
        yield _finding(facts, evidence, remedy, ratio, NOISY)


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
