"""From a request to the evaluations of a run: what was left open is decided here.

The number of images, and how long they take, is known from earlier evaluations or measured before any of the work.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unstir.data import Store
from unstir.distributed import processes
from unstir.distributed.join import joined
from unstir.errors import UserError
from unstir.generate.drawing import Job, sample_batches
from unstir.generate.folder import name_of
from unstir.metrics.classifier import networks_there, preparing_seconds
from unstir.metrics.evaluate import Plan, assist, check, evaluate, jobs, prepared, usual_chain, usual_labels
from unstir.metrics.evaluation import Evaluation, best_match, differences, find, saved, unlike
from unstir.metrics.features import Awaited
from unstir.metrics.inception import NAME, SHA256, inception, installed
from unstir.metrics.reference import other_split
from unstir.metrics.request import EvaluationRequest
from unstir.progress import Say, Showing, duration, silently, unsaid
from unstir.runs import build
from unstir.runs.files import is_writable
from unstir.runs.loading import chosen_average
from unstir.runs.model import Model
from unstir.runs.run import Run
from unstir.runs.stores import with_store

ON_CPU = 2000  # reference images of Inception on a CPU, which computes some 5 to 10 a second
SIZES = (100, 200, 300, 500, 1000, 2000, 5000, 10_000)  # the numbers of images that `fitting` chooses from
SPARE_HELD_OUT = 100  # of so many or more, no more images are drawn by default than are held out: a floor of equal n
USUAL = EvaluationRequest()


def evaluate_run(
    path: Path,
    request: EvaluationRequest = USUAL,
    *,
    say: Say = unsaid,
    showing: Showing = silently,
    finished: Callable[[Evaluation], None] = lambda _: None,
) -> tuple[list[Evaluation], list[str]]:
    """The evaluations of the run in a folder, by rising step, and in words how the last differs from ``against``.

    ``say`` is called with forecasts, ``finished`` with each evaluation as it is made. Several processes that torchrun
    started share the work; those but the first return nothing. Raises UserError, before anything is trained, drawn or
    written, for what cannot be evaluated or compared.
    """
    if not request.minutes > 0:  # NaN too
        raise UserError(f"minutes={request.minutes} must be more than 0; --num sets the number of images itself")
    if request.inception:
        installed()
    with joined(request.device):
        if not processes.is_first():
            say, showing = unsaid, silently
        return _evaluate_run(path, request, say, showing, finished)


def _evaluate_run(
    path: Path, request: EvaluationRequest, say: Say, showing: Showing, finished: Callable[[Evaluation], None]
) -> tuple[list[Evaluation], list[str]]:
    """As `evaluate_run`; of several processes those but the first help it, and return nothing."""
    run, store = with_store(Run.open(path), request.store)
    plans = _plans(run, store, request, say)
    models = {"steps": [plan.model.step for plan in plans], "weights": [plan.model.hashes for plan in plans]}
    processes.agree({**models, "data": store.content_hash}, "start all with the same options, run and data")
    for plan in plans:
        check(run, store, plan)
    num, against, theirs = request.num, request.against, list[Evaluation]()
    if against is not None:
        other = Run.open(against)
        if other.path.resolve() == run.path.resolve():
            raise UserError(f"--against {against} is the run itself; name another")
        theirs = saved(other)
        num = num or known_number(plans[-1:], theirs)  # of another number nothing would compare
        match(plans[-1], theirs, against, any_number=not request.num)
    if request.inception:
        with processes.first_before_others():
            loaded = inception(request.features, say, device=request.device)
        plans = [replace(plan, networks=(*plan.networks[:-1], loaded)) for plan in plans]
    if processes.is_first():
        with processes.alone():
            plans = _sized(run, store, plans, num, request, say)
    num = processes.of_first(plans[0].job.num)
    with processes.first_before_others(), processes.alone():
        plans = prepared(store, [of_size(plan, num) for plan in plans], showing)
    rival = None if against is None else match(plans[-1], theirs, against)
    if not processes.is_first():
        for plan in plans:
            assist(plan)
        return [], []
    found = []
    for plan in plans:
        found.append(evaluate(run, store, plan, say=say, showing=showing))
        finished(found[-1])
    return found, differences(found[-1], rival) if rival else []


def _plans(run: Run, store: Store, request: EvaluationRequest, say: Say) -> list[Plan]:
    """A plan for each step, with as many images as are asked for, or 100, and networks that are not there yet."""
    label, models = run.labels.number(request.label), _models(run, request, say)
    networks, reference = networks_there(store), request.reference
    if request.inception:
        networks.append(Awaited(NAME, "" if request.features else SHA256))
        if not reference and build.device(request.device).type == "cpu":
            reference = min(store.count(request.split), max(ON_CPU, request.num))
    chain, labels = usual_chain(run).changed(**request.chain, seed=request.seed), usual_labels(run, store, label)
    job = Job(num=request.num or 100, chain=chain, batch_size=request.batch_size, **labels)
    how: dict[str, Any] = {key: getattr(request, key) for key in ("seeds", "split")}
    how["memorisation"] = request.memorisation and not run.config.imported  # what it was trained on is not known
    how |= {"job": job, "num_reference": reference, "networks": tuple(networks)}
    return [Plan(model=model, **how) for model in models]


def _models(run: Run, request: EvaluationRequest, say: Say) -> list[Model]:
    """The models of the saved steps that are asked for, rising; a guide cannot lead away from itself."""
    text = request.checkpoint
    how: dict[str, Any] = {key: getattr(request, key) for key in ("device", "dtype", "compile", "guide")}
    how["ema"] = chosen_average(request.ema, request.ema_width)
    if text == "newest":
        return [run.model(say=say, **how)]
    run.newest_step()  # says so where none was saved
    if text == "all":
        steps = run.saved_steps()
        if request.guide is not None:
            guide = how["guide"] = run.guide(request.guide, say=say, **(how | {"guide": None}))
            own = guide.folder.resolve() == run.path.resolve()
            steps = [step for step in steps if not (own and step == guide.step)]
        if not steps:
            raise UserError(f"guide={request.guide} is the only saved step of {run.path}; no other is left to evaluate")
        return [run.model(step, **how) for step in steps]
    if not (text.isascii() and text.isdecimal()):
        raise UserError(f'--checkpoint {text} is no step; give "newest", "all" or one of {run.saved_steps()}')
    return [run.model(int(text), say=say, **how)]


def _sized(run: Run, store: Store, plans: list[Plan], num: int, request: EvaluationRequest, say: Say) -> list[Plan]:
    """The plans with their number of images; how long they will take is said."""
    plans, drawing = sized(run, store, plans, num, 60 * request.minutes, say)
    if preparing := preparing_seconds(store):
        kept = is_writable(store.path / "statistics")
        again = "once for this data" if kept else f"at every call, for {store.path} cannot be written to"
        say(f"about {duration(preparing)} to train the classifier, {again}")
    if drawing:
        images = f"{len(plans)} x {request.seeds} x {plans[0].job.num} images"
        say(f"{images}, about {duration(drawing)} to draw those still missing")
    return plans


def sized(
    run: Run, store: Store, plans: Sequence[Plan], num: int, seconds: float, say: Say = unsaid
) -> tuple[list[Plan], float]:
    """The plans with ``num`` images per set, and the seconds that drawing those which are not there yet will take.

    For 0 it is the number that the run was evaluated with before by such plans, which is said, or else as many as fit
    into ``seconds`` altogether, at the speed of a short chain measured here.
    """
    if not num and (num := known_number(plans, saved(run))):
        say(f"{num} images per seed, as in an earlier evaluation; --num takes another number")

    missing = [plan for plan in plans if not num or find(run, plan.model.step, of_size(plan, num).protocol()) is None]
    if not missing:
        return [of_size(plan, num) for plan in plans], 0.0
    each = seconds_per_call(plans[0].model.unloaded(), plans[0].job)
    calls = {plan: plan.job.chain.calls(plan.model.process.schedule) for plan in plans}
    if not num:
        num = fitting(seconds, each * sum(calls[plan] * plan.seeds for plan in plans), store, plans[0].split)
    lacking = {plan: sum(max(num - _count(plan.model, job), 0) for job in jobs(of_size(plan, num))) for plan in missing}
    return [of_size(plan, num) for plan in plans], each * sum(calls[plan] * images for plan, images in lacking.items())


def of_size(plan: Plan, num: int) -> Plan:
    """A plan with ``num`` images per set."""
    return replace(plan, job=replace(plan.job, num=num))


def known_number(plans: Sequence[Plan], evaluations: Sequence[Evaluation]) -> int:
    """The most images per set of the ``evaluations`` that are by one of the plans but for their number; 0 without any.

    A network that is awaited is taken for that of the evaluation.
    """
    asked, known = [plan.protocol() for plan in plans], [each.protocol for each in evaluations]
    return max(
        (its["num"] for its in known for mine in asked if not unlike(as_far_as_known(mine, its), its, ("num",))),
        default=0,
    )


def match(plan: Plan, others: Sequence[Evaluation], run: Path, any_number: bool = False) -> Evaluation:
    """The newest of ``others``, those of a ``run``, by the protocol of ``plan``; UserError as `best_match`.

    What only an awaited network will tell is taken to be alike, and so is the number of images with ``any_number``.
    """
    asked, left = plan.protocol(), ("num",) if any_number else ()
    return best_match(lambda its: as_far_as_known(asked | {key: its[key] for key in left}, its), others, str(run))


def as_far_as_known(protocol: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """A protocol with what only an awaited network will tell, its hash and its accuracy, taken from an ``other``."""
    networks = {name: digest or other["networks"].get(name, "") for name, digest in protocol["networks"].items()}
    found = {**protocol, "networks": networks}
    if protocol["networks"].get("classifier") == "":
        found["classifier"] = entry = other.get("classifier")
        if entry and not entry["used"]:  # it may turn out to be one that is not trusted
            del networks["classifier"]
            found["num_reference"] = other["num_reference"]
    return found


def _count(model: Model, job: Job) -> int:
    """How many images of a job were drawn before, by these weights or others of the same step."""
    folders = (model.folder / "generated").glob(f"{name_of(model, job)}-*")
    return max((sum(1 for path in folder.glob("*.png") if path.stem.isdecimal()) for folder in folders), default=0)


def seconds_per_call(model: Model, job: Job) -> float:
    """The seconds of one network call per image, measured on a short chain of a batch."""
    short = replace(job, num=job.batch_size, chain=replace(job.chain, steps=min(4, job.chain.steps)))
    list(sample_batches(model, replace(short, chain=replace(short.chain, steps=2))))  # warm up
    began = time.perf_counter()
    list(sample_batches(model, short))
    return (time.perf_counter() - began) / job.batch_size / short.chain.calls(model.process.schedule)


def fitting(seconds: float, each: float, store: Store, split: str = "train") -> int:
    """How many images fit into ``seconds`` at ``each`` seconds per image: one of `SIZES`, or the least of them."""
    spare = store.count(other_split(split))
    most = spare if spare >= SPARE_HELD_OUT else SIZES[-1]
    sizes = sorted({*(size for size in SIZES if size <= most), min(most, SIZES[-1])})
    return max((size for size in sizes if size * each <= seconds), default=sizes[0])
