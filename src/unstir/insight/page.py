"""A report as one HTML file that needs nothing else: no network, no fonts, no other file."""

import datetime
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import unstir
from unstir.data import Store
from unstir.data.disk import read_bytes
from unstir.errors import UserError, printable
from unstir.insight import charts, pictures, tables
from unstir.insight.analysis import analyse, lead, limitations, summary
from unstir.insight.doctor import examine
from unstir.insight.facts import Facts
from unstir.insight.findings import by_reason, causes
from unstir.insight.gather import gather
from unstir.insight.statement import MULTIPLICITY, POINTERS, TITLES, Statement, sentence, typed
from unstir.metrics.evaluation import Evaluation, protocol_in_words
from unstir.metrics.figures import in_rows
from unstir.runs import toml
from unstir.runs.files import check_file, write_text
from unstir.runs.run import Run

MADE_BY = b"<footer>Made by unstir "  # of every page (templates/base.html)


def with_code(text: str, run: str = "RUN") -> Markup:
    """Escaped text in which `this` is code as it is `typed`; its words, and a value with its error, stay whole."""

    def code(words: str) -> Markup:
        spans = (Markup("<span>{}</span>").format(word) for word in words.split(" "))
        return Markup("<code>{}</code>").format(Markup(" ").join(spans))

    whole = text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
    parts = enumerate(whole.split("`"))
    return Markup("").join(code(typed(it, run)) if at % 2 else it for at, it in parts)


def write(
    run: Run, store: Store | None, path: Path, protocol: Mapping[str, Any] | None = None, samples: bool = False
) -> Facts:
    """Write the report of a run and return its facts; ``samples``: draw some for the doctor; ``store``: its data."""
    facts = gather(run.name, store=store, samples=samples, protocol=protocol)
    examined, last = examine(facts), facts.last
    statements, result = analyse(facts, examined.findings), causes(examined.findings)
    drawn, from_noise = None if last is None else pictures.drawn_for(run, last), pictures.from_noise(run)
    sampled = of_samples(store, drawn, last, run.config.data.flip, drawn or (from_noise and from_noise.samples))
    shown: dict[str, Any] = {
        "facts": facts,
        "store": store,
        "checked": examined.checked,
        "problems": [cause for cause in result if cause.severity == "problem"],
        "findings": result,
        "skipped": [f"{', '.join(names)} ({why})" for why, names in by_reason(examined.skipped).items()],
        "lead": lead(facts, statements),
        **in_words(statements, limitations(facts)),
        "neighbours": None if last is None else pictures.pairs(run, last),
        "settings": toml.flat(facts.config).items(),
        "from_noise": from_noise,
        **sampled,
    }
    write_page(path, "report.html", shown, run.name)
    return facts


def in_words(statements: Sequence[Statement], limitations: Sequence[str]) -> dict[str, Any]:
    """What a page says, as its template takes it."""
    missing = "; ".join(it.text for it in statements if it.verdict == "missing")
    measured = [it for it in statements if it.verdict != "missing"]
    topics = [(title, [it for it in measured if it.topic == topic]) for topic, title in TITLES.items()]
    texts = {"rule": MULTIPLICITY, "topics": topics, "missing": missing, "limitations": limitations}
    return {"summary": summary(statements), **texts}


def write_page(path: Path, template: str, shown: dict[str, Any], run: str = "RUN") -> None:
    """Write a page from its template, all that is put into it escaped; RUN in a command becomes ``run``."""
    loaded = environment("unstir.insight")
    loaded.filters |= {"code": partial(with_code, run=run), "sentence": sentence}
    loaded.globals |= {"tables": tables, "charts": charts, "pictures": pictures}
    loaded.globals |= {"in_rows": in_rows, "protocol_in_words": protocol_in_words}
    text = loaded.get_template(template).render({"pointers": POINTERS, "sections": []} | shown)
    pointer = r' <a class="tag" href="#(\w+)">.*?</a>'
    text = re.sub(pointer, lambda link: link[0] if f' id="{link[1]}"' in text else "", text)
    write_text(path, "\n".join(map(printable, text.lstrip().split("\n"))))


def environment(*rooms: str) -> Environment:
    """Templates of these rooms, all that is put into them escaped, with the style and the origin of every page."""
    loader = ChoiceLoader([PackageLoader(room) for room in rooms])
    loaded = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    style = (Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    made_by = f"unstir {unstir.__version__}, torch {torch.__version__}, {datetime.date.today().isoformat()}"
    loaded.globals |= {"css": style, "made_by": made_by}
    return loaded


def of_samples(
    store: Store | None,
    samples: pictures.Drawn | None,
    last: Evaluation | None,
    flip: bool,
    by_class: pictures.Drawn | None,
) -> dict[str, Any]:
    """The worst of the samples that were evaluated, and those shown by class, which may be others."""
    if store is None or not store.count("train") or store.scale.is_float:
        return {"classes": [], "asked": False, "worst": None}
    classifier = None if last is None else pictures.classifier_of(store, last)
    return {
        "classes": pictures.by_class(store, by_class, classifier),
        "asked": by_class is not None and by_class.asked is not None,
        "worst": None if samples is None else pictures.worst(flip, store, samples, classifier),
    }


def check_files(path: Path, exported: Path | None) -> None:
    """Raise UserError for a page or a file of figures that cannot be written."""
    if path.suffix.lower() != ".html":
        raise UserError("out", path, "must end in .html")
    files = tables.targets(exported) if exported else []
    for key, file in (("out", path), *(("exported", file) for file in files)):
        check_file(file, key)
        content = read_bytes(file) if file.is_file() else b""
        is_ours = MADE_BY in content if file == path else tables.is_ours(file.suffix.lower(), content)
        if content and not is_ours:
            remedy = "delete it, or name another file"
            raise UserError(key, file, "is there and was not written by unstir report", remedy)
