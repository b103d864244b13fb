"""How near the samples are to real images, and how much of the real variety they have."""

import math

from unstir.metrics import trust
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.figures import LOWER, Figure, above_floor, as_share
from unstir.report.analysis_figures import beside, shown
from unstir.report.facts import Facts
from unstir.report.statement import Statement, Topic, Verdict, not_measured
from unstir.report.wording import count, percent, with_error
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
    """Sentences on the main figure beside that of real images, on classes, and on what the finite n adds."""
    last = facts.last
    if last is None:
        text = "How good the samples are was not measured; `unstir evaluate RUN` does it."
        return [not_measured("excess", "quality", "quality", text)]
    figure, num = last.figures[last.main_key], last.protocol["num"]
    found = [*_excess(last, figure, num), *_beyond_noise(figure), *_unused(last), *_bias(figure)]
    if (right := last.figures.get("classifier/accuracy")) is not None:
        found += _accuracy(facts, right, num)
    if (classes := last.figures.get("classifier/classes")) is not None:
        found += _classes(as_share(classes, num), num)
    return found


def diversity(facts: Facts) -> list[Statement]:
    """Sentences on precision, density, recall and coverage, each against that of real images."""
    last = facts.last
    figures = {} if last is None else {key: beside(last, key) for key in MEANINGS}
    found = []
    for key, figure in figures.items():
        if last is None or figure is None:
            continue
        num = last.protocol["num"]
        figure = figure if key == "density" else as_share(figure, num)
        least = figure.floor_estimate(num)
        apart = above_floor(figure, num)
        if least is None or apart is None:
            continue
        text = (
            f"{key.capitalize()}, {MEANINGS[key]}, is {shown(figure)}; held-out images reach {with_error(*least[:2])}"
        )
        found.append(_beside_real(key, "diversity", text, apart, higher_is_better=True))
    measured = next((figure for figure in figures.values() if figure is not None and figure.floor is not None), None)
    if not found and last is not None and measured is not None:
        text = (
            f"Whether samples are as varied as real images is undecided: {last.protocol['num']:,} were compared with "
        )
        text += f"{count(measured.num_floor, 'held-out image')}, and these figures depend on the number."
        return [not_measured("varied", "diversity", "quality", text)]
    if not found:
        text = "How varied the samples are was not measured; `unstir evaluate RUN` compares them with real images."
        return [not_measured("coverage", "diversity", "grids", text)]
    return found


def _excess(last: Evaluation, figure: Figure, num: int) -> list[Statement]:
    """The main figure, how many times that of real images it is, and whether it tells the samples from them."""
    head = f"{figure.name} is {shown(figure)} ({_how(last)})"
    least, apart = figure.floor_estimate(num), above_floor(figure, num)
    if least is None or apart is None:
        text = f"{head}; there are not as many held-out images to hold it against."
        return [not_measured("excess", "quality", "quality", text)]
    real, size = with_error(*least[:2]), with_error(apart.value, apart.error, sign=True)
    worse = (apart.value > 0) == (figure.better == LOWER)
    times = _times(figure, least, apart)
    if not apart.decided:
        text = f"{head}; real images that it has not seen have {real}. Whether they differ is undecided ({size})"
        below = _below(figure, least)
        if below is None:
            return [_made("excess", "quality", f"{text}.", "undecided", apart)]
        text += f", but it is decidedly less than {NEAR:g} times theirs (by {with_error(below.value, below.error)})."
        return [_made("near", "quality", text, "good", below)]
    if worse:
        text = f"{head}, {times}that of real images ({real}): the samples can still be told from real images ({size})."
        return [_made("excess", "quality", text, "bad", apart)]
    text = f"{head}, {times}that of real images that are not in the reference ({real}): nearer than new images can be, "
    return [_made("too near", "quality", f"{text}as copies are ({size}).", "bad", apart)]


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
    if figure.better != LOWER:
        return None
    below = difference(figure.estimate, Estimate(NEAR * least.value, NEAR * least.error, least.df))
    return below if below.positive else None


def _beyond_noise(figure: Figure) -> list[Statement]:
    """That the samples are further from real images than noise is, where they are."""
    if figure.ceiling is None:
        return []
    value, error, df = figure.estimate
    beyond = effect(value - figure.ceiling, error, df, "Student's t")
    if not beyond.decided or (beyond.value > 0) != (figure.better == LOWER):
        return []
    text = f"The samples are further from real images than uniform noise: {figure.name} is "
    text += f"{with_error(abs(beyond.value), beyond.error)} beyond that of noise, {figure.ceiling:.3g}."
    return [_made("beyond noise", "quality", text, "bad", beyond)]


def _unused(last: Evaluation) -> list[Statement]:
    """That the data's classifier is not trusted, and what is used in its place."""
    entry = last.protocol.get("classifier")
    if not entry or entry["used"] or (text := trust.describe(last.protocol)) is None:
        return []
    text = f"{text[0].upper()}{text[1:]}."
    return [Statement(name="classifier", topic="quality", text=text, figure="quality", verdict="neutral")]


def _bias(figure: Figure) -> list[Statement]:
    """How much of the main figure is owed to the number of images."""
    if figure.infinite is None:
        return []
    owed = difference(Estimate(*figure.infinite, figure.estimate.df), figure.estimate)
    if not owed.decided:
        return []
    text = f"Of {figure.name}, {with_error(owed.value, owed.error)} is owed to the finite number of samples: "
    text += f"extrapolated to infinitely many it is {with_error(*figure.infinite)}."
    return [_made("finite number", "quality", text, "neutral", owed)]


def _accuracy(facts: Facts, figure: Figure, num: int) -> list[Statement]:
    """How often a sample shows the class it was asked for, against real images."""
    held_out = facts.data.counts.get("held_out", 0)
    if figure.floor is None or not held_out:
        return []
    of_real = (figure.floor * (1 - figure.floor) / held_out) ** 0.5
    apart = difference(Estimate(figure.floor, of_real, held_out - 1.0), as_share(figure, num).estimate)
    text = f"The classifier names the class asked for in {percent(figure.value)} of the samples "
    text += f"({shown(figure)}) and in {percent(figure.floor)} of held-out images"
    return [_beside_real("class accuracy", "quality", text, apart, higher_is_better=True)]


def _classes(figure: Figure, num: int) -> list[Statement]:
    """Whether classes come up as often as in the data."""
    apart = above_floor(figure, num)
    if apart is None or figure.floor is None:
        return []
    text = (
        f"The shares of the classes are {shown(figure)} away from those of the data (0 is alike, 1 is none in common; "
    )
    text += f"real images: {figure.floor:.2g})"
    return [_beside_real("classes", "quality", text, apart, higher_is_better=False)]


def _beside_real(name: str, topic: Topic, text: str, apart: Effect, higher_is_better: bool) -> Statement:
    """A figure beside that of real images, and whether they differ."""
    size = with_error(apart.value, apart.error, sign=True)
    if not apart.decided:
        return _made(name, topic, f"{text}; whether they differ is undecided ({size}).", "undecided", apart)
    worse = (apart.value < 0) == higher_is_better
    end = "worse" if worse else "no worse than real images"
    return _made(name, topic, f"{text}: {end} ({size}).", "bad" if worse else "good", apart)


def _made(name: str, topic: Topic, text: str, verdict: Verdict, of: Effect) -> Statement:
    return Statement(name=name, topic=topic, text=text, figure="quality", verdict=verdict, effect=of)
