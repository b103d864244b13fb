"""A report as one HTML file that needs nothing else: no network, no fonts, no other file."""

import html
import math
import re
import shlex
import statistics
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import unstir
from unstir.data import Store
from unstir.generate import Job
from unstir.metrics.evaluate import usual_chain
from unstir.metrics.evaluation import FOLDER, Evaluation, Figure
from unstir.metrics.evaluation import shown as shown_value
from unstir.report import charts, pictures
from unstir.report.analysis import analyse
from unstir.report.facts import Facts
from unstir.report.gather import gather
from unstir.report.statement import TOPICS, Topic
from unstir.report.statistics import MULTIPLICITY
from unstir.report.wording import duration, operations, with_error
from unstir.runs import build, toml
from unstir.runs.files import write_text
from unstir.runs.run import Run

ANCHORS = {
    "grids": "the grids",
    "curves": "the curves",
    "losses": "the losses",
    "loss-by-time": "the loss by timestep",
    "quality": "the figures",
    "calls": "the plot of calls",
    "neighbours": "the nearest images",
    "cost": "the cost",
    "doctor": "the doctor's findings",
}
"""The parts of the page that a sentence may point to, and how."""

TOPIC_TITLES: dict[Topic, str] = {
    "progress": "What improved, and when",
    "quality": "How good it is",
    "fit": "Over- or under-fitting",
    "diversity": "Diversity",
    "memorisation": "Memorisation",
    "sampling": "Sampling",
    "cost": "Cost",
    "next": "What to try next",
}

TITLES = {
    "analysis": "Analysis",
    "grids": "Samples",
    "way": "Noise to image",
    "quality": "Quality",
    "calls": "Calls",
    "neighbours": "Nearest images",
    "training": "Training",
    "forward": "Forward process",
    "data": "Data",
    "cost": "Cost",
    "doctor": "Doctor",
    "settings": "Settings",
}


