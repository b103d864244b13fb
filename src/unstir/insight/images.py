"""The part of the page that needs no training, of images that any program made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from unstir import randomness
from unstir.data import SPLITS, Store
from unstir.errors import printable
from unstir.insight import pictures, tables
from unstir.insight.analysis import limits_of
from unstir.insight.analysis_samples import diversity, memorisation, quality
from unstir.insight.facts import ImagesFacts
from unstir.insight.page import check_files, in_words, of_samples, write_page
from unstir.metrics.evaluate import planned_images
from unstir.metrics.images import Images
from unstir.metrics.plan import Plan, judge
from unstir.metrics.request import EvaluationRequest
from unstir.pictures.grid import grid
from unstir.progress import counting
from unstir.runs.card import DataCard
from unstir.runs.files import make_folder

SHOWN, COLUMNS = 64, 8


def write_images_report(
    images: Sequence[Path],
    request: EvaluationRequest,
    out: Path | None = None,
    *,
    exported: Path | None = None,
) -> list[Path]:
    """Write the page of images and return the files written, the page first; they are evaluated by ``request`` first.

    It is ``out``, by default report.html in their folder, or next to a file of them; ``exported`` is a file or a folder
    of files for the figures. Raises UserError, before anything is measured, for
    images that cannot be judged and files that cannot be written.
    """
    first = images[0] if images else Path()
    path = out or (first / "report.html" if first.is_dir() else first.with_suffix(".html"))
    check_files(path, exported)
    plan, _ = planned_images(list(images), None, request)
    store, evaluation = plan.store, judge(plan)
    data = DataCard(store.shape, store.classes, {it: store.count(it) for it in SPLITS}, store.content_hash)
    facts = ImagesFacts(name=plan.images.name, data=data, last=evaluation)
    make_folder(path.absolute().parent)
    with counting("writing the page", ""):
        _write(plan, facts, path)
    return [path, *(tables.export(exported, [facts]) if exported else ())]


def _write(plan: Plan[Images], facts: ImagesFacts, path: Path) -> None:
    store, last = plan.store, facts.last
    statements = [*quality(facts), *diversity(facts), *(memorisation(facts) if last.memorisation else ())]
    sets, asked = plan.images.sets(plan.num, plan.seeds), plan.images.classes(plan.num, plan.seeds)
    drawn = pictures.Drawn(torch.cat(sets), None if asked is None else torch.cat(asked))
    shown: dict[str, Any] = {
        "facts": facts,
        **in_words(statements, limits_of(last)),
        "samples": _some(drawn.images, "samples, drawn at random from the images"),
        "real": _some(store.images("train"), "training images, drawn at random"),
        **of_samples(store, drawn, last, plan.flip),
        "neighbours": pictures.pairs(store, last),
        "about": _about(plan, store),
    }
    write_page(path, "images.html", shown)


def _some(images: torch.Tensor, shows: str) -> pictures.Picture:
    some = randomness.permutation(0, "report real", 0, len(images))[:SHOWN]
    return pictures.encode(grid(images[some], COLUMNS), shows)


def _about(plan: Plan[Images], store: Store) -> list[tuple[str, str]]:
    counts = f"{store.count('train'):,} for training, {store.count('held_out'):,} held out"
    return [
        ("images", f"{sum(map(len, plan.images.parts)):,}, {plan.images.name}"),
        ("their content hash", plan.images.hash),
        ("shape", "x".join(map(str, store.shape))),
        ("compared with", f"{printable(store.path)}: {counts}"),
        ("classes", ", ".join(store.classes) or "none"),
        ("content hash of the data", store.content_hash),
    ]
