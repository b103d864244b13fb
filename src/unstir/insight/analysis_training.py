"""What improved when, and how the network fits images that it was not trained on."""

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import fmean

from unstir.insight.facts import Facts
from unstir.insight.held_out import Measurement, grown, last_stretch
from unstir.insight.statement import MARKS, Statement, change, count, percent, shown, size
from unstir.metrics.figures import figure_effect
from unstir.metrics.figures import verdict as verdict_of
from unstir.significance import paired, two_sample, with_error

WORTH = 0.01  # a gap between splits of less than this share of the loss is not worth acting on


def progress(facts: Facts) -> Iterator[Statement]:
    """Sentences on what improved, in the order of the page."""
    measured = facts.measured
    if len(measured) >= 2:
        yield _fall(facts, measured)
        yield from _last_stretch(facts)
    else:
        yield Statement("fall", "progress", "losses", "missing", "whether the loss on held-out images fell")
    yield from _quality(facts)


def _fall(facts: Facts, measured: Sequence[Measurement]) -> Statement:
    first, last, state = measured[0], measured[-1], partial(Statement, "fall", "progress", "losses")
    fall = paired(first.held_out, last.held_out)
    start = f"with the weights of {facts.config.train.init}" if facts.config.train.init else "in the untrained network"
    began = start if first.step == 0 else f"after {count(first.images, 'image')}"
    scale = " (1 is predicting no noise at all)" if facts.config.diffusion.predict == "eps" else ""
    span = f"from {with_error(first.loss, None)} {began} to {with_error(last.loss, None)} after "
    span += f"{count(last.images, 'training image')}{scale}, by {size(fall)}"
    if not fall.decided:
        return state("undecided", f"Whether the loss on held-out images fell is undecided: it went {span}.", fall)
    if fall.value > 0:
        return state("bad", f"The loss on held-out images rose {span}.", fall)
    when = next(seen for seen in measured if seen.loss <= first.loss + 0.9 * fall.value)
    most = "" if when is last else f"; 90% of the fall had come by {count(when.images, 'image')}"
    return state("good", f"The loss on held-out images fell {span}{most}.", fall)


def _last_stretch(facts: Facts) -> Iterator[Statement]:
    """Whether the last doubling still helped. The check "still-falling" says where the run is too short."""
    last = last_stretch(facts.measured)
    if last is None or not last.gains or (last.steep and facts.finished):
        return
    text = f"The held-out loss was still falling over the last stretch, from {last.before.images:,} to "
    text += f"{last.after.images:,} training images, by {size(last.fall)} ({percent(last.share)} of it, "
    text += f"{percent(last.rate)} for each doubling of the images)"
    end = ": longer training may gain a little more." if facts.finished else "; the run is not at its end."
    yield Statement("more to gain", "progress", "losses", "neutral", text + end, last.fall)


def _quality(facts: Facts) -> Iterator[Statement]:
    key = "" if facts.last is None else facts.last.main_key
    steps = [of_step for of_step in facts.by_step if key in of_step.figures and of_step.images > 0]
    if len(steps) >= 2:
        a, b = steps[0].figures[key], steps[-1].figures[key]
        effect = figure_effect(a, b)
        became = verdict_of(effect, b.better)
        span = f"from {shown(a)} after {count(steps[0].images, 'image')} to {shown(b)} after "
        span += count(steps[-1].images, "image")
        text = f"{b.name} became {became}, {span}."
        if not effect.decided:
            text = f"Whether {b.name} changed {span} is undecided ({change(effect)})."
        yield Statement("quality by step", "progress", "quality", MARKS[became], text, effect)


def fit(facts: Facts) -> Iterator[Statement]:
    """Sentences on how the network fits images it was trained on and images it was not."""
    measured = facts.measured
    if len(measured) >= 2:
        yield _gap(measured[-1], _before_repeats(facts, measured))
    else:
        yield Statement("gap", "fit", "losses", "missing", "whether the network over-fits")


def _before_repeats(facts: Facts, measured: Sequence[Measurement]) -> Measurement | None:
    """The measurement before any image was seen twice: the last of the first epoch, else the first; None if unsure."""
    trained = [] if facts.config.train.init else [seen for seen in measured[:-1] if seen.step > 0]
    early = [seen for seen in trained if seen.images <= facts.data.counts["train"]]
    return early[-1] if early else trained[0] if trained else None


def _gap(last: Measurement, before: Measurement | None) -> Statement:
    state = partial(Statement, "gap", "fit", "losses")
    if not last.train:
        return state("missing", "the loss of training images beside that of held-out ones")
    growth = None if before is None else grown(before, last)
    fits_better = before is not None and fmean(last.train) <= fmean(before.train)
    if before is not None and growth is not None and growth.positive and fits_better:
        share = growth.value / last.loss
        text = f"Since step {before.step:,} the loss of held-out images has risen by {size(growth)} against that of "
        text += f"training images ({percent(share)} of the loss): some of the training images are memorised"
        if share < WORTH:
            return state("neutral", f"{text}, though not enough to matter.", growth)
        return state("bad", f"{text}.", growth)
    now = two_sample(last.train, last.held_out)
    if not now.decided:
        text = f"Whether held-out images have a higher loss than training images is undecided ({change(now)})."
        return state("undecided", text, now)
    if now.value < 0:
        text = f"Held-out images have a lower loss than training images ({change(now)}): they are the easier ones."
        return state("neutral", text, now)
    text = f"The loss of held-out images is {percent(now.value / last.loss)} higher than that of training images "
    text += f"({change(now)}), which they may be by nature: only a gap that grew since an earlier step would tell."
    return state("neutral", text, now)
