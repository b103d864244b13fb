"""From a request to evaluations, of a run or of images that any program made: what was left open is decided here."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from unstir.data import Store
from unstir.errors import UserError
from unstir.metrics.classifier import networks_for
from unstir.metrics.drawn import Drawn, seconds_per_call, usual_chain, usual_labels, usual_split
from unstir.metrics.evaluation import FOLDER, Evaluation, best_match, differences, of_images, own, saved
from unstir.metrics.features import Network, extractor, other_split
from unstir.metrics.images import Images, Source, images_of
from unstir.metrics.inception import installed
from unstir.metrics.plan import From, Plan, check, judge, paired
from unstir.metrics.request import OF_RUNS, SEEDS, EvaluationRequest
from unstir.progress import counted, waiting
from unstir.runs import build
from unstir.runs.model import Model, chosen_average, idle_guidance
from unstir.runs.named import names_run, reference
from unstir.runs.run import Run
from unstir.runs.stores import with_store

logger = logging.getLogger(__name__)

MOST, FEW = 300, 100  # images a set has where no number is asked for; so few held out decide nothing
ON_CPU = 2000  # reference images of Inception on a CPU, which takes long
USUAL = EvaluationRequest()
OPEN = "networks", "classifier", "num_reference"  # keys of a protocol that are known when the classifier is trained


def evaluate_run(
    path: Path,
    request: EvaluationRequest = USUAL,
    *,
    networks: Sequence[Network] = (),
    finished: Callable[[Evaluation], None] = lambda _: None,
) -> tuple[list[Evaluation], list[str]]:
    """The evaluations of the run in a folder, by rising step, and in words how the last differs from ``against``.

    ``networks`` measure beside those of the request. ``finished`` is called with each evaluation as it is made. Raises
    UserError, before anything is drawn, for what cannot be evaluated or compared.
    """
    if request.flip:
        raise UserError("flip", True, "is for images: a run says so itself", {"flip": None})
    run, store = with_store(Run.open(path), request.store)
    plans = plans_of(run, store, request, _models(run, request))
    for plan in plans:
        check(plan)
    first = plans[0].images
    if idle := idle_guidance(first.chain, first.model.process.schedule):
        logger.warning(idle)
    if request.against is not None and reference(request.against) == reference(run.name):
        raise UserError("against", request.against, "is the run itself", "name another")
    plans, rival = ready(plans, request, networks=networks)
    if seconds := drawing_seconds(plans):
        images = f"{len(plans)} x {plans[0].seeds} x {plans[0].num} images"
        fewer = "" if request.num else "; a smaller num takes less"
        logger.info(f"{images}, {waiting(seconds)} to draw those still missing{fewer}")
    evaluations = []
    for plan in plans:
        evaluations.append(judge(plan))
        finished(evaluations[-1])
    return evaluations, differences(evaluations[-1], rival) if rival else []


def evaluate_images(
    images: Source,
    store: str | Path | Store | None = None,
    request: EvaluationRequest = USUAL,
    *,
    labels: Sequence[int] | Tensor | None = None,
    networks: Sequence[Network] = (),
) -> tuple[Evaluation, list[str]]:
    """The figures of images, and in words how they differ from those of ``request.against``.

    ``images`` are a `Source`. ``labels``, int64 [N] or [seeds, N], are the classes that the images of arrays were asked
    to show. ``store`` is what they are compared with, by default ``request.store``. ``networks`` measure beside those
    of the request. Raises UserError for images that are of another shape or none, and for what cannot be compared.
    """
    plan, rival = planned_images(images, store, request, labels=labels, networks=networks)
    evaluation = judge(plan)
    return evaluation, differences(evaluation, rival) if rival else []


def planned_images(
    images: Source,
    store: str | Path | Store | None,
    request: EvaluationRequest,
    *,
    labels: Sequence[int] | Tensor | None = None,
    networks: Sequence[Network] = (),
) -> tuple[Plan[Images], Evaluation | None]:
    """A plan with all that it needs, and what it is to be compared with; arguments and errors as `evaluate_images`."""
    changed = {key: value for key in OF_RUNS if (value := getattr(request, key)) != getattr(USUAL, key)}
    for key, value in {**request.chain, **changed}.items():
        raise UserError(key, value, "says how a run's images are drawn, and these exist", {key: None})
    if store is None and (store := request.store) is None:
        raise UserError("store", None, "is needed: images are judged against others", "unstir data pack makes one")
    opened = store if isinstance(store, Store) else Store.open(store)
    settings = _how(opened, request, "train")
    given = images_of(images, opened, request.label, labels)
    seeds = len(given.parts) if request.seeds is None else request.seeds
    plan = Plan(images=given, num=request.num or given.most(seeds), seeds=seeds, flip=request.flip, **settings)
    check(plan)
    free = ("num", "seeds") if len(given.parts) == 1 and request.seeds is None else ("num",)
    (plan,), rival = ready([plan], request, free, networks)
    return plan, rival


def ready(
    plans: Sequence[Plan[From]],
    request: EvaluationRequest,
    free: Sequence[str] = ("num",),
    networks: Sequence[Network] = (),
) -> tuple[list[Plan[From]], Evaluation | None]:
    """The plans with their networks and, where it is free, the size of the evaluation that the last is compared with.

    That is one of ``against``, None without. Raises UserError, before anything is trained, where none is by the same
    protocol, or where it is of the same images.
    """
    theirs = [] if request.against is None else _evaluated(request.against, plans[0].store, request.label)
    if request.against is not None:
        free, mine = () if request.num else free, plans[-1].protocol()
        if of_images(mine) and any(each.protocol.get("images") == mine["images"] for each in theirs):
            raise UserError("against", request.against, "holds the same images", "name others")
        its = best_match(mine, theirs, request.against, (*OPEN, *free)).protocol
        plans = [replace(plan, **{key: its[key] for key in free}) for plan in plans]
        for plan in plans:
            check(plan)
    asked = [extractor(name, build.device(request.device), given) for name, given in request.networks.items()]
    used = [*networks_for(plans[0].store), *asked, *networks]
    plans = [replace(plan, networks=used) for plan in plans]
    return plans, None if request.against is None else best_match(plans[-1].protocol(), theirs, request.against)


def _evaluated(path: Path, store: Store, label: str | None) -> list[Evaluation]:
    """The evaluations of a run, or of the images in a folder against ``store``; ``label`` is as in `images_of`."""
    if names_run(path) or not Path(path).exists():
        run = Run.open(path)
        if others := len(saved(run)) - len(mine := own(run)):
            num = counted(others, "evaluation")
            logger.warning(f"{path / FOLDER}: {num} of weights that are not the run's, left out")
        return mine
    digest = images_of(path, store, label).hash
    return [each for each in saved(store) if each.protocol.get("images") == digest]


def usual_number(store: Store, split: str = "train") -> int:
    """How many images a set has where no number is asked for: as many as are held out for the floor, up to `MOST`."""
    spare = store.count(other_split(split))
    return min(spare, MOST) if spare >= FEW else MOST


def drawing_seconds(plans: Sequence[Plan[Drawn]]) -> float:
    """How long the missing images of plans will take to draw, at the speed of the first one's model."""
    calls = 0
    for plan in plans:
        if plan.known() is None:
            lacking = sum(max(plan.num - plan.images.drawn(number), 0) for number in range(plan.seeds))
            if plan.pairs and (pairs := paired(plan.images, plan.store)) is not None:
                lacking += max(pairs[1] - pairs[0].drawn(0), 0)
            calls += lacking * plan.images.chain.calls(plan.images.model.process.schedule)
    return calls * seconds_per_call(plans[0].images) if calls else 0.0


