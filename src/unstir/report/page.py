"""A report as one HTML file that needs nothing else: no network, no fonts, no other file."""

import datetime
import html
import re
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import unstir
from unstir.data import Store
from unstir.errors import printable
from unstir.generate import Job
from unstir.metrics.evaluate import usual_chain
from unstir.metrics.evaluation import FOLDER, Evaluation
from unstir.report import charts, judged, pictures, tables
from unstir.report.analysis import analyse
from unstir.report.facts import Facts
from unstir.report.gather import gather
from unstir.report.problems import found, problems
from unstir.report.statement import MULTIPLICITY, TOPICS, Topic
from unstir.report.summary import limitations, summary
from unstir.runs import toml
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
    "grids": "Samples",
    "way": "Noise to image",
    "quality": "Quality",
    "calls": "Samplers",
    "classes": "Classes",
    "worst": "Worst samples",
    "neighbours": "Nearest images",
    "analysis": "Every statement",
    "limitations": "Limitations",
    "training": "Training",
    "forward": "Forward process",
    "data": "Data",
    "cost": "Cost",
    "doctor": "Doctor",
    "settings": "Settings",
}
"""The sections in the order of the page: what is seen at a glance, then figures, then all that can be said."""


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
) -> Facts:
    """Write the report of a run, with its figures by ``protocol`` (None: the most that compare), and return its facts.

    With ``samples`` the doctor draws some of its own. ``store`` shows the data; without it those pictures are left out.
    """
    facts = gather(run, store, protocol, samples)
    write_text(path, render(run, facts, store))
    return facts


def render(run: Run, facts: Facts, store: Store | None) -> str:
    """The report as HTML."""
    statements, classes = analyse(facts), facts.data.classes
    of_topic = [(TOPIC_TITLES[topic], [s for s in statements if s.topic == topic]) for topic in TOPICS]
    shown: dict[str, Any] = {
        "facts": facts,
        "lead": _lead(facts),
        "problems": problems(facts),
        "summary": summary(statements),
        "cards": tables.cards(facts),
        "rule": MULTIPLICITY,
        "topics": [(title, own) for title, own in of_topic if own],
        "limitations": limitations(facts),
        "curves": charts.curves(facts),
        "losses": charts.losses(facts),
        "by_time": charts.loss_by_time(facts),
        "quality": charts.quality(facts),
        "calls": charts.calls(facts),
        "samplers": tables.samplers(facts),
        "timing": tables.timing(facts),
        "forward": charts.forward(facts),
        "table_": tables.figures(facts.last.figures.values(), facts.last.protocol["num"]) if facts.last else None,
        "protocol": tables.protocol(facts.last, classes) if facts.last else "",
        "protocol_rows": tables.protocol_rows(facts.last, classes) if facts.last else [],
        "neighbours": _neighbours(run, facts.last),
        "data": tables.data(facts, store),
        "cost": tables.cost(facts),
        "findings": found(facts),
        "checked": ", ".join(facts.checked),
        "settings": list(toml.flat(facts.config).items()),
        **_drawn(run, store),
        **_of_judged(run, store, facts.last),
    }
    present = _present(shown)
    shown["sections"] = [(id_, title) for id_, title in TITLES.items() if id_ in present]
    shown["anchors"] = {id_: text for id_, text in ANCHORS.items() if id_ in present}
    return render_template("report.html", shown, str(run.path))


def render_template(template: str, shown: dict[str, Any], path: str = "RUN") -> str:
    """A page from its template, with the style that all pages share, and what wrote it when."""
    style = (Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    made_by = f"unstir {unstir.__version__}, torch {torch.__version__}, {datetime.date.today().isoformat()}"
    made = environment(path).get_template(template).render(css=style, made_by=made_by, **shown)
    return "\n".join(map(printable, made.lstrip().split("\n")))


def _present(shown: dict[str, Any]) -> set[str]:
    """The ids that the page has."""
    always = {"analysis", "limitations", "quality", "training", "forward", "data", "cost", "doctor", "settings"}
    optional = {
        "strip_": "way",
        "calls": "calls",
        "classes": "classes",
        "worst": "worst",
        "neighbours": "neighbours",
        "curves": "curves",
        "losses": "losses",
        "by_time": "loss-by-time",
    }
    there = {id_ for key, id_ in optional.items() if shown[key]}
    return always | there | ({"grids"} if shown["moments"] or shown["real"] else set())


def _drawn(run: Run, store: Store | None) -> dict[str, Any]:
    """The pictures that need the run's own, the weights or the data."""
    drawn: dict[str, Any] = dict.fromkeys(("strip_", "moving", "forward_strip", "real"))
    drawn |= {"chain": "", "forward_times": [], "moments": pictures.moments(run), "newest": pictures.newest_grid(run)}
    if run.saved_steps():
        model, job = run.model(run.newest_step()), Job(num=pictures.ANIMATED, chain=usual_chain(run))
        drawn["strip_"], drawn["moving"] = pictures.strip_and_animation(model, job)
        drawn["chain"] = f"{job.chain.sampler}, {job.chain.calls(model.process.schedule)} calls"
    if store is not None and store.count("train"):
        drawn["forward_strip"], drawn["forward_times"] = pictures.forward(run, store)
        drawn["real"] = pictures.real_grid(run, store)
    return drawn


def _of_judged(run: Run, store: Store | None, last: Evaluation | None) -> dict[str, Any]:
    """The samples that were judged, by class, and the worst of them."""
    if store is None or not store.count("train"):
        return {"classes": [], "chosen": "", "worst": None}
    known = None if last is None else judged.drawn(run, last)
    judge = None if last is None else judged.judge_of(store, last)
    asked = known is not None and known.asked is not None
    return {
        "classes": judged.by_class(store, known, judge),
        "chosen": "asked for each class" if asked else "by the class that the classifier takes them for",
        "worst": None if known is None else judged.worst(run, store, known, judge),
    }


def _lead(facts: Facts) -> str:
    where = "finished" if facts.step >= facts.length else f"at step {facts.step:,} of {facts.length:,}"
    shape = "x".join(map(str, facts.data.shape))
    recipe = f"recipe {facts.config.recipe}, " if facts.config.recipe else ""
    return f"A denoising diffusion model of {shape} images: {recipe}{facts.cost.parameters:,} parameters, {where}."


def _neighbours(run: Run, last: Evaluation | None) -> pictures.Picture | None:
    if last is None:
        return None
    path = run.path / FOLDER / f"{last.name()}-pairs.png"
    shows = "samples that lie closest to training images, beside their nearest ones (left); the same of held-out ones"
    return pictures.from_file(path, shows) if path.exists() else None
