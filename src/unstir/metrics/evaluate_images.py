"""Images that any program made, judged as a run's own are: the same figures, bounds, errors and search for copies."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from unstir.data import Store
from unstir.distributed import processes
from unstir.distributed.join import joined
from unstir.errors import UserError, within_memory
from unstir.metrics.assist import assisted, networks_of_first, serve
from unstir.metrics.evaluation import FOLDER, Evaluation, differences, find, of_first, save, saved, unlike
from unstir.metrics.figures import Figure
from unstir.metrics.floor import FEWEST
from unstir.metrics.images import Images, Source, images_of, label_of, paths_of
from unstir.metrics.inception import inception, installed
from unstir.metrics.judgement import (
    Judgement,
    check_judgement,
    judges,
    prepared,
    say_preparing,
    search_copies,
    with_inception,
)
from unstir.metrics.known import as_far_as_known, match
from unstir.metrics.measure import measure
from unstir.metrics.request import OF_RUNS, EvaluationRequest
from unstir.progress import Say, Showing, counted, silently, unsaid
from unstir.runs.files import is_writable
from unstir.runs.run import Run, is_run

USUAL = EvaluationRequest()


@dataclass(frozen=True, kw_only=True, eq=False)
class ImagesPlan(Judgement):
    """How to judge ``images`` against a ``store``: in ``seeds`` sets of ``num``; ``flip`` as in `memorisation`."""

    images: Images
    store: Store
    num: int
    flip: bool = False

    def protocol(self) -> dict[str, Any]:
        """All that decides a figure, and a hash of the images, by which it is found again."""
        counts = {split: self.store.count(split) for split in ("train", "held_out")}
        judged = self.judged(self.num, self.store.content_hash, counts)
        return {
            **judged,
            "label": label_of(self.images.classes(self.num, self.seeds), self.store),
            "images": self.images.hash,
        }

    def sets(self) -> tuple[list[Tensor], list[Tensor] | None]:
        """The sets, and the classes that they were asked to show."""
        return self.images.sets(self.num, self.seeds)


def evaluate_images(
    images: Source,
    store: str | Path | Store | None = None,
    request: EvaluationRequest = USUAL,
    *,
    labels: Sequence[int] | Tensor | None = None,
    say: Say = unsaid,
    showing: Showing = silently,
) -> tuple[Evaluation, list[str]]:
    """The figures of images, and in words how they differ from those of ``request.against``.

    ``images`` is a folder, a zip or a NumPy file, several of these (a set each), an array uint8 [N, C, H, W] or
    [seeds, N, C, H, W], or batches of such arrays, as a generator yields them. ``labels``, int64 [N] or [seeds, N], are
    the classes that the images of arrays were asked to show. ``store`` is what they are compared with, by default
    ``request.store``. The figures are kept in STORE/evaluation and found there
    by the content of the images. ``say`` is called with forecasts. Several processes that torchrun started share the
    features: the first one alone reads and writes, and all return the same. Raises UserError, before anything is
    trained or written, for images that are of another shape or none, and for what cannot be compared.
    """
    with joined(request.device):
        if not processes.is_first():
            say, showing = unsaid, silently
        processes.agree(_named(images, store, request), "start all with the same options")
        planned = processes.made_by_first(
            lambda: planned_images(images, store, request, labels=labels, say=say, showing=showing)
        )
        return _of_all(planned, request, say, showing)


def _of_all(
    planned: tuple[ImagesPlan, Evaluation | None] | None, request: EvaluationRequest, say: Say, showing: Showing
) -> tuple[Evaluation, list[str]]:
    """What `evaluate_images` returns, by all processes, of which the first has what `planned_images` returns."""
    networks = [] if planned is None else planned[0].networks
    networks = networks_of_first(networks, lambda: inception(request.features, unsaid, device=request.device))
    made, said = None, list[str]()
    if planned is None:
        serve(networks)
    else:
        plan, rival = planned
        with assisted(networks) as shared:
            made = evaluate_plan(replace(plan, networks=shared), say, showing)
        said = differences(made, rival) if rival else []
    return of_first(made), processes.of_first(said)


def planned_images(
    images: Source,
    store: str | Path | Store | None,
    request: EvaluationRequest,
    *,
    labels: Sequence[int] | Tensor | None = None,
    say: Say = unsaid,
    showing: Showing = silently,
) -> tuple[ImagesPlan, Evaluation | None]:
    """A plan with all that it needs, and what it is to be compared with; arguments and errors as `evaluate_images`."""
    _check_asked(request)
    if request.inception:
        installed()
    if store is None and (store := request.store) is None:
        how = "name images to compare with, --store STORE (unstir data pack IMAGES --out STORE makes one)"
        raise UserError(f"images are judged against others; {how}")
    opened = store if isinstance(store, Store) else Store.open(store)
    with showing("reading the images", "images"):
        found = images_of(images, opened, request.label, labels, say)
    plan = _plan(found, opened, request)
    theirs, name = list[Evaluation](), ""
    if request.against is not None:
        theirs, name = evaluated(request.against, opened, request.label, plan.seeds, request.num)
    plan = _sized(plan, theirs, request)
    check_judgement(opened, plan, plan.num)
    if request.against is not None:
        if any(each.protocol.get("images") == found.hash for each in theirs):
            raise UserError(f"--against {request.against} holds the same images; name others")
        match(plan, theirs, name)
    if request.inception:
        plan = with_inception(plan, inception(request.features, say, device=request.device))
    say_preparing(opened, say)
    (plan,) = prepared(opened, [plan], showing)
    return plan, None if request.against is None else match(plan, theirs, name)


def evaluated(path: Path, store: Store, label: str | None, seeds: int, num: int) -> tuple[list[Evaluation], str]:
    """The evaluations of a run, or of the images in a folder against ``store``, and what `best_match` calls it.

    ``label`` is the class of all images of a folder, as `images_of` takes it. ``seeds`` sets of ``num`` images, or of
    any number for 0, are to be compared with it. Raises UserError for what is neither, and for too few images.
    """
    if is_run(path) or not path.exists():
        return saved(Run.open(path)), str(path)
    try:
        found = images_of(path, store, label)
    except UserError as error:
        raise UserError(f"--against {path} holds no run and no images to compare with: {error}") from None
    own = [each for each in saved(store) if each.protocol.get("images") == found.hash]
    if not own and found.most < seeds * (num or FEWEST):
        sets = f"{seeds} sets of {num}" if num else f"{seeds} sets of at least {FEWEST}"
        there = counted(found.most, "image")
        raise UserError(f"--against {path} holds {there}, too few for {sets}; name a folder of hundreds")
    return own, f"--images {path} --store {store.path}" + (f" --seeds {seeds}" if seeds > 1 else "")


@within_memory("the number of images")
def evaluate_plan(plan: ImagesPlan, say: Say = unsaid, showing: Showing = silently) -> Evaluation:
    """The figures of images by a plan, measured now or taken from the store, which keeps them."""
    known = find(plan.store, 0, plan.protocol())
    copies = None if known is None else known.memorisation
    if plan.memorisation and copies is not None and copies.flip != plan.flip:
        copies = None
    if known is not None and (copies is not None or not plan.memorisation):
        return replace(known, source=plan.images.name)  # the same images may have been judged under another name
    began, keeping = time.perf_counter(), is_writable(plan.store.path)
    sets, labels = plan.sets()
    figures = known.figures if known is not None else _measured(plan, sets, labels, showing)
    made = Evaluation(step=0, images=0, protocol=plan.protocol(), figures=figures, source=plan.images.name)
    if plan.memorisation:
        label = made.protocol["label"]
        drawing = plan.store.path / FOLDER / f"{made.name()}-pairs.png" if keeping else None
        one = label if isinstance(label, int) else None
        made = replace(made, memorisation=search_copies(plan.store, sets, plan, one, plan.flip, drawing))
    made = replace(made, seconds={"drawing": 0.0, "measuring": round(time.perf_counter() - began, 1)})
    if keeping:
        save(plan.store, made)
    else:
        say(f"{plan.store.path} cannot be written to: the figures are not kept")
    return made


def _measured(
    plan: ImagesPlan, sets: Sequence[Tensor], labels: Sequence[Tensor] | None, showing: Showing
) -> dict[str, Figure]:
    with showing("measuring", "images") as progress:
        return measure(
            plan.store, sets, plan.measuring, plan.split, plan.num_reference, labels=labels, progress=progress
        )


def _named(images: Source, store: str | Path | Store | None, request: EvaluationRequest) -> dict[str, Any]:
    """What was asked for, as JSON has it; of images that are no files nothing."""
    where = store.content_hash if isinstance(store, Store) else str(store)
    asked = {field.name: str(getattr(request, field.name)) for field in fields(request)}
    return {"images": ", ".join(map(str, paths_of(images))), **asked, "store": where if store else asked["store"]}


def _check_asked(request: EvaluationRequest) -> None:
    """Raise UserError for what says how a run's images are drawn."""
    asked = next((key for key in OF_RUNS if getattr(request, key) != getattr(USUAL, key)), None)
    if asked is not None:
        option = ", ".join(f"--{key}" for key in request.chain) if asked == "chain" else f"--{asked.replace('_', '-')}"
        raise UserError(f"{option} says how a run's images are drawn, and --images are there already; leave it out")


