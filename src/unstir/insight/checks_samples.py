"""Checks of the average of the weights, from which a run is sampled, and of the images that are drawn with it.

Images are compared with real ones of the same classes. A finding requires a difference that can be seen; the spread
between images says whether that of their brightness is decided.
"""

import math
from collections.abc import Iterator

from unstir.insight.checks_learning import lower_rate
from unstir.insight.facts import Errors, Facts, Samples
from unstir.insight.findings import Finding, check
from unstir.insight.wording import times
from unstir.runs.checkpoint import Checkpoint
from unstir.significance import counted, paired, two_sample

# Thresholds; docs/doctor.md has what trained runs measure.
BEHIND_WARNING, BEHIND_PROBLEM = 1.1, 1.5  # times the loss of the raw weights
BRIGHTER = 0.15  # of the standard deviation of the data's values: a shift of the mean that can be seen
ALIKE = 0.5  # of the data's variance between images


@check("average-behind", "the averaged weights are worse than the raw ones", of_training=True, single_times=True)
def _average_behind(facts: Facts, errors: Errors) -> Iterator[Finding]:
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
        remedy = """sample with `ema=False`; in a new run set `train.ema_warmup=True`, a lower `train.ema_decay=0.999`,
            or a learning rate that falls, `train.lr_schedule=cosine`"""
        severe = ratio > BEHIND_PROBLEM and facts.finished
        yield Finding("problem" if severe else "warning", evidence, remedy, ratio, BEHIND_WARNING)


@check("weights-finite", "the saved weights are not finite")
def _weights_finite(facts: Facts, loaded: Checkpoint) -> Iterator[Finding]:
    weights = [t for name, t in loaded.tensors.items() if name.startswith(("model.", "ema."))]
    broken = sum(not t.isfinite().all() for t in weights)
    if broken:
        evidence = f"{broken} of {len(weights)} tensors of step {loaded.step} hold NaN or an infinity; none should"
        remedy = f"sample an earlier step, or {lower_rate(facts.config)}"
        yield Finding("problem", evidence, remedy, broken, 0)


@check("brightness")
def _brightness(facts: Facts, samples: Samples) -> Iterator[Finding]:
    """Samples lighter or darker than the data, by the means of images over all values."""
    drawn, real = (images.double().flatten(1).mean(1) for images in (samples.made, samples.real))
    result, most = two_sample(real.tolist(), drawn.tolist()), BRIGHTER * samples.real.double().std().item()
    sure = f"{abs(result.errors):.0f} standard errors" if result.error else "the same in every image"
    result = result if result.error else counted(result.value)
    gap = abs(result.value)
    if gap > most and result.decided:
        evidence = f"""the mean of their values is {drawn.mean():.1f}, the data's {real.mean():.1f}: {gap:.1f} levels of
            255 ({sure}; {samples.chain}); at most {most:.1f} is usual"""
        remedy = """train for longer; a linear schedule of few steps keeps signal at t = T: use
            `diffusion.schedule=cosine` or a T of 1000 in a new run"""
        says = f"samples are {'lighter' if result.value > 0 else 'darker'} than the data"
        yield _finding(facts, evidence, remedy, gap, most, says)


@check("collapse", "samples are nearly all alike")
def _collapse(facts: Facts, samples: Samples) -> Iterator[Finding]:
    drawn, real = (images.double().flatten(1).var(0).mean().item() for images in (samples.made, samples.real))
    ratio = drawn / real if real else math.inf
    if not ratio >= ALIKE:
        evidence = f"""the variance between images is {ratio:.2f} of the data's ({samples.chain}); at least {ALIKE} is
            usual"""
        remedy = """if the loss is low, look for copies in the data; else train for longer or, in a new run, with a
            lower learning rate"""
        yield _finding(facts, evidence, remedy, ratio, ALIKE)


def _finding(facts: Facts, evidence: str, remedy: str, figure: float, threshold: float, says: str = "") -> Finding:
    """A problem; of a run in training a warning, for it may pass, and the remedy is to wait first."""
    if facts.finished:
        return Finding("problem", evidence, remedy, figure, threshold, says=says)
    wait = f"the run is at step {facts.step} of {facts.run.length}: look again at its end; if it stays, "
    return Finding("warning", evidence, wait + remedy, figure, threshold, says=says)
