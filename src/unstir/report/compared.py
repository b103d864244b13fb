"""Several runs side by side on one page, compared on figures of one protocol alone."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import unstir
from unstir.data import Store
from unstir.errors import UserError
from unstir.metrics.evaluation import Evaluation, difference, saved, unlike
from unstir.report import charts, pictures, svg
from unstir.report.facts import Facts
from unstir.report.gather import gather
from unstir.report.page import plus_minus, render_template
from unstir.report.wording import duration, operations
from unstir.runs import toml
from unstir.runs.files import write_text
from unstir.runs.run import Run


@dataclass(frozen=True)
class Pair:
    """One moment of all runs: the grid of each that is nearest in images seen."""

    when: str
    pictures: tuple[tuple[str, pictures.Picture], ...]


def write(runs: Sequence[Run], stores: Sequence[Store | None], path: Path) -> None:
    """Write the page of several runs. Raises UserError where their figures were not made by one protocol."""
    write_text(path, render(runs, stores))


def render(runs: Sequence[Run], stores: Sequence[Store | None]) -> str:
    """The page as HTML. Raises UserError as `write`."""
    alike = same_protocol(runs)
    facts = [gather(run, store) for run, store in zip(runs, stores, strict=True)]
    names = names_of(runs)
    if len({each.step for each in alike}) > 1:  # a comparison of unequal training says so wherever it names a run
        names = [f"{name} (step {each.step:,})" for name, each in zip(names, alike, strict=True)]
    shown: dict[str, Any] = {
        "names": names,
        "alike": alike,
        "protocol": alike[0].protocol if alike else {},
        "table": _table(alike),
        "verdicts": _verdicts(names, alike),
        "rows": _rows(facts),
        "settings": _settings(facts),
        "curves": _overlay(names, facts, "loss", "training loss, log"),
        "held_out": _held_out(names, facts),
        "quality": _quality(names, facts, alike),
        "grids": _pairs(names, runs),
        "version": unstir.__version__,
        "anchors": {},
    }
    return render_template("comparison.html", shown)


def same_protocol(runs: Sequence[Run]) -> list[Evaluation]:
    """The newest evaluation of each run, all by one protocol; none where no run was judged.

    Raises UserError, naming what differs, where runs were judged but by no common protocol, or some were not judged.
    """
    of_each = [_newest(saved(run)) for run in runs]
    if not any(of_each):
        return []
    for run, found in zip(runs, of_each, strict=True):
        if not found:
            raise UserError(f"{run.path} was not judged and others were; run unstir evaluate {run.path} first")
    for first in reversed(of_each[0]):
        matches = [next((e for e in found if not unlike(first.protocol, e.protocol)), None) for found in of_each]
        if all(match is not None for match in matches):
            return [match for match in matches if match is not None]
    nearest: tuple[Evaluation, ...] = min(
        itertools.product(*of_each), key=lambda them: sum(len(unlike(them[0].protocol, e.protocol)) for e in them)
    )
    worst = max(nearest, key=lambda e: len(unlike(nearest[0].protocol, e.protocol)))
    different = "; ".join(unlike(nearest[0].protocol, worst.protocol))
    raise UserError(
        f"the figures of these runs do not compare: {different}; judge all by one protocol with unstir evaluate, on "
        "the same data"
    )


def _newest(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    newest = max((each.step for each in evaluations), default=0)
    return [each for each in evaluations if each.step == newest]


def common(alike: Sequence[Evaluation]) -> list[str]:
    """The keys of the figures that all of them have."""
    return [key for key in alike[0].figures if all(key in each.figures for each in alike)]


def names_of(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its folder's, or its whole path where two folders are called alike."""
    short = [run.path.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.path) for run in runs]


def _table(alike: Sequence[Evaluation]) -> list[tuple[str, list[str], str, str]]:
    """A row a figure: its name, the value of each run, that of real images, and which way is better."""
    if not alike:
        return []
    rows = []
    for key in common(alike):
        figure = alike[0].figures[key]
        cells = [plus_minus(e.figures[key].value, e.figures[key].error) for e in alike]
        floor = "–" if figure.floor is None else f"{figure.floor:.4g}"
        rows.append((figure.name, cells, floor, figure.better))
    return rows


