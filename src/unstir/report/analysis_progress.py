"""What improved when: the loss of held-out images, the health of training, and quality by step."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from unstir.doctor.finding import is_number, times
from unstir.metrics.figures import LOWER, figure_effect
from unstir.report.analysis_figures import shown
from unstir.report.facts import Facts
from unstir.report.looks import Look, half_way, read
from unstir.report.statement import Shown, Statement, Verdict, not_measured
from unstir.report.wording import TIMES, count, percent, with_error
from unstir.significance import Effect, counted, difference, level, mean_error, paired, two_sample

STRETCHES, FEWEST = 4, 5
"""Training losses are compared in so many stretches of the run, of at least so many log lines each."""

LEAST = 1e-30
"""Below this a loss has no logarithm of its own."""

SKIPPED = 0.01
"""More steps than this share of all are not skipped by a healthy run."""

DIVERGED = 0.5
"""A training loss that rises again by less than this share of its lowest, or of its fall, has not diverged."""

WORTH = 0.01
"""A fall over the last stretch of less than this share of the loss is not worth a longer run."""

LAG = 0.3
"""Averaged weights lag where their loss is more than this share above that of the raw ones."""


def progress(facts: Facts) -> list[Statement]:
    """Sentences on what improved, in the order of the page."""
    looks, broken = read(facts.looks)
    found = _health(facts, broken)
    if len(looks) >= 2:
        found += [_fall(facts, looks), *_last_stretch(looks), *_average(facts, looks[-1])]
    elif not broken:
        text = "The loss of held-out images was not followed in this run, so progress is known from the training loss "
        text += "alone; `unstir train` follows it where images are held out and log.held_out_images is not 0."
        found.append(not_measured("held-out loss", "progress", "losses", text))
    return found + _quality(facts)


def _health(facts: Facts, broken: Sequence[int]) -> list[Statement]:
    """Steps skipped, losses that are no numbers, and whether the training loss fell and stayed down."""
    found = []
    skipped = max((line["skipped"] for line in facts.metrics if is_number(line.get("skipped"))), default=0)
    if skipped:
        text = f"{count(skipped, 'optimiser step')} of {facts.step:,} had no finite gradient and changed nothing."
        verdict: Verdict = "bad" if skipped >= SKIPPED * facts.step else "neutral"
        found.append(_said("skipped", "curves", verdict, counted(skipped), text))
    losses = [line.get("loss") for line in facts.metrics]
    missing = [line["step"] for line, loss in zip(facts.metrics, losses, strict=True) if not is_number(loss)]
    if missing or broken:
        first = min((*missing, *broken))
        where: Shown = "curves" if missing else "losses"
        text = f"Training diverged: from step {first:,} on there are losses that are no finite number."
        return [*found, _said("diverged", where, "bad", counted(len(missing) + len(broken)), text)]
    said = _training_loss([(line, loss) for line, loss in zip(facts.metrics, losses, strict=True) if loss])
    if len(facts.looks) >= 2:  # the same images at each look tell of a fall what noisy batches leave undecided
        said = [each for each in said if each.verdict != "undecided"]
    return found + said


def _training_loss(lines: Sequence[tuple[dict[str, Any], Any]]) -> list[Statement]:
    """Whether the training loss fell from the first stretch to the last, and rose again from its lowest one."""
    lines = [(line, loss) for line, loss in lines if is_number(loss)]
    size = max(len(lines) // STRETCHES, FEWEST)
    blocks = [lines[start : start + size] for start in range(len(lines) % size, len(lines), size)]
    if len(blocks) < 2:
        return []
    levels = [level([loss for _, loss in block]) for block in blocks]
    (first, *_), (last, *_) = levels[0], levels[-1]
    lowest = min(range(len(levels)), key=lambda k: levels[k][0])
    low = levels[lowest][0]
    rise = difference(levels[lowest], levels[-1], choices=len(levels))
    if rise.decided and rise.value > 0:
        diverged = last - low > DIVERGED * max(first - low, low)
        name, what = ("diverged", "Training diverged: its") if diverged else ("training rose", "The training")
        by = f"{with_error(rise.value, rise.error)} ({percent(rise.value / low)})"
        text = f"{what} loss rose again by {by}, from {low:.3g} around step {blocks[lowest][-1][0]['step']:,} to "
        text += f"{last:.3g} at the end."
        return [_said(name, "curves", "bad", rise, text)]
    return [_training_fall(blocks)]


def _training_fall(blocks: Sequence[Sequence[tuple[dict[str, Any], float]]]) -> Statement:
    """Whether the training loss fell, tested on its logarithm: a steep beginning hides no fall then."""
    before, after = (level([math.log(max(loss, LEAST)) for _, loss in block]) for block in (blocks[0], blocks[-1]))
    fall = difference(before, after)
    first, last = math.exp(before[0]), math.exp(after[0])
    stretch = f"from {first:.3g} up to step {blocks[0][-1][0]['step']:,} to {last:.3g} from step "
    stretch += f"{blocks[-2][-1][0]['step']:,} on"
    share = math.exp(fall.value)
    change = f"{with_error(100 * (share - 1), 100 * share * fall.error, sign=True)}%" if share < TIMES else times(share)
    size = f"{change} in the geometric mean"
    if not fall.decided:
        text = f"Whether the training loss fell is undecided: it went {stretch} ({size})."
        return _said("training loss", "curves", "undecided", fall, text)
    if fall.value > 0:  # though the mean, which a few large losses make, has not surely risen
        text = f"The training loss did not fall: it went {stretch} ({size})."
        return _said("training loss", "curves", "neutral", fall, text)
    text = f"The training loss fell {stretch}, {size}."
    return _said("training loss", "curves", "good", fall, text)


def _fall(facts: Facts, looks: Sequence[Look]) -> Statement:
    """The whole change of the held-out loss, and by when most of it had come."""
    first, last = looks[0], looks[-1]
    change = paired(first.held_out, last.held_out)
    began = "in the untrained network" if first.step == 0 else f"after {count(first.images, 'image')}"
    scale = " (1 is predicting no noise at all)" if facts.config.diffusion.predict == "eps" else ""
    span = f"from {with_error(first.loss, None)} {began} to {with_error(last.loss, None)} after "
    span += f"{count(last.images, 'training image')}{scale}, by {with_error(abs(change.value), change.error)}"
    if not change.decided:
        text = f"Whether the loss on held-out images fell is undecided: it went {span}."
        verdict: Verdict = "undecided"
    elif change.value > 0:
        text, verdict = f"The loss on held-out images rose {span}.", "bad"
    else:
        enough = first.loss + 0.9 * change.value
        when = next(look for look in looks if look.loss <= enough)
        most = "" if when is last else f"; 90% of the fall had come by {count(when.images, 'image')}"
        text = f"The loss on held-out images fell {span}{most}."
        verdict = "good"
    return _said("fall", "losses", verdict, change, text)


def _last_stretch(looks: Sequence[Look]) -> list[Statement]:
    """Whether the last doubling (or so) of the images seen still helped, tested on the same images before and after.

    A fall that matters, of training images too, says that the network is not trained out: "under-fitted".
    """
    last, half = looks[-1], half_way(looks)
    if half is None:
        return []
    change = paired(half.held_out, last.held_out)
    times = f"{last.images / half.images:.2g}-fold"
    span = f"from {half.images:,} to {last.images:,} training images ({times})"
    size = f"{with_error(abs(change.value), change.error)} ({percent(abs(change.value) / half.loss)} of it)"
    if not change.decided:
        size = with_error(change.value, change.error, sign=True)
        text = f"Whether the last stretch, {span}, still changed the held-out loss is undecided ({size})."
        return [_said("last stretch", "losses", "undecided", change, text)]
    if change.value > 0:
        text = f"The held-out loss rose over the last stretch, {span}, by {size}."
        return [_said("last stretch", "losses", "bad", change, text)]
    text = f"The held-out loss was still falling: over the last stretch, {span}, by {size}"
    on_train = paired(half.train, last.train) if last.train else None
    falls = on_train is None or (on_train.decided and on_train.value < 0)
    if -change.value < WORTH * half.loss or not falls:
        return [_said("last stretch", "losses", "good", change, f"{text}.")]
    if on_train is not None:
        text += f", and that of training images by {with_error(-on_train.value, on_train.error)}"
    return [_said("under-fitted", "losses", "bad", change, f"{text}: the network is not trained out.")]


def _average(facts: Facts, last: Look) -> list[Statement]:
    """Whether the averaged weights lag: worse on training images without dropout than the raw ones were with it."""
    config = facts.config
    lines: list[Any] = [line.get("loss") for line in facts.metrics if last.step * 0.7 < line["step"] <= last.step]
    alike = config.train.ema_decay > 0 and config.loss.is_simple and config.loss.times == "uniform"
    if not alike or len(last.train) < 2 or len(lines) < FEWEST or not all(is_number(loss) for loss in lines):
        return []
    behind = two_sample(lines, last.train)
    if not behind.decided or behind.value < LAG * fmean(lines):
        return []
    text = f"The averaged weights lag: their loss on training images is {with_error(behind.value, behind.error)} above "
    text += f"the {with_error(fmean(lines), mean_error(lines))} of the raw weights, though those have dropout to bear."
    if not config.model.dropout:
        text = text.replace(", though those have dropout to bear", " at the same time")
    return [_said("average lags", "losses", "bad", behind, text)]


def _quality(facts: Facts) -> list[Statement]:
    """The main figure from the first to the last step judged, and from about half way."""
    if facts.last is None:
        return []
    key = facts.last.main_key
    steps = [each for each in facts.by_step if key in each.figures and each.images > 0]
    if len(steps) < 2:
        text = "Only one saved step was judged, so when the pictures became better is not known; "
        text += "`unstir evaluate RUN --checkpoint all` judges the others."
        return [not_measured("quality by step", "progress", "quality", text)]
    last = steps[-1]
    halves = [each for each in steps[1:-1] if last.images >= 1.3 * each.images]
    found = [("quality by step", steps[0])]
    if halves:
        nearest = min(halves, key=lambda each: abs(math.log2(last.images / each.images) - 1))
        found.append(("quality, last stretch", nearest))
    made = []
    for name, before in found:
        a, b = before.figures[key], last.figures[key]
        change = figure_effect(a, b)
        span = (
            f"from {shown(a)} after {count(before.images, 'image')} to {shown(b)} after {count(last.images, 'image')}"
        )
        better = (change.value < 0) == (b.better == LOWER)
        verdict: Verdict = "undecided" if not change.decided else "good" if better else "bad"
        if verdict == "undecided":
            text = (
                f"Whether {b.name} changed {span} is undecided ({with_error(change.value, change.error, sign=True)})."
            )
        else:
            text = f"{b.name} became {'better' if better else 'worse'}, {span}."
        made.append(_said(name, "quality", verdict, change, text))
    return made


def _said(name: str, figure: Shown, verdict: Verdict, effect: Effect, text: str) -> Statement:
    return Statement(name=name, topic="progress", text=text, figure=figure, verdict=verdict, effect=effect)
