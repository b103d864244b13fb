"""How many images an evaluation takes, and how long: known or measured before any of the work."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from unstir.data import Store
from unstir.generate import Job, name_of, sample_batches
from unstir.metrics.evaluate import Plan, jobs
from unstir.metrics.evaluation import Evaluation, best_match, find, saved, unlike
from unstir.metrics.reference import other_split
from unstir.progress import Say, unsaid
from unstir.runs.model import Model
from unstir.runs.run import Run

SIZES = (100, 200, 300, 500, 1000, 2000, 5000, 10_000)
"""The numbers of images that `fitting` chooses from."""

SPARE_HELD_OUT = 100
"""With so many held-out images or more, no more are drawn by default than are held out: the floor has equal n."""


def sized(
    run: Run, store: Store, plans: Sequence[Plan], num: int, seconds: float, say: Say = unsaid
) -> tuple[list[Plan], float]:
    """The plans with ``num`` images per set, and the seconds that drawing those which are not there yet will take.

    For 0 it is the number that the run was evaluated with before by such plans, which is said, or else as many as fit
    into ``seconds`` altogether, at the speed of a short chain measured here.
    """
    if not num and (num := known_number(plans, saved(run))):
        say(f"{num} images per seed, as in an earlier evaluation; --num takes another number")
    missing = [plan for plan in plans if not num or find(run, plan.model.step, _of(plan, num).protocol()) is None]
    if not missing:
        return [_of(plan, num) for plan in plans], 0.0
    each = seconds_per_call(plans[0].model.unloaded(), plans[0].job)
    calls = {plan: plan.job.chain.calls(plan.model.process.schedule) for plan in plans}
    if not num:
        num = fitting(seconds, each * sum(calls[plan] * plan.seeds for plan in plans), store, plans[0].split)
    left = sum(
        calls[plan] * (num - min(num, _count(plan.model, job))) for plan in missing for job in jobs(_of(plan, num))
    )
    return [_of(plan, num) for plan in plans], each * left


def known_number(plans: Sequence[Plan], evaluations: Sequence[Evaluation]) -> int:
    """The most images per set of the ``evaluations`` that are by one of the plans but for their number; 0 without any.

    A network that is awaited is taken for that of the evaluation.
    """
    asked, known = [plan.protocol() for plan in plans], [each.protocol for each in evaluations]
    return max(
        (its["num"] for its in known for mine in asked if not unlike(as_far_as_known(mine, its), its, ("num",))),
        default=0,
    )


def match(plan: Plan, others: Sequence[Evaluation], name: str, any_number: bool = False) -> Evaluation:
    """The newest of ``others``, of the run ``name``, by the protocol of ``plan``; UserError as `best_match`.

    What only an awaited network will tell is taken to be alike, and so is the number of images with ``any_number``.
    """
    protocol = plan.protocol()

    def filled(theirs: Mapping[str, Any]) -> dict[str, Any]:
        return as_far_as_known(protocol, theirs) | ({"num": theirs["num"]} if any_number else {})

    return best_match(filled, others, name)


def as_far_as_known(protocol: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """A protocol with what only an awaited network will tell, its hash and its accuracy, taken from an ``other``."""
    networks = {name: digest or other["networks"].get(name, "") for name, digest in protocol["networks"].items()}
    if protocol["networks"].get("classifier") != "":
        return {**protocol, "networks": networks}
    entry = other.get("classifier")
    found = {**protocol, "networks": networks, "classifier": entry}
    if entry and not entry["used"]:  # it may turn out to be one that is not trusted
        del networks["classifier"]
        found["num_reference"] = other["num_reference"]
    return found


def _of(plan: Plan, num: int) -> Plan:
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
