"""A report as one HTML file that needs nothing else: no network, no fonts, no other file."""

import datetime
import html
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import unstir
from unstir.data import Store
from unstir.data.disk import open_file
from unstir.errors import UserError, printable
from unstir.generate.drawing import Job
from unstir.insight import charts, pictures, tables
from unstir.insight.analysis import analyse, explained, lead, limitations, summary
from unstir.insight.doctor import examine
from unstir.insight.facts import NO_SAMPLES, Facts
from unstir.insight.findings import by_reason, causes
from unstir.insight.gather import gather
from unstir.insight.statement import MULTIPLICITY, TITLES, Statement
from unstir.insight.wording import sentence
from unstir.metrics.drawn import usual_chain
from unstir.metrics.evaluation import FOLDER, Evaluation
from unstir.runs import toml
from unstir.runs.files import check_file, write_text
from unstir.runs.run import Run


class _Part(NamedTuple):
    """A part of the page by its id: its ``title`` in the list of sections, and what a sentence calls it (or "").

    It is there where one of the values that it ``needs`` is; always where it needs none.
    """

    id: str
    title: str
    pointer: str = ""
    needs: tuple[str, ...] = ()


PARTS = (
    _Part("grids", "Samples", "", ("snapshots", "real")),
    _Part("trajectory", "Noise to image", "", ("trajectory",)),
    _Part("quality", "Quality", "the figures"),
    _Part("calls", "Samplers", "the plot of calls", ("calls",)),
    _Part("classes", "Classes", "", ("classes",)),
    _Part("worst", "Worst samples", "", ("worst",)),
    _Part("neighbours", "Nearest images", "the nearest images", ("neighbours",)),
    _Part("analysis", "Every statement"),
    _Part("limitations", "Limitations"),
    _Part("training", "Training"),
    _Part("losses", "", "the losses", ("losses",)),
    _Part("forward", "Forward process"),
    _Part("data", "Data"),
    _Part("cost", "Cost"),
    _Part("doctor", "Doctor", "the doctor's findings"),
    _Part("settings", "Settings"),
)
"""In the order of the page: what is seen at a glance, then figures, then all that can be said."""

_UNDRAWN = {
    NO_SAMPLES: "no images were drawn for this page: `unstir doctor RUN` makes these checks in seconds, "
    "`unstir report RUN` without `--no-measure` has them here"
}
"""How checks that were skipped are made, in place of the reason."""

LAST = 65_536  # bytes at the end of a page, where its footer is, and at the beginning of other files
MADE_BY = b"<footer>Made by unstir "  # of every page (templates/base.html)

_RUN = re.compile(r"\bRUN\b")


def with_code(text: str, path: str = "RUN") -> Markup:
    """Escaped text in which `this` is code, with ``path`` for RUN, and +- is the sign."""
    run, escaped = html.escape(shlex.quote(path)), html.escape(text.replace("+-", "±"), quote=False)
    return Markup(re.sub(r"`([^`]+)`", lambda code: f"<code>{_RUN.sub(lambda _: run, code[1])}</code>", escaped))


def write(
    run: Run, store: Store | None, path: Path, protocol: Mapping[str, Any] | None = None, samples: bool = False
) -> Facts:
    """Write the report of a run, with its figures by ``protocol`` (None: the most that compare), and return its facts.

    With ``samples`` the doctor draws some of its own. ``store`` shows the data; without it those pictures are left out.
    """
    facts = gather(run.path, store=None if store is None else store.path, samples=samples, protocol=protocol)
    examined, last = examine(facts), facts.last
    statements, result = analyse(facts, examined.findings), causes(examined.findings)
    evaluated: dict[str, Any] = {"classes": [], "asked": False, "worst": None}
    if store is not None and store.count("train"):
        samples_of = None if last is None else pictures.drawn_for(run, last)
        evaluated = of_samples(store, samples_of, last, run.config.data.flip)
    shown: dict[str, Any] = {
        "facts": facts,
        "store": store,
        "checked": examined.checked,
        "problems": [cause for cause in result if cause.severity == "problem"],
        "findings": result,
        "skipped": [
            f"{', '.join(names)} ({_UNDRAWN.get(why, why)})" for why, names in by_reason(examined.skipped).items()
        ],
        "lead": lead(facts, statements),
        **in_words(statements, limitations(facts)),
        "curves": charts.curves(facts),
        "losses": charts.losses(facts),
        "by_time": charts.loss_by_time(facts),
        "calls": charts.calls(facts),
        "neighbours": None if last is None else _neighbours(run, last),
        "settings": toml.flat(facts.config).items(),
        **_drawn(run, store),
        **evaluated,
    }
    parts = [part for part in PARTS if not part.needs or any(shown[key] for key in part.needs)]
    shown |= contents(parts)
    write_page(path, "report.html", shown, str(run.path))
    return facts