def environment(path: str = "RUN") -> Environment:
    """The templates, with everything that is put into them escaped; RUN in a command becomes ``path``."""
    made = Environment(
        loader=PackageLoader("unstir.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    made.filters["code"] = partial(with_code, path=path)
    return made


def with_code(text: str, path: str = "RUN") -> Markup:
    """Escaped text in which `this` is code, with ``path`` for RUN, and +- is the sign."""
    run = html.escape(shlex.quote(path))

    def code(found: re.Match[str]) -> str:
        command = re.sub(r"\bRUN\b", lambda _: run, found[1])
        return f"<code>{command}</code>"

    return Markup(re.sub(r"`([^`]+)`", code, html.escape(text.replace("+-", "±"), quote=False)))


def write(
    run: Run, store: Store | None, path: Path, protocol: Mapping[str, Any] | None = None, samples: bool = False
) -> None:
    """Write the report of a run, with its figures by ``protocol`` (None: the most that compare).

    With ``samples`` the doctor draws some of its own. ``store`` shows the data; without it those pictures are left out.
    """
    write_text(path, render(run, gather(run, store, protocol, samples), store))


def render(run: Run, facts: Facts, store: Store | None) -> str:
    """The report as HTML."""
    statements = analyse(facts)
    shown: dict[str, Any] = {
        "facts": facts,
        "lead": _lead(facts),
        "cards": _cards(facts),
        "rule": MULTIPLICITY,
        "topics": [(TOPIC_TITLES[topic], [s for s in statements if s.topic == topic]) for topic in TOPICS],
        "grids": pictures.grids(run),
        "curves": charts.curves(facts),
        "losses": charts.losses(facts),
        "by_time": charts.loss_by_time(facts),
        "quality": charts.quality(facts),
        "quality_caption": "Error bars are standard errors over seeds.",
        "calls": charts.calls(facts),
        "forward": charts.forward(facts),
        "table": _table(facts.last.figures.values(), facts.last.protocol["num"]) if facts.last else None,
        "protocol": _protocol(facts.last) if facts.last else "",
        "protocol_rows": [(key, shown_value(value)) for key, value in facts.last.protocol.items()]
        if facts.last
        else [],
        "neighbours": _neighbours(run, facts.last),
        "data": _data(facts, store),
        "cost": _cost(facts),
        "findings": facts.findings,
        "checked": ", ".join(facts.checked),
        "settings": list(toml.flat(facts.config).items()),
        "version": unstir.__version__,
        **_drawn(run, store),
    }
    shown["topics"] = [(title, own) for title, own in shown["topics"] if own]
    present = _present(shown)
    shown["sections"] = [(id_, title) for id_, title in TITLES.items() if id_ in present]
    shown["anchors"] = {id_: text for id_, text in ANCHORS.items() if id_ in present}
    return render_template("report.html", shown, str(run.path))


def render_template(template: str, shown: dict[str, Any], path: str = "RUN") -> str:
    """A page from its template, with the style and the script that all pages share."""
    loaded = environment(path)
    assets = {name: _asset(f"report.{name}") for name in ("css", "js")}
    return loaded.get_template(template).render(**assets, **shown).lstrip()


def _asset(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _present(shown: dict[str, Any]) -> set[str]:
    """The ids that the page has."""
    always = {"analysis", "quality", "training", "forward", "data", "cost", "doctor", "settings"}
    optional = {
        "grids": "grids",
        "strip": "way",
        "calls": "calls",
        "neighbours": "neighbours",
        "curves": "curves",
        "losses": "losses",
        "by_time": "loss-by-time",
    }
    return always | {id_ for key, id_ in optional.items() if shown[key]}


def _drawn(run: Run, store: Store | None) -> dict[str, Any]:
    """The pictures that need the weights or the data."""
    drawn: dict[str, Any] = dict.fromkeys(("strip", "moving", "forward_strip", "contact"))
    drawn |= {"chain": "", "forward_times": []}
    if run.saved_steps():
        job = Job(num=pictures.ANIMATED, chain=usual_chain(run), step=run.newest_step())
        drawn["strip"], drawn["moving"] = pictures.strip_and_animation(run, job)
        drawn["chain"] = f"{job.chain.sampler}, {job.chain.calls(build.schedule(run.config.diffusion))} calls"
    if store is not None and store.count("train"):
        drawn["forward_strip"], drawn["forward_times"] = pictures.forward(run, store)
        drawn["contact"] = pictures.contact_sheet(store)
    return drawn


def _lead(facts: Facts) -> str:
    where = "finished" if facts.step >= facts.length else f"at step {facts.step:,} of {facts.length:,}"
    shape = "x".join(map(str, facts.data.shape))
    recipe = f"recipe {facts.config.recipe}, " if facts.config.recipe else ""
    return f"A denoising diffusion model of {shape} images: {recipe}{facts.cost.parameters:,} parameters, {where}."


def _cards(facts: Facts) -> list[tuple[str, str, str]]:
    """The figures to see first."""
    cards = []
    if facts.last is not None:
        figure = facts.last.main()
        floor = "" if figure.floor is None else f"real images {figure.floor:.3g}"
        cards.append((figure.name, plus_minus(figure.value, figure.error), floor))
        if accuracy := facts.last.figures.get("classifier/accuracy"):
            real = "" if accuracy.floor is None else f"real images {accuracy.floor:.1%}"
            cards.append(("class accuracy", f"{accuracy.value:.1%}", real))
    look = facts.looks[-1] if facts.looks else None
    if found := (facts.likelihoods or {}).get("held_out"):
        cards.append(("bits/dim, held out", plus_minus(found["bits_per_dim"], found["standard_error"]), "the bound"))
    elif look and look.get("bits") is not None and math.isfinite(look["bits"]):
        cards.append(("bits/dim, held out", plus_minus(look["bits"], look["bits_error"]), "an estimate of the bound"))
    cards.append(("training images seen", f"{facts.cost.images:,}", _epochs(facts)))
    cards.append(("training time", duration(facts.cost.seconds), operations(facts.cost.training_flops)))
    return cards


def _epochs(facts: Facts) -> str:
    epochs = facts.cost.images / max(facts.data.counts["train"], 1)
    return f"{epochs:,.{1 if epochs < 100 else 0}f} times each image"


def plus_minus(value: float, error: float | None) -> str:
    """A figure with its standard error, with as many digits as that allows."""
    return with_error(value, error).replace("+-", "±")


def _table(found: Iterable[Figure], num: int) -> list[tuple[str, str, str, str, str, str]]:
    """A row a figure of ``num`` images; where the real ones are of another number, it says so."""

    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:.4g}"

    rows = []
    for figure in found:
        error = "–" if figure.error is None else f"{figure.error:.2g}"
        real = cell(figure.floor) + (f" (n = {figure.num_floor})" if figure.num_floor not in (0, num) else "")
        rows.append((figure.name, f"{figure.value:.4g}", error, real, cell(figure.ceiling), figure.better))
        if figure.infinite is not None:
            value, spread = figure.infinite
            real = "–" if figure.floor_infinite is None else f"{figure.floor_infinite[0]:.4g}"
            rows.append((f"{figure.name}, infinite n", f"{value:.4g}", f"{spread:.2g}", real, "–", figure.better))
    return rows


def _protocol(evaluation: Evaluation) -> str:
    how = evaluation.protocol
    guide = how.get("guide")
    away = f" away from {guide}" if guide else ""
    guided = f"guidance {how['guidance']:g}{away}, " if how.get("guidance", 1) != 1 else ""
    return (
        f"{how['seeds']} × {how['num']} images by {how['sampler']}, {how['calls']} calls, {guided}"
        f"{'averaged' if how['ema'] else 'raw'} weights, against {how['num_reference']:,} images of the {how['split']} "
        "split"
    )


def _neighbours(run: Run, last: Evaluation | None) -> pictures.Picture | None:
    if last is None:
        return None
    path = run.path / FOLDER / f"{last.name()}-pairs.png"
    shows = "samples that lie closest to training images, beside their nearest ones (left); the same of held-out ones"
    return pictures.from_file(path, shows) if path.exists() else None


def _data(facts: Facts, store: Store | None) -> list[tuple[str, str]]:
    card, cfg = facts.data, facts.config.data
    rows = [
        ("source", cfg.source),
        ("images", f"{card.counts['train']:,} for training, {card.counts['held_out']:,} held out"),
        ("shape", "x".join(map(str, card.shape)) + (" grey" if card.shape[0] == 1 else " RGB")),
        ("classes", ", ".join(card.classes) or "none"),
        ("mirrored", "half of the time" if cfg.flip else "no"),
        ("content hash", card.content_hash),
    ]
    if store is not None:
        rows += [("note", str(note)) for note in store.notes]
        rows += [("refused files", str(len(store.refused)))] if store.refused else []
    return rows


def _cost(facts: Facts) -> list[tuple[str, str]]:
    it = facts.cost
    speeds = [line["images_per_second"] for line in facts.metrics if line.get("images_per_second")]
    speed = f", {statistics.median(speeds):.3g} images/s while training" if speeds else ""
    return [
        ("parameters", f"{it.parameters:,}"),
        ("training images seen", f"{it.images:,}, {_epochs(facts)}"),
        ("time", f"{duration(it.seconds)} with grids, looks and files{speed}"),
        ("one forward pass", f"{operations(it.forward_flops)} an image"),
        ("training", f"{operations(it.training_flops)}: forward and backward of every image seen"),
        ("precision", facts.config.train.dtype),
    ]
