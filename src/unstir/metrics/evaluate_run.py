"""From a request to the evaluations of a run: what was left open is decided here.

The number of images, and how long they take, is known from earlier evaluations or measured before any of the work.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unstir.data import Store
from unstir.distributed import processes
from unstir.distributed.join import joined
from unstir.errors import UserError
from unstir.generate.drawing import Job, sample_batches
from unstir.generate.folder import name_of
from unstir.metrics.evaluate import Plan, assist, check, evaluate, jobs, usual_chain, usual_labels
from unstir.metrics.evaluate_images import evaluated
from unstir.metrics.evaluation import Evaluation, differences, find, saved
from unstir.metrics.floor import FEWEST
from unstir.metrics.inception import inception, installed
from unstir.metrics.judgement import judges, prepared, say_preparing, with_inception
from unstir.metrics.known import known_number, match
from unstir.metrics.reference import other_split
from unstir.metrics.request import SEEDS, EvaluationRequest
from unstir.progress import Say, Showing, silently, unsaid, waiting
from unstir.runs.loading import chosen_average
from unstir.runs.model import Model, idle_guidance
from unstir.runs.run import Run
from unstir.runs.stores import with_store

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
    if request.num and request.num < FEWEST:
        how = f"give --num {FEWEST}, or --num 0: as many as --minutes allow"
        raise UserError(f"num={request.num} must be at least {FEWEST}: a distance is between sets; {how}")
    if request.flip:
        raise UserError("--flip is of --images: a run says so itself; leave it out")
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
    if idle := idle_guidance(plans[0].job.chain, plans[0].model.process.schedule):
        say(idle)
    num, against, theirs, name = request.num, request.against, list[Evaluation](), ""
    if against is not None:
        if against.resolve() == run.path.resolve():
            raise UserError(f"--against {against} is the run itself; name another")
        theirs, name = evaluated(against, store, request.label, plans[0].seeds, num)
        num = num or known_number(plans[-1:], theirs)  # of another number nothing would compare
        match(plans[-1], theirs, name, any_number=not request.num)
    if request.inception:
        with processes.first_before_others():
            loaded = inception(request.features, say, device=request.device)
        plans = [with_inception(plan, loaded) for plan in plans]
    plans = processes.made_by_first(lambda: _sized(run, store, plans, num, request, say)) or plans
    num = processes.of_first(plans[0].job.num)
    plans = [of_size(plan, num) for plan in plans]
    made = processes.made_by_first(lambda: prepared(store, plans, showing))  # the others find what it has made
    plans = processes.made_by_all(lambda: made or prepared(store, plans, showing))
    rival = None if against is None else match(plans[-1], theirs, name)
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
    chain, labels = usual_chain(run).changed(**request.chain, seed=request.seed), usual_labels(run, store, label)
    job = Job(num=request.num or 100, chain=chain, batch_size=request.batch_size, **labels)
    how = {"job": job, "seeds": SEEDS if request.seeds is None else request.seeds, **judges(store, request)}
    how["memorisation"] = request.memorisation and not run.config.imported  # what it was trained on is not known
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
        saved_steps = ", ".join(map(str, run.saved_steps()))
        raise UserError(
            f"--checkpoint {text} is no step; give --checkpoint newest, --checkpoint all, or --checkpoint with one of "
            f"{saved_steps}"
        )
    return [run.model(int(text), say=say, **how)]


def _sized(run: Run, store: Store, plans: list[Plan], num: int, request: EvaluationRequest, say: Say) -> list[Plan]:
    """The plans with their number of images; how long they will take is said."""
    plans, drawing = sized(run, store, plans, num, 60 * request.minutes, say)
    say_preparing(store, say)
    if drawing:
        images = f"{len(plans)} x {plans[0].seeds} x {plans[0].job.num} images"
        fewer = "" if request.num else "; --num takes fewer"
        say(f"{images}, {waiting(drawing)} to draw those still missing, and then they are measured{fewer}")
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