def plans_of(run: Run, store: Store, request: EvaluationRequest, models: Sequence[Model]) -> list[Plan[Drawn]]:
    """A plan for each of the ``models`` of a run, without networks. Raises UserError for what none can draw."""
    chain = usual_chain(run).changed(**request.chain, seed=request.seed)
    labels = usual_labels(run, store, run.labels.number(request.label))
    settings = _how(store, request, usual_split(run, store))
    settings["memorisation"] &= run.config.kind.trained_here  # what it was trained on is not known
    settings |= {"num": request.num or usual_number(store, settings["split"]), "flip": run.config.data.flip}
    settings["seeds"] = SEEDS if request.seeds is None else request.seeds
    drawn = [Drawn(run=run, model=model, chain=chain, batch_size=request.batch_size, **labels) for model in models]
    return [Plan(images=model, **settings) for model in drawn]


def _how(store: Store, request: EvaluationRequest, usual: str) -> dict[str, Any]:
    """The settings of a `Plan`: what images are judged against. UserError for what split or Inception is not there."""
    split, reference = request.split or usual, request.reference
    if request.inception:
        installed()
        if store.scale.is_float or store.shape[0] not in (1, 3):
            key = "fid" if request.fid else "fid_weights"
            takes = f"takes pixels of 1 or 3 channels in 0..255, and {store.path} holds others"
            raise UserError(key, getattr(request, key), takes, {key: None})
    count = store.count(split)
    if request.inception and not reference and build.device(request.device).type == "cpu":
        reference = min(count, max(ON_CPU, request.num))
    return {"store": store, "split": split, "num_reference": reference, "memorisation": request.memorisation}


def _models(run: Run, request: EvaluationRequest) -> list[Model]:
    """The models of the saved steps that are asked for, rising."""
    text = request.checkpoint
    settings: dict[str, Any] = {key: getattr(request, key) for key in ("device", "dtype", "compile", "guide")}
    settings["ema"] = chosen_average(request.ema, request.ema_width)
    if text in ("newest", "best"):
        return [run.model("best" if text == "best" else None, **settings)]
    run.newest_step()  # says so where none was saved
    if text == "all":
        steps = run.saved_steps()
        if request.guide is not None:
            guide = settings["guide"] = run.guide(request.guide, **(settings | {"guide": None}))
            is_own = reference(guide.run) == reference(run.name)  # and cannot lead away from itself
            steps = [step for step in steps if not (is_own and step == guide.step)]
        if not steps:
            raise UserError("guide", request.guide, f"is the only saved step of {run.path}")
        return [run.model(step, **settings) for step in steps]
    if not (text.isascii() and text.isdecimal()):
        saved_steps = ", ".join(map(str, run.saved_steps()))
        raise UserError("checkpoint", text, f"must be newest, best, all or one of {saved_steps}")
    return [run.model(int(text), **settings)]
