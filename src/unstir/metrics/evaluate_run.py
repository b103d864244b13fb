"""From a request to the evaluations of a run: what was left open is decided here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from unstir.data import Store
from unstir.errors import UserError
from unstir.generate import Job
from unstir.metrics import classifier, forecast
from unstir.metrics.evaluate import Plan, check, evaluate, prepared, usual_chain, usual_labels
from unstir.metrics.evaluation import Evaluation, differences, saved
from unstir.metrics.features import Awaited, Network
from unstir.metrics.inception import NAME, SHA256, check_installed, inception
from unstir.metrics.request import EvaluationRequest
from unstir.progress import Say, Showing, duration, silently, unsaid
from unstir.runs import build
from unstir.runs.agreement import open_store
from unstir.runs.files import is_writable
from unstir.runs.model import Model
from unstir.runs.run import Run

ON_CPU = 2000
"""Reference images of Inception on a CPU, which computes some 5 to 10 a second."""


USUAL = EvaluationRequest()


def evaluate_run(
    path: Path,
    request: EvaluationRequest = USUAL,
    *,
    say: Say = unsaid,
    showing: Showing = silently,
    finished: Callable[[Evaluation], None] = lambda _: None,
) -> tuple[list[Evaluation], list[str]]:
    """The evaluations of the run in a folder, by rising step, and how the last differs from the run ``against``, in
    words.

    ``say`` is called with forecasts, ``finished`` with each evaluation as it is made. Raises UserError, before anything
    is trained, drawn or written, for what cannot be evaluated or compared.
    """
    if not request.minutes > 0:  # NaN too
        raise UserError(f"minutes={request.minutes} must be more than 0; --num sets the number of images itself")
    if request.inception:
        check_installed()
    run = Run.open(path)
    store = open_store(run, request.store)
    plans = _plans(run, store, request, say)
    for plan in plans:
        check(run, store, plan)
    num, other, theirs = request.num, _other(run, request.against), list[Evaluation]()
    if other:
        theirs = saved(other)
        num = num or forecast.known_number(plans[-1:], theirs)  # of another number nothing would compare
        forecast.match(plans[-1], theirs, str(other.path), any_number=not request.num)
    if request.inception:
        loaded = inception(request.features, say, device=request.device)
        plans = [replace(plan, networks=(*plan.networks[:-1], loaded)) for plan in plans]
    plans = prepared(store, _sized(run, store, plans, num, request, say), showing)
    rival = forecast.match(plans[-1], theirs, str(other.path)) if other else None
    found = []
    for plan in plans:
        found.append(evaluate(run, store, plan, showing=showing))
        finished(found[-1])
    return found, differences(found[-1], rival) if rival else []


def _plans(run: Run, store: Store, request: EvaluationRequest, say: Say) -> list[Plan]:
    """A plan for each step, with as many images as are asked for, or 100, and networks that are not there yet."""
    label = run.labels.number(request.label)
    models = _models(run, request, say)
    networks: list[Network] = list(classifier.networks_there(store))
    reference = request.reference
    if request.inception:
        networks.append(Awaited(NAME, "" if request.features else SHA256))
        if not reference and build.device(request.device).type == "cpu":
            reference = min(store.count(request.split), max(ON_CPU, request.num))
    job = Job(
        num=request.num or 100,
        chain=usual_chain(run).changed(**request.chain, seed=request.seed),
        batch_size=request.batch_size,
        **usual_labels(run, store, label),
    )
    plan = Plan(
        model=models[-1],
        job=job,
        seeds=request.seeds,
        split=request.split,
        num_reference=reference,
        networks=tuple(networks),
        memorisation=request.memorisation,
    )
    return [replace(plan, model=model) for model in models]


def _models(run: Run, request: EvaluationRequest, say: Say) -> list[Model]:
    """The models of the saved steps that are asked for, rising; a guide cannot lead away from itself."""
    text = request.checkpoint
    how: dict[str, Any] = {key: getattr(request, key) for key in ("ema", "device", "dtype", "guide")}
    if text == "newest":
        return [run.model(say=say, **how)]
    run.newest_step()  # says so where none was saved
    if text == "all":
        if request.guide is None:
            return [run.model(step, **how) for step in run.saved_steps()]
        guide = run.guide(request.guide, say=say, **(how | {"guide": None}))
        own = guide.folder.resolve() == run.path.resolve()
        steps = [step for step in run.saved_steps() if not (own and step == guide.step)]
        if not steps:
            raise UserError(f"guide={request.guide} is the only saved step of {run.path}; no other is left to evaluate")
        return [run.model(step, **(how | {"guide": guide})) for step in steps]
    if not (text.isascii() and text.isdecimal()):
        raise UserError(f'--checkpoint {text} is no step; give "newest", "all" or one of {run.saved_steps()}')
    return [run.model(int(text), say=say, **how)]


def _other(run: Run, against: Path | None) -> Run | None:
    """The run to be compared with; UserError where it is none, or the run itself."""
    other = None if against is None else Run.open(against)
    if other and other.path.resolve() == run.path.resolve():
        raise UserError(f"--against {against} is the run itself; name another")
    return other


def _sized(run: Run, store: Store, plans: list[Plan], num: int, request: EvaluationRequest, say: Say) -> list[Plan]:
    """The plans with their number of images; how long they will take is said."""
    plans, drawing = forecast.sized(run, store, plans, num, 60 * request.minutes, say)
    if preparing := classifier.preparing_seconds(store):
        kept = is_writable(store.path / "statistics")
        again = "once for this data" if kept else f"at every call, for {store.path} cannot be written to"
        say(f"about {duration(preparing)} to train the classifier, {again}")
    if drawing:
        images = f"{len(plans)} x {request.seeds} x {plans[0].job.num} images"
        say(f"{images}, about {duration(drawing)} to draw those still missing")
    return plans
