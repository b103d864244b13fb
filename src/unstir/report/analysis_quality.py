"""How near the samples are to real images, and how much of the real variety they have."""

import math

from unstir.metrics.evaluation import Evaluation, describe_classifier
from unstir.metrics.figures import LOWER, Figure, above_floor, as_share
from unstir.report.facts import Facts, same_features
from unstir.report.statement import Statement, Topic
from unstir.report.wording import change, count, percent, shown, size, with_error
from unstir.significance import LEVEL, Effect, Estimate, difference, effect

NEAR = 2.0
"""A distance that is decidedly below so many times that of real images is called good."""

MEANINGS = {
    "precision": "the share of samples that lie among real images",
    "density": "how densely real images lie around the samples",
    "recall": "the share of real images that lie among the samples",
    "coverage": "the share of real images with a sample nearby",
}


def quality(facts: Facts) -> list[Statement]:
    """Sentences on the main figure against that of real images, on classes, and on what the finite n adds."""
    last = facts.last
    if last is None:
        text = "How good the samples are was not measured; `unstir evaluate RUN` does it."
        return [Statement("excess", "quality", "quality", "undecided", text)]
    figure, num = last.main(), last.protocol["num"]
    found = [_excess(last, figure, num), *_beyond_noise(figure), *_untrusted(last), *_bias(figure)]
    if (right := last.figures.get("classifier/accuracy")) is not None:
        found += _accuracy(facts, right, num)
    if (classes := last.figures.get("classifier/classes")) is not None:
        found += _classes(as_share(classes, num), num)
    return found


def diversity(facts: Facts) -> list[Statement]:
    """Sentences on precision, density, recall and coverage, each against that of real images."""
    last, found, num_floor = facts.last, [], 0
    num = 0 if last is None else last.protocol["num"]
    for key, meaning in MEANINGS.items():
        figure = None if last is None else same_features(last, key)
        if figure is None or figure.floor is None:
            continue
        num_floor = num_floor or figure.num_floor
        figure = figure if key == "density" else as_share(figure, num)
        least, apart = figure.floor_estimate(num), above_floor(figure, num)
        if least is not None and apart is not None:
            text = f"{key.capitalize()}, {meaning}, is {shown(figure)}; held-out images reach {with_error(*least[:2])}"
            found.append(_against_real(key, "diversity", text, apart, higher_is_better=True))
    if found:
        return found
    if num_floor:
        text = f"Whether samples are as varied as real images is undecided: {num:,} were compared with "
        text += f"{count(num_floor, 'held-out image')}, and these figures depend on the number."
        return [Statement("varied", "diversity", "quality", "undecided", text)]
    text = "How varied the samples are was not measured; `unstir evaluate RUN` compares them with real images."
    return [Statement("coverage", "diversity", "grids", "undecided", text)]


def _excess(last: Evaluation, figure: Figure, num: int) -> Statement:
    """The main figure, how many times that of real images it is, and whether it tells the samples from them."""
    head = f"{figure.name} is {shown(figure)} ({_how(last)})"
    least, apart = figure.floor_estimate(num), above_floor(figure, num)
    if least is None or apart is None:
        text = f"{head}; there are not as many held-out images to hold it against."
        return Statement("excess", "quality", "quality", "undecided", text)
    real, times = with_error(*least[:2]), _times(figure, least, apart)
    if not apart.decided:
        text = f"{head}; real images that it has not seen have {real}. Whether they differ is undecided "
        text += f"({change(apart)})"
        below = _below(figure, least)
        if below is None:
            return Statement("excess", "quality", "quality", "undecided", f"{text}.", apart)
        text += f", but it is decidedly less than {NEAR:g} times theirs (by {size(below)})."
        return Statement("near", "quality", "quality", "good", text, below)
    if (apart.value > 0) == (figure.better == LOWER):
        text = f"{head}, {times}that of real images ({real}): the samples can still be distinguished from real images "
        return Statement("excess", "quality", "quality", "bad", f"{text}({change(apart)}).", apart)
    text = f"{head}, {times}that of real images that are not in the reference ({real}): nearer than new images can be, "
    return Statement("too near", "quality", "quality", "bad", f"{text}as copies are ({change(apart)}).", apart)


def _how(last: Evaluation) -> str:
    """What the main figure was made of, and how good the classifier is whose features it is in."""
    how = last.protocol
    sets = f"{count(how['seeds'], 'set')} of {count(how['num'], 'image')}, {how['sampler']} with "
    sets += count(how["calls"], "call")
    entry = how.get("classifier")
    if entry and entry["used"] and last.main_key.startswith("classifier/"):
        sets += f"; its classifier is right in {percent(entry['accuracy'])} of {entry['num']:,} held-out images"
    return sets


