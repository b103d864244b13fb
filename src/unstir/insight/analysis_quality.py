"""How near the samples are to real images, how much of the real variety they have, and whether they are copies."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

from unstir.insight.facts import Evaluated, same_features
from unstir.insight.statement import Statement, Topic
from unstir.insight.wording import brief, change, count, percent, shown, size, with_error
from unstir.metrics.evaluation import Evaluation, of_images
from unstir.metrics.figures import LOWER, Figure, above_floor, as_share
from unstir.metrics.memorisation import Memorisation
from unstir.significance import LEVEL, Effect, Estimate, Precedence, difference, exact

NEAR = 2.0  # a distance that is decidedly below so many times that of real images is called good

MEANINGS = {
    "precision": "the share of samples that lie among real images",
    "recall": "the share of real images that lie among the samples",
}


def quality(facts: Evaluated) -> Iterator[Statement]:
    """Sentences on the main figure against that of real images, and on classes."""
    last, said = facts.last, partial(Statement, topic="quality", figure="quality")
    if last is None:
        text = "How good the samples are was not measured; `unstir evaluate RUN` does it."
        yield said("excess", verdict="undecided", text=text)
        return
    figure = last.main()
    yield _excess(last, figure, last.protocol["num"], facts.older)
    yield from _accuracy(facts, last)
    yield from _classes(last)


def diversity(facts: Evaluated) -> Iterator[Statement]:
    """Sentences on precision and recall, each against that of real images."""
    if (last := facts.last) is None:
        return
    num = last.protocol["num"]
    for key, meaning in MEANINGS.items():
        if (found := same_features(last, key)) is None or found.floor is None:
            continue
        figure = as_share(found, num)
        least, apart = figure.floor_estimate(num), above_floor(figure, num)
        if least is not None and apart is not None:
            text = f"{key.capitalize()}, {meaning}, is {shown(figure)}; held-out images reach {with_error(*least[:2])}"
            yield _against_real(key, "diversity", text, apart, higher_is_better=True)


def _excess(last: Evaluation, figure: Figure, num: int, older: str) -> Statement:
    """The main figure, how many times that of real images it is, and whether it tells the samples from them.

    ``older`` says of which step it is where that is not the run's.
    """
    said = partial(Statement, "excess", "quality", "quality")
    head = f"{figure.name}{older and f', {older},'} is {shown(figure)} ({_how(last)})"
    least, apart = figure.floor_estimate(num), above_floor(figure, num)
    if least is None or apart is None:
        return said("undecided", f"{head}; there are not as many held-out images to hold it against.")
    real, times = with_error(*least[:2]), _times(figure, least, apart)
    if not apart.decided:
        text = f"{head}; real images that it has not seen have {real}. Whether they differ is undecided "
        text += f"({change(apart)})"
        below = difference(figure.estimate, Estimate(NEAR * least.value, NEAR * least.error, least.df))
        if figure.better != LOWER or not below.positive:
            return said("undecided", f"{text}.", apart)
        text += f", but it is decidedly less than {NEAR:g} times theirs (by {size(below)})."
        return Statement("near", "quality", "quality", "good", text, below)
    if (apart.value > 0) == (figure.better == LOWER):
        text = f"{head}, {times}that of real images ({real}): the samples can still be distinguished from real images "
        return said("bad", f"{text}({change(apart)}).", apart)
    text = f"{head}, {times}that of real images that are not in the reference ({real}): nearer than new images can be, "
    return Statement("too near", "quality", "quality", "bad", f"{text}as copies are ({change(apart)}).", apart)


def _how(last: Evaluation) -> str:
    """What the main figure was made of, and how good the classifier is whose features it is in."""
    how = last.protocol
    sets = f"{count(how['seeds'], 'set')} of {count(how['num'], 'image')}"
    if not of_images(how):
        sets += f", {how['sampler']} with {count(how['calls'], 'call')}"
    if (entry := how.get("classifier")) and entry["used"] and last.main_key.startswith("classifier/"):
        sets += f"; its classifier is right in {percent(entry['accuracy'])} of {entry['num']:,} held-out images"
    return sets


def _times(figure: Figure, least: Estimate, apart: Effect) -> str:
    """The ratio of a distance to that of real images with its error, "2.1 +- 0.3 times "; else that it is beyond.

    The error is that of a quotient to first order, widened as that of the difference. Where the figure of real images
    is itself within its errors of 0, a ratio to it says nothing.
    """
    value, error, _ = figure.estimate
    if figure.better != LOWER or least.value <= LEVEL * least.error or not math.isfinite(error):
        return "beyond "
    ratio, widened = value / least.value, apart.error / max(math.hypot(error, least.error), 1e-300)
    return f"{with_error(ratio, ratio * math.hypot(error / value, least.error / least.value) * widened)} times "


def _accuracy(facts: Evaluated, last: Evaluation) -> Iterator[Statement]:
    """How often a sample shows the class it was asked for, against real images."""
    figure, held_out = last.figures.get("classifier/accuracy"), facts.data.counts["held_out"]
    if figure is not None and figure.floor is not None and held_out:
        of_real = (figure.floor * (1 - figure.floor) / held_out) ** 0.5
        estimate = as_share(figure, last.protocol["num"]).estimate
        apart = difference(Estimate(figure.floor, of_real, held_out - 1.0), estimate)
        text = f"The classifier names the class asked for in {percent(figure.value)} of the samples "
        text += f"({shown(figure)}) and in {percent(figure.floor)} of held-out images"
        yield _against_real("class accuracy", "quality", text, apart, higher_is_better=True)


def _classes(last: Evaluation) -> Iterator[Statement]:
    """Whether classes come up as often as in the data."""
    if (found := last.figures.get("classifier/classes")) is not None:
        figure = as_share(found, last.protocol["num"])
        if (apart := above_floor(figure, last.protocol["num"])) is not None:
            text = f"The shares of the classes are {shown(figure)} away from those of the data (0 is alike, 1 is none "
            text += f"in common; real images: {figure.floor:.2g})"
            yield _against_real("classes", "quality", text, apart, higher_is_better=False)


def _against_real(name: str, topic: Topic, text: str, apart: Effect, higher_is_better: bool) -> Statement:
    """A figure against that of real images, and whether they differ."""
    said, by = partial(Statement, name, topic, "quality"), f"({change(apart)})."
    if not apart.decided:
        return said("undecided", f"{text}; whether they differ is undecided {by}", apart)
    if (apart.value < 0) == higher_is_better:
        return said("bad", f"{text}: worse {by}", apart)
    return said("good", f"{text}: no worse than real images {by}", apart)


def memorisation(facts: Evaluated) -> list[Statement]:
    """The sentence on copies, from the newest evaluation that looked for them."""
    said = partial(Statement, "copies", "memorisation", "neighbours", "undecided")
    found = next((each.memorisation for each in reversed(facts.by_step) if each.memorisation is not None), None)
    if found is None:
        text = "Whether samples are copies of training images was not measured; `unstir evaluate RUN` does it."
        return [said(text)]
    copies = [(space.name, space.copies) for space in found.spaces if space.copies is not None]
    if not copies:
        text = f"Whether samples are copies is undecided: {count(found.num, 'sample')} and "
        return [said(f"{text}{count(found.num_held_out, 'held-out image')} are too few.")]
    return [_copies(found, copies)]


def _copies(found: Memorisation, tests: Sequence[tuple[str, Precedence]]) -> Statement:
    """More samples than new images would have at a training image of their own: the exact test of `precedence`."""
    said = partial(Statement, "copies", "memorisation", "neighbours")
    space, test = min(tests, key=lambda each: each[1].p)
    more = test.count - test.expected
    surplus = exact(more, test.p, "precedence test", len(tests))
    so_many = f"{test.count:,} of {count(found.num, 'sample')} lie closer to one single training image than new "
    so_many += f"images do, of which {brief(test.expected)} would"
    by = f"by {space}, p = {test.p:.2g}"
    if surplus.positive:
        text = f"Samples are copies: {so_many} ({by}; {with_error(more, surplus.error)} too many)."
        return said("bad", text, surplus)
    if found.verdict == "copies":
        text = f"Some samples may be copies: {so_many} ({by}). Chance does that once in a hundred runs or less; at the "
        return said("undecided", f"{text}level of this page it is undecided.", surplus)
    text = f"No copies show, though that there are none is undecided: {so_many} ({by})"
    text += "" if test.least is None else f"; fewer than {test.least:,} of them would not show"
    return said("undecided", f"{text}.", surplus)