def _verdicts(names: Sequence[str], alike: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """A sentence a figure and run: whether it is better than the first, and a mark."""
    sentences = []
    for name, other in zip(names[1:], alike[1:], strict=True) if alike else ():
        for key in common(alike):
            figure = alike[0].figures[key]
            gap, error, verdict = difference(other.figures[key], figure)
            bar = "" if error is None else f" ± {error:.2g}"
            if verdict == "undecided":
                said = f"whether {name} differs from {names[0]} is undecided ({gap:+.3g}{bar})"
            else:
                said = f"{name} is {verdict} than {names[0]}, by {abs(gap):.3g}{bar}"
            mark = {"better": "good", "worse": "bad"}.get(verdict, "undecided")
            sentences.append((f"{figure.name}: {said}.", mark))
    return sentences


def _rows(facts: Sequence[Facts]) -> list[tuple[str, list[str]]]:
    return [
        ("parameters", [f"{it.cost.parameters:,}" for it in facts]),
        ("step", [f"{it.step:,} of {it.length:,}" for it in facts]),
        ("training images seen", [f"{it.cost.images:,}" for it in facts]),
        ("time", [duration(it.cost.seconds) for it in facts]),
        ("training FLOP", [operations(it.cost.training_flops) for it in facts]),
        ("data", [it.data.content_hash[:12] for it in facts]),
    ]


def _settings(facts: Sequence[Facts]) -> list[tuple[str, list[str]]]:
    """The settings in which the runs differ."""
    flat = [toml.flat(it.config) for it in facts]
    keys = dict.fromkeys(key for each in flat for key in each)
    found = [(key, [str(each.get(key, "")) for each in flat]) for key in keys]
    return [(key, values) for key, values in found if len(set(values)) > 1]


def _overlay(names: Sequence[str], facts: Sequence[Facts], key: str, title: str) -> str | None:
    with svg.style():
        drawn = svg.figure(9, 3)
        axes = drawn.subplots()
        for name, it in zip(names, facts, strict=True):
            axes.plot(*svg.finite(it.metrics, key), label=svg.plain(name))
        if not any(line.get_xdata().size for line in axes.lines):
            return None
        axes.set(title=title, yscale="log")
        svg.images_axis(axes)
        svg.legend(axes)
        return svg.inline(drawn, f"fig-all-{key}", f"{title} of all runs by training images seen")


def _held_out(names: Sequence[str], facts: Sequence[Facts]) -> str | None:
    with svg.style():
        drawn = svg.figure(9, 3)
        axes = drawn.subplots()
        for name, it in zip(names, facts, strict=True):
            looks = [look for look in it.looks if look["step"] and look.get("of_held_out")]
            charts.bars(axes, [(k["images"], *charts.mean_of(k["of_held_out"])) for k in looks], svg.plain(name))
        if not axes.get_legend_handles_labels()[0]:
            return None
        axes.set(title="held-out loss with the sampling weights", yscale="log")
        svg.images_axis(axes, log=True)
        svg.legend(axes)
        return svg.inline(drawn, "fig-all-held-out", "Held-out loss of all runs by training images seen")


def _quality(names: Sequence[str], facts: Sequence[Facts], alike: Sequence[Evaluation]) -> str | None:
    if not alike:
        return None
    key = alike[0].main_key
    with svg.style():
        drawn = svg.figure(9, 3)
        axes = drawn.subplots()
        for name, it in zip(names, facts, strict=True):
            own = [e for e in it.by_step if not unlike(alike[0].protocol, e.protocol)]
            charts.bars(axes, charts.by_value((e.images, e.figures[key]) for e in own), svg.plain(name))
        axes.set(yscale="log", ylabel=alike[0].figures[key].name)
        svg.images_axis(axes, log=True)
        svg.legend(axes)
        return svg.inline(drawn, "fig-all-quality", f"{alike[0].figures[key].name} of all runs by training images seen")


def _pairs(names: Sequence[str], runs: Sequence[Run]) -> list[Pair]:
    """For each grid of the first run, the grids of the others nearest to it in images seen."""
    of_each = [[moment for moment in pictures.grids(run) if moment.images] for run in runs]
    if not all(of_each):
        return []
    found = []
    for moment in of_each[0]:
        nearest = [min(own, key=lambda m: abs(m.images - moment.images)) for own in of_each]
        when = f"about {moment.images:,} images seen"
        found.append(Pair(when, tuple((f"{n}: {m.when}", m.picture) for n, m in zip(names, nearest, strict=True))))
    return found