def _times(figure: Figure, least: Estimate, apart: Effect) -> str:
    """The ratio of a distance to that of real images with its error, "2.1 +- 0.3 times "; else that it is beyond.

    The error is that of a quotient to first order, widened as that of the difference. Where the figure of real images
    is itself within its errors of 0, a ratio to it says nothing.
    """
    value, error, _ = figure.estimate
    if figure.better != LOWER or least[0] <= LEVEL * least[1] or not math.isfinite(error):
        return "beyond "
    ratio, widened = value / least[0], apart.error / max(math.hypot(error, least[1]), 1e-300)
    return f"{with_error(ratio, ratio * math.hypot(error / value, least[1] / least[0]) * widened)} times "


def _below(figure: Figure, least: Estimate) -> Effect | None:
    """How much a distance is below `NEAR` times that of real images, where that is decided."""
    below = difference(figure.estimate, Estimate(NEAR * least.value, NEAR * least.error, least.df))
    return below if figure.better == LOWER and below.positive else None


def _beyond_noise(figure: Figure) -> list[Statement]:
    """That the samples are further from real images than noise is, where they are."""
    if figure.ceiling is None:
        return []
    value, error, df = figure.estimate
    beyond = effect(value - figure.ceiling, error, df, "Student's t")
    if not beyond.decided or (beyond.value > 0) != (figure.better == LOWER):
        return []
    text = f"The samples are further from real images than uniform noise: {figure.name} is {size(beyond)} beyond that "
    text += f"of noise, {figure.ceiling:.3g}."
    return [Statement("beyond noise", "quality", "quality", "bad", text, beyond)]


def _untrusted(last: Evaluation) -> list[Statement]:
    """That the data's classifier is not trusted, and what is used in its place."""
    entry = last.protocol.get("classifier")
    if not entry or entry["used"] or (text := describe_classifier(last.protocol)) is None:
        return []
    return [Statement("classifier", "quality", "quality", "neutral", f"{text[0].upper()}{text[1:]}.")]


def _bias(figure: Figure) -> list[Statement]:
    """How much of the main figure is due to the number of images."""
    if figure.infinite is None:
        return []
    due = difference(Estimate(*figure.infinite, figure.estimate.df), figure.estimate)
    if not due.decided:
        return []
    text = f"Of {figure.name}, {with_error(due.value, due.error)} is due to the finite number of samples: "
    text += f"extrapolated to infinitely many it is {with_error(*figure.infinite)}."
    return [Statement("finite number", "quality", "quality", "neutral", text, due)]


def _accuracy(facts: Facts, figure: Figure, num: int) -> list[Statement]:
    """How often a sample shows the class it was asked for, against real images."""
    held_out = facts.data.counts.get("held_out", 0)
    if figure.floor is None or not held_out:
        return []
    of_real = (figure.floor * (1 - figure.floor) / held_out) ** 0.5
    apart = difference(Estimate(figure.floor, of_real, held_out - 1.0), as_share(figure, num).estimate)
    text = f"The classifier names the class asked for in {percent(figure.value)} of the samples "
    text += f"({shown(figure)}) and in {percent(figure.floor)} of held-out images"
    return [_against_real("class accuracy", "quality", text, apart, higher_is_better=True)]


def _classes(figure: Figure, num: int) -> list[Statement]:
    """Whether classes come up as often as in the data."""
    apart = above_floor(figure, num)
    if apart is None or figure.floor is None:
        return []
    text = f"The shares of the classes are {shown(figure)} away from those of the data (0 is alike, 1 is none in "
    text += f"common; real images: {figure.floor:.2g})"
    return [_against_real("classes", "quality", text, apart, higher_is_better=False)]


def _against_real(name: str, topic: Topic, text: str, apart: Effect, higher_is_better: bool) -> Statement:
    """A figure against that of real images, and whether they differ."""
    if not apart.decided:
        text += f"; whether they differ is undecided ({change(apart)})."
        return Statement(name, topic, "quality", "undecided", text, apart)
    if (apart.value < 0) == higher_is_better:
        return Statement(name, topic, "quality", "bad", f"{text}: worse ({change(apart)}).", apart)
    return Statement(name, topic, "quality", "good", f"{text}: no worse than real images ({change(apart)}).", apart)
