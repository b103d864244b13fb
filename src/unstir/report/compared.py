"""Several runs side by side on one page: what can be shown of all, and figures where they are of one protocol.

Where their figures do not compare, what differs and the commands that mend it.
"""

import dataclasses
import itertools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unstir.data import Store
from unstir.errors import printable
from unstir.metrics.drawn import usual_chain
from unstir.metrics.evaluation import FID, SHARES, Evaluation, saved, unlike
from unstir.metrics.figures import figure_effect, in_columns, verdict
from unstir.report import charts, pictures, tables
from unstir.report.facts import Facts
from unstir.report.gather import gather
from unstir.report.page import write_page
from unstir.report.statement import MARKS, Verdict
from unstir.report.wording import change, size
from unstir.runs import build, toml
from unstir.runs.run import Run

SECTIONS = (
    ("grids", "Samples"),
    ("figures", "Figures"),
    ("curves", "Losses"),
    ("cost", "What they are and took"),
    ("settings", "Settings that differ"),
)
"""By their ids, in the order of the page."""

ByRun = tuple[str, list[str]]  # a row of a table: what it is about, and the text of each run


def write(runs: Sequence[Run], stores: Sequence[Store | None], path: Path) -> list[Facts]:
    """Write the page of several runs and return their facts. Figures that do not compare are left out, and why said."""
    facts = [gather(run, store) for run, store in zip(runs, stores, strict=True)]
    sides, names = same_protocol(runs), [it.name for it in facts]
    alike = sides.alike
    if len(set(names)) < len(names):  # of folders that are called alike, the paths
        names = [printable(str(run.path)) for run in runs]
    of_figures = _with_steps(names, [it.step for it in alike or facts], [it.step for it in facts])
    names = _with_steps(names, [it.step for it in facts])
    keys = [key for key in alike[0].figures if all(key in each.figures for each in alike)] if alike else []
    settings, metrics = _settings(facts), [(name, it.metrics) for name, it in zip(names, facts, strict=True)]
    losses = {name: charts.mean_losses(it.held_out, "held_out") for name, it in zip(names, facts, strict=True)}
    held_out = losses if losses_compare(runs, facts) else {}
    shown: dict[str, Any] = {
        "names": names,
        "classes": facts[0].data.classes,
        "of_figures": of_figures,
        "summary": _summary(of_figures, alike, settings),
        "sides": sides,
        "figures": _figures(alike, keys),
        "verdicts": _verdicts(of_figures, alike, keys),
        "cost": _cost(facts),
        "settings": settings,
        "curves": [charts.curve(metrics, "loss", "training loss", True)] if any(it.metrics for it in facts) else [],
        "held_out": charts.by_images(held_out, "held-out loss, sampling weights", "fig-all-held-out"),
        "quality": _quality(names, facts, alike),
        "real": _real(runs, stores),
        "newest": [(name, pictures.newest_grid(run)) for name, run in zip(names, runs, strict=True)],
        "snapshots": [(name, pictures.snapshots(run)) for name, run in zip(names, runs, strict=True)],
        "sections": SECTIONS,
    }
    write_page(path, "comparison.html", shown)
    return facts


def _with_steps(names: Sequence[str], steps: Sequence[int], trained: Sequence[int] = ()) -> list[str]:
    """The names of runs with the steps of what is shown, where these differ or are older than what was ``trained``."""
    if len(set(steps)) == 1 and not any(step < last for step, last in zip(steps, trained, strict=False)):
        return list(names)
    return [f"{name} (step {step:,})" for name, step in zip(names, steps, strict=True)]


def losses_compare(runs: Sequence[Run], facts: Sequence[Facts]) -> bool:
    """Whether held-out losses are of the same data, forward process, target and times in all runs."""
    diffusions = [dataclasses.replace(run.config.diffusion, learned_variance=False) for run in runs]
    times = [line.get("times") for it in facts for line in it.held_out]
    alike = [run.data.content_hash for run in runs], diffusions, times
    return all(each == of[0] for of in alike for each in of)


