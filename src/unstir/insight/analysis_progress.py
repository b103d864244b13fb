"""What improved when: the loss of held-out images, and quality by step."""

from collections.abc import Iterator, Sequence
from functools import partial

from unstir.insight.facts import Facts
from unstir.insight.held_out import STEEP, Measurement, last_stretch
from unstir.insight.statement import MARKS, Statement
from unstir.insight.wording import brief, change, count, percent, shown, size, with_error
from unstir.metrics.figures import figure_effect
from unstir.metrics.figures import verdict as verdict_of
from unstir.significance import paired


def progress(facts: Facts) -> Iterator[Statement]:
    """Sentences on what improved, in the order of the page."""
    measured = facts.measured
    if len(measured) >= 2:
        yield _fall(facts, measured)
        yield from _last_stretch(facts, measured)
    else:
        text = "Whether the loss on held-out images fell is not known: it was not followed, or at one step alone."
        yield Statement("fall", "progress", "losses", "undecided", text)
    yield from _quality(facts)


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
        if facts.step < facts.length:
            yield said("more to gain", verdict="neutral", text=f"{text}; the run is not at its end.")
        elif last.steep:
            text += f": the run is under-fitted, for each doubling still gained {percent(STEEP)} or more."
            yield said("under-fitted", verdict="bad", text=text)
        else:
            yield said("more to gain", verdict="neutral", text=f"{text}: longer training may gain a little more.")


def _quality(facts: Facts) -> Iterator[Statement]:
    """The main figure from the first to the last step evaluated."""
    key = "" if facts.last is None else facts.last.main_key
    steps = [each for each in facts.by_step if key in each.figures and each.images > 0]
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