def _plan(images: Images, store: Store, request: EvaluationRequest) -> ImagesPlan:
    """A plan for all images, each part as a set."""
    seeds, parts = request.seeds, len(images.parts)
    if parts > 1 and seeds not in (None, parts):
        raise UserError(f"seeds={seeds}, but {parts} sets were given; leave --seeds out, or give one folder to divide")
    if seeds is not None and seeds < 1:
        raise UserError(f"seeds={seeds} must be at least 1; error bars over seeds need 2")
    how = {**judges(store, request), "memorisation": request.memorisation, "flip": request.flip}
    return ImagesPlan(images=images, store=store, num=images.most, seeds=parts if seeds is None else seeds, **how)


def _sized(plan: ImagesPlan, theirs: Sequence[Evaluation], request: EvaluationRequest) -> ImagesPlan:
    """The plan with its numbers of sets and images: as asked for, as those of ``theirs`` that compare, or all images.

    Raises UserError where there are not so many images.
    """
    one, name, there = len(plan.images.parts) == 1, plan.images.name, plan.images.most
    num, seeds, mine = request.num, plan.seeds, plan.protocol()
    free = ("num", "seeds") if one and request.seeds is None else ("num",)
    alike = [its for its in (each.protocol for each in theirs) if not unlike(as_far_as_known(mine, its), its, free)]
    if alike and not num:
        num, seeds = max((its["num"], its["seeds"]) for its in alike)
    most, holds = there // seeds if one else there, f"{name} holds {counted(there, 'image')}"
    if num > most:
        sets = f"a set of {num}" if seeds == 1 or not one else f"{seeds} sets of {num}"
        raise UserError(f"{holds}, too few for {sets}; give more images or a lower --num")
    if most < FEWEST:
        sets = "a set" if seeds == 1 or not one else f"{seeds} sets"
        raise UserError(f"{holds}, too few for {sets} of at least {FEWEST}; give hundreds")
    return replace(plan, num=num or most, seeds=seeds)