def _summary(names: Sequence[str], alike: Sequence[Evaluation], settings: Sequence[ByRun]) -> list[str]:
    """What to know first: whether the figures compare, the main one's verdicts, and how many settings differ."""
    keys = [key for key, _ in settings]
    some = f"{', '.join(keys[:3])}{' and others' if len(keys) > 3 else ''}" if keys else "nothing but their training"
    found = ["Their figures do not compare; what differs, and what to do, is below."]
    if alike:
        found = [text for text, _ in _verdicts(names, alike, [alike[0].main_key])]
    return [*found, f"They differ in {some}."]


def _real(runs: Sequence[Run], stores: Sequence[Store | None]) -> pictures.Picture | None:
    """Real images, where all runs learned from the same and they are there."""
    one = len({run.data.content_hash for run in runs}) == 1
    pairs = zip(runs, stores, strict=True)
    there = ((run, store) for run, store in pairs if one and store is not None and store.count("train"))
    return next((pictures.real_grid(run, store) for run, store in there), None)


def _figures(alike: Sequence[Evaluation], keys: Sequence[str]) -> list[tuple[str, list[str], str]]:
    """A row per figure: its name, the value of each run and that of real images, and which is better."""
    columns = [in_columns(each.figures[key] for key in keys) for each in alike]
    rows = []
    for key, texts in zip(keys, zip(*columns, strict=True), strict=True):
        first = alike[0].figures[key]
        rows.append((first.name, [*(each.whole for each in texts), texts[0].real], first.better))
    return rows


def _verdicts(names: Sequence[str], alike: Sequence[Evaluation], keys: Sequence[str]) -> list[tuple[str, Verdict]]:
    """Of each run but the first and each figure a sentence, whether it is better than the first, and a mark."""
    sentences = []
    for (name, other), key in itertools.product(list(zip(names, alike, strict=False))[1:], keys):
        figure = alike[0].figures[key]
        effect = figure_effect(figure, other.figures[key])
        which = verdict(effect, figure.better)
        said = f"{name} is {which} than {names[0]}, by {size(effect)}"
        if not effect.decided:
            said = f"whether {name} differs from {names[0]} is undecided ({change(effect)})"
        sentences.append((f"{figure.name}: {said}.".replace("+-", "±"), MARKS[which]))
    return sentences


def _cost(facts: Sequence[Facts]) -> list[ByRun]:
    """What the runs took."""
    steps, data = [f"{it.step:,} of {it.length:,}" for it in facts], [it.data.content_hash[:12] for it in facts]
    took = [
        (" or ".join(dict.fromkeys(name for name, _ in rows)), [value for _, value in rows])
        for rows in zip(*map(tables.cost, facts), strict=True)
    ]
    return [("step", steps), *took, ("data", data)]


def _settings(facts: Sequence[Facts]) -> list[ByRun]:
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


@dataclass(frozen=True)
class Sides:
    """The newest evaluation of each run by one protocol, ``alike``; or none, and why: ``reasons`` and ``remedies``.

    A reason is a sentence; a remedy is a command that makes the figures comparable.
    """

    alike: tuple[Evaluation, ...] = ()
    reasons: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()


def same_protocol(runs: Sequence[Run]) -> Sides:
    """The newest evaluation of each run, all by one protocol; or what differs, and the commands that mend it.

    Of several protocols it is that by which most was evaluated, as on the page of one run; of these, with most images.
    """
    of_all = [saved(run) for run in runs]
    of_each = [[each for each in found if each.step == found[-1].step] for found in of_all]  # the newest
    if not any(of_each):
        commands = tuple(f"unstir evaluate {shlex.quote(str(run.path))}" for run in runs)
        return Sides((), ("None of these runs was evaluated yet.",), commands)

    def weight(of: Evaluation) -> tuple[int, int]:
        num = sum(not unlike(of.protocol, each.protocol) for each in itertools.chain(*of_all))
        return num, of.protocol["num"] * of.protocol["seeds"]

    for first in sorted(of_each[0], key=weight, reverse=True):
        matches = [next((e for e in found if not unlike(first.protocol, e.protocol)), None) for found in of_each]
        if all(matches):
            return Sides(tuple(match for match in matches if match is not None))
    like = _most_alike(of_each)
    sides = [_side(run, found, like) for run, found in zip(runs, of_each, strict=True)]
    reasons, remedies = zip(*(side for side in sides if side is not None), strict=True)
    return Sides((), tuple(reasons), tuple(remedy for remedy in remedies if remedy))


