"""Several runs side by side on one page: what can be shown of all, and figures where they are of one protocol."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unstir.data import Store
from unstir.errors import printable
from unstir.insight import charts, pictures, tables
from unstir.insight.facts import Facts
from unstir.insight.gather import gather, own_evaluations
from unstir.insight.page import write_page
from unstir.insight.statement import MARKS, Verdict, change, size
from unstir.metrics.evaluation import Evaluation, unlike
from unstir.metrics.figures import figure_effect, in_rows, verdict
from unstir.pictures.charts import mean_losses
from unstir.runs import toml
from unstir.runs.run import Run

ByRun = tuple[str, list[str]]  # a row of a table: what it is about, and the text of each run


def write(runs: Sequence[Run], stores: Sequence[Store | None], path: Path) -> list[Facts]:
    """Write the page of several runs and return their facts. Of figures that do not compare it says what differs."""
    alike, reasons = same_protocol(runs)
    protocol = alike[0].protocol if alike else None
    pairs = zip(runs, stores, strict=True)
    facts = [gather(run.name, store=store, samples=False, protocol=protocol) for run, store in pairs]
    names, steps = [it.name for it in facts], [it.step for it in facts]
    if len(set(names)) < len(names):  # of folders that are called alike, the paths
        names = [printable(str(run.path)) for run in runs]
    of_figures = _with_steps(names, [it.step for it in alike], steps) if alike else names
    named = list(zip(_with_steps(names, steps, steps), facts, strict=True))
    keys = [key for key in alike[0].figures if all(key in item.figures for item in alike)] if alike else []
    settings = tables.settings(facts) if keys else []
    differing, metrics = _settings(facts), [(name, it.lines) for name, it in named]
    trained = {name: [line for line in it.held_out if line["step"]] for name, it in named if _losses_compare(facts)}
    losses = {name: mean_losses(lines, "held_out") for name, lines in trained.items()}
    shown: dict[str, Any] = {
        "names": [name for name, _ in named],
        "classes": facts[0].data.classes,
        "of_figures": of_figures,
        "summary": _summary(of_figures, alike, differing),
        "alike": alike,
        "reasons": reasons,
        "left_out": [text for it in facts for text in it.left_out],
        "figures": _figures(alike, keys),
        "trainings": tables.trainings(settings, keys) if len(settings) < len(facts) else [],
        "verdicts": _verdicts(of_figures, alike, keys),
        "cost": _cost(facts),
        "settings": differing,
        "curves": [charts.curve(metrics, "loss", "training loss")] if any(it.lines for it in facts) else [],
        "held_out": charts.by_images(losses, "held-out loss, sampling weights", "all-held-out"),
        "real": _real(facts),
        "runs": named,
    }
    key, main = (alike[0].main_key, alike[0].main().name) if alike else ("", "")
    series = {name: charts.by_value((at.images, at.figures[key]) for at in it.by_step) for name, it in named if alike}
    shown["quality"] = charts.by_images(series, main, "all-quality")
    write_page(path, "comparison.html", shown)
    return facts


def _with_steps(names: Sequence[str], steps: Sequence[int], trained: Sequence[int]) -> list[str]:
    """The names of runs with the steps of what is shown, where these differ or are older than what was ``trained``."""
    if len(set(steps)) == 1 and list(steps) == list(trained):
        return list(names)
    return [f"{name} (step {step:,})" for name, step in zip(names, steps, strict=True)]


def _losses_compare(facts: Sequence[Facts]) -> bool:
    diffusions = [dataclasses.replace(it.config.diffusion, learned_variance=False) for it in facts]
    times = [line.get("times") for it in facts for line in it.held_out]
    alike = [it.data.content_hash for it in facts], diffusions, times
    return all(item == of[0] for of in alike for item in of)


def _summary(names: Sequence[str], alike: Sequence[Evaluation], settings: Sequence[ByRun]) -> list[str]:
    texts = ["Their figures do not compare; what differs is below."]
    if alike:
        texts = [text for text, _ in _verdicts(names, alike, [alike[0].main_key])]
    keys = [key for key, _ in settings]
    some = f"{', '.join(keys[:3])}{' and others' if len(keys) > 3 else ''}" if keys else "nothing but their training"
    return [*texts, f"They differ in {some}."]


def _real(facts: Sequence[Facts]) -> pictures.Picture | None:
    if len({it.data.content_hash for it in facts}) > 1:
        return None
    return next(filter(None, (pictures.real_grid(it.run, it.store) for it in facts)), None)


def _figures(alike: Sequence[Evaluation], keys: Sequence[str]) -> list[tuple[str, list[str], str]]:
    columns = [in_rows((item.figures[key] for key in keys), item.protocol["num"]) for item in alike]
    rows = zip(*columns, strict=True)
    return [(row[0][0], [*(of_run[1] for of_run in row), row[0][2]], row[0][4]) for row in rows]


def _verdicts(names: Sequence[str], alike: Sequence[Evaluation], keys: Sequence[str]) -> list[tuple[str, Verdict]]:
    """Of each run but the first and each figure a sentence, whether it is better than the first, and a mark."""
    sentences = []
    for (name, other), key in itertools.product(list(zip(names, alike, strict=False))[1:], keys):
        figure = alike[0].figures[key]
        effect = figure_effect(figure, other.figures[key])
        which = verdict(effect, figure.better)
        text = f"{name} is {which} than {names[0]}, by {size(effect)}"
        if not effect.decided:
            text = f"whether {name} differs from {names[0]} is undecided ({change(effect)})"
        sentences.append((f"{figure.name}: {text}.", MARKS[which]))
    return sentences


def _cost(facts: Sequence[Facts]) -> list[ByRun]:
    steps, data = [f"{it.step:,} of {it.run.length:,}" for it in facts], [it.data.content_hash[:12] for it in facts]
    took = [
        (" or ".join(dict.fromkeys(name for name, _ in rows)), [value for _, value in rows])
        for rows in zip(*map(tables.cost, facts), strict=True)
    ]
    return [("step", steps), *took, ("data", data)]


def _settings(facts: Sequence[Facts]) -> list[ByRun]:
    flat = [toml.flat(it.config) for it in facts]
    keys = dict.fromkeys(key for item in flat for key in item)
    result = [(key, [str(item.get(key, "")) for item in flat]) for key in keys]
    return [(key, values) for key, values in result if len(set(values)) > 1]


def same_protocol(runs: Sequence[Run]) -> tuple[list[Evaluation], list[str]]:
    """The newest evaluation of each run, all by the protocol of most images; or none, and in sentences what differs."""
    of_all = [own_evaluations(run)[0] for run in runs]
    newest = [[it for it in evaluations if it.step == evaluations[-1].step] for evaluations in of_all]

    def weight(of: Evaluation) -> tuple[int, int]:
        num = sum(not unlike(of.protocol, it.protocol) for it in itertools.chain(*of_all))
        return num, of.protocol["num"] * of.protocol["seeds"]

    candidates = sorted(itertools.chain(*newest), key=weight, reverse=True)
    for first in candidates:
        alike = [it for side in newest for it in side if not unlike(first.protocol, it.protocol)]
        if len(alike) == len(runs):
            return alike, []
    reasons = (_reason(run, side, candidates[0]) for run, side in zip(runs, newest, strict=True) if candidates)
    return [], list(filter(None, reasons)) or ["None of these runs was evaluated yet."]


def _reason(run: Run, evaluations: Sequence[Evaluation], like: Evaluation) -> str:
    if not evaluations:
        return f"{run.path} was not evaluated."
    differences = min((unlike(it.protocol, like.protocol) for it in evaluations), key=len)
    return f"{run.path}: {'; '.join(differences)}." if differences else ""
