"""Several runs side by side on one page: what can be shown of all, and figures where they are of one protocol."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unstir.data import Store
from unstir.errors import printable
from unstir.metrics.evaluation import Evaluation, unlike
from unstir.metrics.figures import figure_effect, verdict
from unstir.report import charts, pictures, tables
from unstir.report.alike import Sides, same_protocol
from unstir.report.facts import Facts
from unstir.report.gather import gather
from unstir.report.page import write_page
from unstir.report.wording import change, size
from unstir.runs import toml
from unstir.runs.run import Run

TITLES = {
    "grids": "Samples",
    "figures": "Figures",
    "curves": "Losses",
    "cost": "What they are and took",
    "settings": "Settings that differ",
}
"""The sections in the order of the page."""


def write(runs: Sequence[Run], stores: Sequence[Store | None], path: Path) -> list[Facts]:
    """Write the page of several runs and return their facts. Figures that do not compare are left out, and why said."""
    facts = [gather(run, store) for run, store in zip(runs, stores, strict=True)]
    sides, names = same_protocol(runs), names_of(runs)
    alike = sides.alike
    steps = [it.step for it in alike] or [it.step for it in facts]
    if len(set(steps)) > 1:  # a comparison of unequal training says so wherever it names a run
        names = [f"{name} (step {step:,})" for name, step in zip(names, steps, strict=True)]
    settings, metrics = _settings(facts), [(name, it.metrics) for name, it in zip(names, facts, strict=True)]
    held_out = {name: charts.mean_losses(it.held_out, "held_out") for name, it in zip(names, facts, strict=True)}
    shown: dict[str, Any] = {
        "names": names,
        "classes": facts[0].data.classes,
        "summary": _summary(names, sides, settings),
        "sides": sides,
        "figures": _figures(alike),
        "verdicts": _verdicts(names, alike),
        "cost": _cost(facts),
        "settings": settings,
        "curves": [charts.curve(metrics, "loss", "training loss", True)] if any(it.metrics for it in facts) else [],
        "held_out": charts.by_images(held_out, "held-out loss, sampling weights", "fig-all-held-out"),
        "quality": _quality(names, facts, alike),
        "real": _real(runs, stores),
        "newest": [(name, pictures.newest_grid(run)) for name, run in zip(names, runs, strict=True)],
        "snapshots": [(name, pictures.snapshots(run)) for name, run in zip(names, runs, strict=True)],
        "sections": list(TITLES.items()),
    }
    write_page(path, "comparison.html", shown)
    return facts


def common(alike: Sequence[Evaluation]) -> list[str]:
    """The keys of the figures that all of them have."""
    return [key for key in alike[0].figures if all(key in each.figures for each in alike)] if alike else []


def names_of(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its folder's, or its whole path where two folders are called alike."""
    short = [printable(run.path.resolve().name) for run in runs]
    return short if len(set(short)) == len(short) else [printable(str(run.path)) for run in runs]


def _summary(names: Sequence[str], sides: Sides, settings: Sequence[Any]) -> list[str]:
    """What to know first: whether the figures compare, the main one's verdicts, and how many settings differ."""
    keys = [key for key, _ in settings]
    some = f"{', '.join(keys[:3])}{' and others' if len(keys) > 3 else ''}" if keys else "nothing but their training"
    found = [f"They differ in {some}."]
    if not sides.alike:
        return ["Their figures do not compare; what differs, and what to do, is below.", *found]
    main = sides.alike[0].main_key
    verdicts = [text for text, _ in _verdicts(names, sides.alike, (main,))]
    return [*verdicts, *found]


def _real(runs: Sequence[Run], stores: Sequence[Store | None]) -> pictures.Picture | None:
    """Real images, where all runs learned from the same and they are there."""
    there = [
        (run, store) for run, store in zip(runs, stores, strict=True) if store is not None and store.count("train")
    ]
    return pictures.real_grid(*there[0]) if there and len({run.data.content_hash for run in runs}) == 1 else None


def _figures(alike: Sequence[Evaluation]) -> list[tuple[str, list[str], str]]:
    """A row per figure: its name, the value of each run and that of real images, and which is better."""
    rows = []
    for key in common(alike):
        figure = alike[0].figures[key]
        values = [tables.plus_minus(e.figures[key].value, e.figures[key].error) for e in alike]
        rows.append((figure.name, [*values, tables.bound(figure.floor)], figure.better))
    return rows


def _verdicts(names: Sequence[str], alike: Sequence[Evaluation], keys: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Of each figure (all, without ``keys``) and run a sentence, whether it is better than the first, and a mark."""
    sentences = []
    for name, other in zip(names[1:], alike[1:], strict=True) if alike else ():
        for key in keys or common(alike):
            figure = alike[0].figures[key]
            effect = figure_effect(figure, other.figures[key])
            which = verdict(effect, figure.better)
            said = f"{name} is {which} than {names[0]}, by {size(effect)}"
            if which == "undecided":
                said = f"whether {name} differs from {names[0]} is undecided ({change(effect)})"
            mark = {"better": "good", "worse": "bad"}.get(which, "undecided")
            sentences.append((f"{figure.name}: {said}.".replace("+-", "±"), mark))
    return sentences


def _cost(facts: Sequence[Facts]) -> list[tuple[str, list[str]]]:
    """What the runs took, a column per run."""
    own = [
        [("step", f"{it.step:,} of {it.length:,}"), *tables.cost(it), ("data", it.data.content_hash[:12])]
        for it in facts
    ]
    return [(rows[0][0], [value for _, value in rows]) for rows in zip(*own, strict=True)]


def _settings(facts: Sequence[Facts]) -> list[tuple[str, list[str]]]:
    """The settings in which the runs differ."""
    flat = [toml.flat(it.config) for it in facts]
    keys = dict.fromkeys(key for each in flat for key in each)
    found = [(key, [str(each.get(key, "")) for each in flat]) for key in keys]
    return [(key, values) for key, values in found if len(set(values)) > 1]


def _quality(names: Sequence[str], facts: Sequence[Facts], alike: Sequence[Evaluation]) -> list[str]:
    if not alike:
        return []
    key, name = alike[0].main_key, alike[0].main().name
    own = [[e for e in it.by_step if not unlike(alike[0].protocol, e.protocol)] for it in facts]
    series = {run: charts.by_value((e.images, e.figures[key]) for e in of) for run, of in zip(names, own, strict=True)}
    return charts.by_images(series, name, "fig-all-quality")