def _most_alike(of_each: Sequence[Sequence[Evaluation]]) -> Evaluation:
    """The evaluation that differs from the nearest ones of the other runs in the fewest keys; of equals the first."""

    def apart(of: Evaluation) -> int:
        return sum(min(len(unlike(of.protocol, each.protocol)) for each in found) for found in of_each if found)

    return min(itertools.chain(*of_each), key=apart)


def _side(run: Run, found: Sequence[Evaluation], like: Evaluation) -> tuple[str, str] | None:
    """Why no figures of a run compare with ``like``, and the command that makes them; None where some do."""
    asked = like.protocol
    nearest = min(found, key=lambda each: len(unlike(asked, each.protocol)), default=None)
    if nearest is not None and not unlike(asked, nearest.protocol):
        return None
    name = str(run.path)
    why = f"{name} was not evaluated." if nearest is None else f"{name}: {'; '.join(unlike(nearest.protocol, asked))}."
    own = _by_default(run)
    if asked["data"] != own["data"]:
        return f"{why} No command makes figures of two data sets comparable.", ""
    if (asked["label"] is None) != (own["label"] is None):
        return f"{why} Figures of a network with classes and of one without never compare.", ""
    if not run.config.kind.takes(asked["sampler"]):
        return f"{why} Figures of images that consistency draws and of others never compare.", ""
    differing = [key for key, value in own.items() if key in asked and asked[key] != value]
    options = {"num": asked["num"], "seeds": asked["seeds"], **{key: asked[key] for key in differing}}
    if asked["num_reference"] != run.data.counts[asked["split"]]:
        options["reference"] = asked["num_reference"]
    command = ["unstir", "evaluate", name, *itertools.chain(*(_option(run, *pair, like) for pair in options.items()))]
    if FID in like.figures:
        command.append("--fid")
    elif nearest is not None and nearest.protocol["networks"] != asked["networks"]:
        why += " All must be evaluated with one store: name it with --store."
    return why, shlex.join(command)


def _by_default(run: Run) -> dict[str, Any]:
    """The keys of a protocol that options of `unstir evaluate` set, as they are without any; and the data."""
    chain = dataclasses.replace(usual_chain(run), seed=0)
    sampling = dataclasses.asdict(chain) | {"steps": chain.cost(build.schedule(run.config.diffusion)).steps}
    label = SHARES if run.config.model.num_classes else None
    known = {"data": run.data.content_hash, "label": label, "guide": None, "split": "train"}
    dtype = build.dtype_name("auto", build.device("auto"))
    return {**known, **sampling, "ema": run.config.train.ema_decay > 0, "dtype": dtype}


def _option(run: Run, key: str, value: Any, like: Evaluation) -> list[str]:
    """A key of a protocol as an option of `unstir evaluate`."""
    name = f"--{key.replace('_', '-')}"
    if key == "steps":  # of more steps some spacings visit no more times
        how, schedule = like.protocol, build.schedule(run.config.diffusion)
        chains = (usual_chain(run).changed(spacing=how["spacing"], steps=n) for n in range(1, schedule.T + 1))
        value = next((each.steps for each in chains if each.cost(schedule).steps == value), value)
    if key == "ema" and not isinstance(value, bool):
        name = "--ema-width"
    if isinstance(value, bool):
        return [name if value else f"--no-{key}"]
    return [name, str(value)]
