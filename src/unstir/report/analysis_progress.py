"""What improved when: the loss of held-out images, the health of training, and quality by step."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import fmean

from unstir.doctor.held_out import STEEP, half_way, last_stretch
from unstir.doctor.numbers import is_number, times
from unstir.metrics.figures import figure_effect
from unstir.metrics.figures import verdict as verdict_of
from unstir.report.facts import Facts, Measurement
from unstir.report.statement import MARKS, Shown, Statement, Verdict
from unstir.report.wording import TIMES, brief, change, count, percent, shown, size, with_error
from unstir.significance import counted, difference, level, mean_error, paired, two_sample

STRETCHES, FEWEST = 4, 5  # training losses are compared in so many stretches, of at least so many log lines each
LEAST = 1e-30  # below this a loss has no logarithm of its own
SKIPPED = 0.01  # a healthy run skips no more than this share of its steps
DIVERGED = 0.5  # a loss that rises again by less than this share of its lowest, or of its fall, has not diverged
LAG = 0.3  # averaged weights lag where their loss is more than this share above that of the raw ones


def progress(facts: Facts) -> Iterator[Statement]:
    """Sentences on what improved, in the order of the page."""
    yield from _health(facts)
    measured = facts.measured
    if len(measured) >= 2:
        yield _fall(facts, measured)
        yield from _last_stretch(facts, measured)
        yield from _average(facts, measured[-1])
    elif facts.config.distilled:
        text = "A distilled run has no held-out loss, so progress is known from the training loss alone."
        yield Statement("held-out loss", "progress", "quality", "undecided", text)
    elif not facts.broken:
        text = "The loss of held-out images was not followed in this run, so progress is known from the training loss "
        text += "alone; `unstir train` follows it where images are held out and log.held_out_images is not 0."
        if (num := sum(bool(line.get("of_held_out")) for line in facts.held_out)) > 1:
            text = "The held-out losses of this run do not compare with its last, which is of other images or times "
            text += "(log.held_out_images, log.held_out_times), so progress is known from the training loss alone."
        elif num:
            text = "The loss of held-out images was measured at one step alone, so no change of it is known yet."
        yield Statement("held-out loss", "progress", "losses", "undecided", text)
    yield from _quality(facts)


def _health(facts: Facts) -> Iterator[Statement]:
    """Steps skipped, losses that are no numbers, and whether the training loss fell and stayed down."""
    skipped = max((line["skipped"] for line in facts.metrics if is_number(line.get("skipped"))), default=0)
    if skipped:
        text = f"{count(skipped, 'optimiser step')} of {facts.step:,} had no finite gradient and changed nothing."
        verdict: Verdict = "bad" if skipped >= SKIPPED * facts.step else "neutral"
        yield Statement("skipped", "progress", "curves", verdict, text, counted(skipped))
    missing = [line["step"] for line in facts.metrics if not is_number(line.get("loss"))]
    if steps := [*missing, *facts.broken]:
        text = f"Training diverged: from step {min(steps):,} on there are losses that are not finite."
        where: Shown = "curves" if missing else "losses"
        yield Statement("diverged", "progress", where, "bad", text, counted(len(steps)))
        return
    for said in _training_loss([(line["step"], line["loss"]) for line in facts.metrics if line["loss"]]):
        # the same held-out images each time tell of a fall what noisy batches leave undecided
        if said.verdict != "undecided" or len(facts.held_out) < 2:
            yield said


def _training_loss(lines: Sequence[tuple[int, float]]) -> Iterator[Statement]:
    """Whether the training loss fell from the first stretch to the last, and rose again from its lowest one."""
    stretch = max(len(lines) // STRETCHES, FEWEST)
    blocks = [lines[start : start + stretch] for start in range(len(lines) % stretch, len(lines), stretch)]
    if len(blocks) < 2:
        return
    levels = [level([loss for _, loss in block]) for block in blocks]
    first, last, (at, low) = levels[0], levels[-1], min(enumerate(levels), key=lambda pair: pair[1].value)
    rise = difference(low, last, choices=len(levels))
    if not rise.positive:
        yield _training_fall(blocks)
        return
    diverged = last.value - low.value > DIVERGED * max(first.value - low.value, low.value)
    name, what = ("diverged", "Training diverged: its") if diverged else ("training rose", "The training")
    text = f"{what} loss rose again by {size(rise)} ({percent(rise.value / low.value)}), from {low.value:.3g} around "
    text += f"step {blocks[at][-1][0]:,} to {last.value:.3g} at the end."
    yield Statement(name, "progress", "curves", "bad", text, rise)


def _training_fall(blocks: Sequence[Sequence[tuple[int, float]]]) -> Statement:
    """Whether the training loss fell, tested on its logarithm: a steep beginning hides no fall then."""
    before, after = (level([math.log(max(loss, LEAST)) for _, loss in block]) for block in (blocks[0], blocks[-1]))
    fall = difference(before, after)
    share = math.exp(fall.value)
    said = partial(Statement, "training loss", "progress", "curves")
    stretch = f"from {math.exp(before[0]):.3g} up to step {blocks[0][-1][0]:,} to {math.exp(after[0]):.3g} from step "
    stretch += f"{blocks[-2][-1][0]:,} on"
    by = f"{with_error(100 * (share - 1), 100 * share * fall.error, sign=True)}%" if share < TIMES else times(share)
    by += " in the geometric mean"
    if not fall.decided:
        return said("undecided", f"Whether the training loss fell is undecided: it went {stretch} ({by}).", fall)
    if fall.value > 0:  # though the mean, which a few large losses make, has no decided rise
        return said("neutral", f"The training loss did not fall: it went {stretch} ({by}).", fall)
    return said("good", f"The training loss fell {stretch}, {by}.", fall)


def _fall(facts: Facts, measured: Sequence[Measurement]) -> Statement:
    """The whole change of the held-out loss, and by when most of it had come."""
    first, last, said = measured[0], measured[-1], partial(Statement, "fall", "progress", "losses")
    fall = paired(first.held_out, last.held_out)
    start = f"with the weights of {facts.config.train.init}" if facts.config.train.init else "in the untrained network"
    began = start if first.step == 0 else f"after {count(first.images, 'image')}"
    scale = " (1 is predicting no noise at all)" if facts.config.diffusion.predict == "eps" else ""
    span = f"from {with_error(first.loss, None)} {began} to {with_error(last.loss, None)} after "
    span += f"{count(last.images, 'training image')}{scale}, by {size(fall)}"
    if not fall.decided:
        return said("undecided", f"Whether the loss on held-out images fell is undecided: it went {span}.", fall)
    if fall.value > 0:
        return said("bad", f"The loss on held-out images rose {span}.", fall)
    when = next(each for each in measured if each.loss <= first.loss + 0.9 * fall.value)
    most = "" if when is last else f"; 90% of the fall had come by {count(when.images, 'image')}"
    return said("good", f"The loss on held-out images fell {span}{most}.", fall)


def _last_stretch(facts: Facts, measured: Sequence[Measurement]) -> Iterator[Statement]:
    """Whether the last doubling (or so) of the images seen still helped, by the rule that the doctor goes by.

    A steep fall where the run ends says that the run is "under-fitted"; a lesser one, or one of a run that is to go on,
    that there is "more to gain".
    """
    last = last_stretch(measured)
    if last is None:
        return
    fall, said = last.fall, partial(Statement, topic="progress", figure="losses", effect=last.fall)
    seen = f"from {last.before.images:,} to {last.after.images:,} training images"
    span = f"{seen} ({brief(last.after.images / last.before.images)}-fold)"
    by = f"{size(fall)} ({percent(last.share)} of it"
    text = f"The held-out loss was still falling: over the last stretch, {span}, by {by}"
    if not fall.decided:
        text = f"Whether the last stretch, {span}, still changed the held-out loss is undecided ({change(fall)})."
        yield said("last stretch", verdict="undecided", text=text)
    elif fall.value > 0:
        text = f"The held-out loss rose over the last stretch, {span}, by {by})."
        yield said("last stretch", verdict="bad", text=text)
    elif not last.gains:
        yield said("last stretch", verdict="good", text=f"{text}).")
    else:
        text += f", {percent(last.rate)} for each doubling of the images)"
        text += "" if last.on_train is None else f", and that of training images by {size(last.on_train)}"
        if facts.step < facts.length:
            yield said("more to gain", verdict="neutral", text=f"{text}; the run is not at its end.")
        elif last.steep:
            text += (
                f": the run is under-fitted, for it ended while each doubling still gained {percent(STEEP)} or more."
            )
            yield said("under-fitted", verdict="bad", text=text)
        else:
            steep = any(finding.check == "still-falling" for finding in facts.findings)  # by the log of training
            text += ": longer training may gain a little more" + ("." if steep else ", which is no fault of the run.")
            yield said("more to gain", verdict="neutral", text=text)


def _average(facts: Facts, last: Measurement) -> Iterator[Statement]:
    """Whether the averaged weights lag: worse on training images without dropout than the raw ones were with it.

    The doctor, who compares both weights on the same images, times and noise, knows better: where that was done, his
    finding is all that is said. The log, compared here, is of other images, and is none at all of other times.
    """
    config = facts.config
    if "average-behind" in facts.checked:
        return
    raw = [line.get("loss") for line in facts.metrics if last.step * 0.7 < line["step"] <= last.step]
    losses = [loss for loss in raw if is_number(loss)]
    alike = config.train.ema_decay > 0 and not config.train.augment and config.loss.is_simple and config.loss.is_plain
    if not alike or len(last.train) < 2 or len(losses) < max(FEWEST, len(raw)):
        return
    behind = two_sample(losses, last.train)
    if behind.decided and behind.value >= LAG * fmean(losses):
        text = f"The averaged weights lag: their loss on training images is {size(behind)} above the "
        text += f"{with_error(fmean(losses), mean_error(losses))} of the raw weights"
        has_dropout = config.model.is_unet and config.model.dropout
        text += ", though those have dropout to bear." if has_dropout else " at the same time."
        yield Statement("average lags", "progress", "losses", "bad", text, behind)


def _quality(facts: Facts) -> Iterator[Statement]:
    """The main figure from the first to the last step evaluated, and from about half way."""
    key = "" if facts.last is None else facts.last.main_key
    steps = [each for each in facts.by_step if key in each.figures and each.images > 0]
    if len(steps) < 2:
        text = "Only one saved step was evaluated, so when the samples became better is not known; "
        text += "`unstir evaluate RUN --checkpoint all` evaluates the others."
        if facts.last is not None:
            yield Statement("quality by step", "progress", "quality", "undecided", text)
        return
    for name, before in (("quality by step", steps[0]), ("quality, last stretch", half_way(steps[1:]))):
        if before is not None:
            a, b = before.figures[key], steps[-1].figures[key]
            effect = figure_effect(a, b)
            became = verdict_of(effect, b.better)
            span = f"from {shown(a)} after {count(before.images, 'image')} to {shown(b)} after "
            span += count(steps[-1].images, "image")
            text = f"{b.name} became {became}, {span}."
            if not effect.decided:
                text = f"Whether {b.name} changed {span} is undecided ({change(effect)})."
            yield Statement(name, "progress", "quality", MARKS[became], text, effect)