def in_words(statements: Sequence[Statement], limitations: Sequence[str]) -> dict[str, Any]:
    """What a page says: the summary, all statements by topic, the rule they keep, and what they cannot say."""
    of_topic = {title: [it for it in statements if it.topic == topic] for topic, title in TITLES.items()}
    topics = [(title, statements) for title, statements in of_topic.items() if statements]
    return {"summary": summary(statements), "rule": MULTIPLICITY, "topics": topics, "limitations": limitations}


def contents(parts: Sequence[_Part]) -> dict[str, Any]:
    """The list of sections, and what sentences call the parts that they point to."""
    sections = [(part.id, part.title) for part in parts if part.title]
    return {"sections": sections, "pointers": {part.id: part.pointer for part in parts if part.pointer}}


def write_page(path: Path, template: str, shown: dict[str, Any], run: str = "RUN") -> None:
    """Write a page from its template, all that is put into it escaped; RUN in a command becomes ``run``."""
    how: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True}
    environment = Environment(loader=PackageLoader("unstir.insight"), **how)
    environment.filters |= {"code": partial(with_code, path=run), "sentence": sentence, "explained": explained}
    style = (Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    made_by = f"unstir {unstir.__version__}, torch {torch.__version__}, {datetime.date.today().isoformat()}"
    text = environment.get_template(template).render(css=style, made_by=made_by, tables=tables, charts=charts, **shown)
    write_text(path, "\n".join(map(printable, text.lstrip().split("\n"))))


def _drawn(run: Run, store: Store | None) -> dict[str, Any]:
    """The pictures that need the run's own, the weights or the data."""
    drawn: dict[str, Any] = dict.fromkeys(("trajectory", "moving", "chain", "forward_strip", "forward_times", "real"))
    drawn |= {"snapshots": pictures.snapshots(run), "newest": pictures.newest_grid(run)}
    if run.saved_steps():
        model, job = run.model(run.newest_step()), Job(num=pictures.ANIMATED, chain=usual_chain(run))
        drawn["trajectory"], drawn["moving"] = pictures.strip_and_animation(model, job)
        drawn["chain"] = f"{job.chain.sampler}, {job.chain.cost(model.process.schedule)}"
    if store is not None and store.count("train"):
        drawn["forward_strip"], drawn["forward_times"] = pictures.forward(run, store)
        drawn["real"] = pictures.real_grid(run, store)
    return drawn


def of_samples(store: Store, samples: pictures.Drawn | None, last: Evaluation | None, flip: bool) -> dict[str, Any]:
    """The samples that were evaluated, by class, and the worst of them."""
    classifier = None if last is None else pictures.classifier_of(store, last)
    return {
        "classes": pictures.by_class(store, samples, classifier),
        "asked": samples is not None and samples.asked is not None,
        "worst": None if samples is None else pictures.worst(flip, store, samples, classifier),
    }


def _neighbours(run: Run, last: Evaluation) -> pictures.Picture | None:
    path = run.path / FOLDER / f"{last.name()}-pairs.png"
    return pictures.from_file(path, pictures.PAIRS) if path.exists() else None


def check_files(path: Path, exported: Path | None) -> None:
    """Raise UserError for a page or a file of figures that cannot be written."""
    _check_file(path, "out", ".html")
    for target in tables.targets(exported) if exported else ():
        _check_file(target, "exported", target.suffix)


def _check_file(path: Path, key: str, suffix: str) -> None:
    """Raise UserError for a file of another kind or one that cannot be written."""
    if path.suffix.lower() != suffix.lower():
        raise UserError(key, path, f"must end in {suffix}")
    check_file(path, key)
    if path.is_file() and path.stat().st_size and not _is_ours(path):
        raise UserError(key, path, "is there and was not written by unstir report", "delete it, or name another file")


def _is_ours(path: Path) -> bool:
    """Whether a page or a file of figures was written by unstir."""
    kind = path.suffix.lower()
    with open_file(path) as stream:
        if kind == ".html":
            stream.seek(max(0, path.stat().st_size - LAST))
            return MADE_BY in stream.read()
        text = stream.read(LAST)
    first = tables.WRITERS[kind](()).splitlines()[0].encode()  # whatever figures follow
    return text.startswith((first + b"\n", first + b","))
