"""How near the samples are to real images, and how much of the real variety they have."""

from unstir.metrics.evaluation import LOWER, Evaluation, Figure
from unstir.report.analysis_figures import above_floor, as_share, beside, floor, known, shown
from unstir.report.facts import Facts
from unstir.report.statement import Statement, Topic, Verdict, not_measured
from unstir.report.statistics import LEVEL, Effect, difference, effect
from unstir.report.wording import count, percent, with_error

NEAR = 0.9
"""So much of the way from noise to real images is called good."""

MEANINGS = {
    "precision": "the share of samples that lie among real images",
    "density": "how densely real images lie around the samples",
    "recall": "the share of real images that lie among the samples",
    "coverage": "the share of real images with a sample nearby",
}


def quality(facts: Facts) -> list[Statement]:
    """Sentences on the main figure between noise and real images, on classes, and on what the finite n adds."""
    last = facts.last
    if last is None:
        text = "How good the samples are was not measured; `unstir evaluate RUN` does it."
        return [not_measured("way", "quality", "quality", text)]
    figure, num = last.figures[last.main_key], last.protocol["num"]
    found = [*_way(last, figure), *_excess(figure, num), *_bias(figure)]
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
        least = floor(figure, num)
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


def _way(last: Evaluation, figure: Figure) -> list[Statement]:
    """What share of the way from noise to real images the samples have gone."""
    if figure.ceiling is None or figure.floor is None:
        return []
    whole = figure.ceiling - figure.floor
    value, error, df = known(figure)
    gone = effect((figure.ceiling - value) / whole, error / abs(whole), df, "Student's t")
    sets = f"{count(len(figure.by_seed), 'set')} of {count(last.protocol['num'], 'image')}"
    calls = count(last.protocol["calls"], "call")
    text = f"{figure.name} is {shown(figure)} ({sets}, {last.protocol['sampler']} with {calls}; real images have "
    text += f"{figure.floor:.3g}, noise {figure.ceiling:.3g}): "
    if not gone.decided:
        text += "whether the samples are nearer to real images than noise is undecided."
        return [_made("way", "quality", text, "undecided", gone)]
    if gone.value < 0:
        return [_made("way", "quality", f"{text}the samples are further from real images than noise.", "bad", gone)]
    text += f"{percent(gone.value)} of the way from noise to real images."
    beyond = gone.value - 1 > LEVEL * gone.error  # nearer than real images are is no success
    return [_made("way", "quality", text, "good" if gone.value >= NEAR and not beyond else "neutral", gone)]


def _excess(figure: Figure, num: int) -> list[Statement]:
    """Whether the samples can be told from real images by the main figure."""
    apart = above_floor(figure, num)
    if apart is None:
        return []
    by = with_error(abs(apart.value), apart.error)
    worse = (apart.value > 0) == (figure.better == LOWER)
    if not apart.decided:
        size = with_error(apart.value, apart.error, sign=True)
        text = f"Whether {figure.name} differs from that of real images it has not seen is undecided ({size})."
        return [_made("excess", "quality", text, "undecided", apart)]
    if worse:
        text = f"The samples can still be told from real images: {figure.name} is {by} beyond that of real images."
    else:
        text = f"{figure.name} is {by} nearer than that of real images that are not in the reference: "
        text += "nearer than new images can be, as copies are."
    return [_made("excess" if worse else "too near", "quality", text, "bad", apart)]


def _bias(figure: Figure) -> list[Statement]:
    """How much of the main figure is owed to the number of images."""
    if figure.infinite is None:
        return []
    owed = difference((*figure.infinite, known(figure)[2]), known(figure))
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
    apart = difference((figure.floor, of_real, held_out - 1.0), known(as_share(figure, num)))
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
