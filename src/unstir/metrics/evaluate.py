"""From a run to an evaluation: images drawn (or found where they were drawn before), measured, and written down."""

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unstir.chain import FAST, Chain
from unstir.data import Store
from unstir.distributed import processes
from unstir.errors import within_memory
from unstir.generate.drawing import Job
from unstir.generate.drawing import check as check_job
from unstir.generate.folder import name_of, read_images, save_images
from unstir.metrics.assist import assisted, serve
from unstir.metrics.evaluation import FOLDER, FORMAT, SHARES, Evaluation, find, save
from unstir.metrics.judgement import Judgement, check_judgement, prepared, search_copies
from unstir.metrics.measure import measure
from unstir.metrics.memorisation import Memorisation
from unstir.progress import Say, Showing, silently, unsaid
from unstir.runs.files import check_writable
from unstir.runs.model import Model
from unstir.runs.run import Run
from unstir.runs.stores import check_data


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan(Judgement):
    """How to evaluate a ``model``: by which sampling ``job`` (number and seed are the first set's), against what.

    ``seeds`` sets are drawn, with seeds job.chain.seed, +1, ... What they are measured against is a `Judgement`.
    """

    model: Model
    job: Job

    def protocol(self) -> dict[str, Any]:
        """All that decides a figure but the weights: what two evaluations must share to be compared."""
        model, job, chain = self.model, self.job, self.job.chain
        return {
            **self.judged(job.num, model.data.content_hash, model.data.counts),
            **chain.in_effect(),
            **dataclasses.asdict(chain.cost(model.process.schedule)),
            "label": SHARES if job.shares else job.label,
            "guide": model.guide_name,
            "ema": model.averaged,
            "dtype": model.arithmetic,
        }


def check(run: Run, store: Store, plan: Plan) -> None:
    """Raise UserError for a plan that does not fit the run or its data, whose bytes are read once a process."""
    check_data(run.path, run.data, store)
    check_job(plan.model, plan.job)
    for folder in ("generated", FOLDER):
        check_writable(run.path / folder)
    check_judgement(store, plan, plan.job.num)


def usual_labels(run: Run, store: Store, label: int | None = None) -> dict[str, Any]:
    """The settings of a `Job` that say which classes are drawn: one, or each as often as the data has it."""
    if label is not None or not run.config.model.num_classes:
        return {"label": label}
    store.verify()  # a damaged label may be of any size
    of_data, classes = store.labels("train"), run.config.model.num_classes
    return {} if of_data is None else {"shares": tuple(of_data.bincount(minlength=classes).tolist())}


def usual_chain(run: Run) -> Chain:
    """The chain of an evaluation where nothing else is asked: the clamp and guidance of the grids, a fast sampler.

    Of a distilled run it is that of its grids.
    """
    if run.config.distilled:
        return run.chain()
    steps = min(FAST.steps, run.config.diffusion.T)
    return run.chain().changed(sampler=FAST.sampler, steps=steps, spacing=FAST.spacing)


@within_memory("--num")
def evaluate(run: Run, store: Store, plan: Plan, *, say: Say = unsaid, showing: Showing = silently) -> Evaluation:
    """The figures of a run's model by ``plan``, measured now or taken from the run, which keeps them.

    Images are drawn into RUN/generated and are whole after a kill, so the same call goes on; a classifier that is
    awaited is trained first. Raises UserError as `check` and `save_images` do.
    """
    check(run, store, plan)
    (plan,) = prepared(store, [plan], showing)
    plan = replace(plan, model=plan.model.unloaded())
    known = find(run, plan.model.step, plan.protocol())
    if known is not None and known.weights != plan.model.hashes:  # the step was trained anew
        known = None
    complete = known is not None and (known.memorisation is not None or not plan.memorisation)
    if processes.of_first(complete) and known is not None:
        return known
    began = time.perf_counter()
    names = [f"sampling, set {number} of {plan.seeds}" for number in range(1, plan.seeds + 1)]
    sets = [samples(plan.model, job, what, showing, say) for job, what in zip(jobs(plan), names, strict=True)]
    drawn = time.perf_counter()
    plan = replace(plan, model=plan.model.unloaded())  # what computes the figures needs the memory
    with assisted(plan.networks) as networks:
        plan = replace(plan, networks=networks)
        made = known or _measured(run, store, plan, sets, showing)
        if plan.memorisation:
            made = replace(made, memorisation=_memorisation(run, store, plan, sets, made.name()))
    seconds = {"drawing": round(drawn - began, 1), "measuring": round(time.perf_counter() - drawn, 1)}
    save(run, made := replace(made, seconds=seconds))
    return made


def assist(plan: Plan) -> None:
    """Do a process's part of what the first one does by `evaluate` with the same plan: draw, and compute features."""
    if processes.of_first(False):  # it was evaluated before
        return
    for job in jobs(plan):
        save_images(plan.model, job, folder_of(plan.model, job))
    serve(plan.networks)


def _measured(run: Run, store: Store, plan: Plan, sets: Sequence[Tensor], showing: Showing) -> Evaluation:
    """The evaluation of sets of images, without a search for copies."""
    asked = plan.model.labels.of(torch.arange(plan.job.num), plan.job.label, plan.job.shares)
    labels = None if asked is None else [asked] * plan.seeds
    with showing("measuring", "images") as progress:
        figures = measure(store, sets, plan.measuring, plan.split, plan.num_reference, labels=labels, progress=progress)
    step, seen = plan.model.step, plan.model.step * run.config.train.batch_size
    return Evaluation(step=step, images=seen, weights=plan.model.hashes, protocol=plan.protocol(), figures=figures)


def jobs(plan: Plan) -> list[Job]:
    """The sampling job of each seed."""
    chain = plan.job.chain
    return [replace(plan.job, chain=replace(chain, seed=chain.seed + k)) for k in range(plan.seeds)]


def samples(model: Model, job: Job, what: str = "sampling", showing: Showing = silently, say: Say = unsaid) -> Tensor:
    """The images of a job, uint8 [num, C, H, W], from a folder in RUN/generated, drawn now as far as they are not.

    ``what`` is shown to be going on.
    """
    folder = folder_of(model, job)
    there = max((int(path.stem) + 1 for path in folder.glob("*.png") if path.stem.isdecimal()), default=0)
    with showing(what, "steps") as progress:
        save_images(model, replace(job, num=max(job.num, there)), folder, progress, say)
    return read_images(folder, job.num)


def folder_of(model: Model, job: Job) -> Path:
    """The folder in RUN/generated of a job's images: one for each that other weights, torch or format would draw."""
    digest = hashlib.sha256(f"{model.hashes} {torch.__version__} {FORMAT}".encode()).hexdigest()[:6]
    return model.folder / "generated" / f"{name_of(model, job)}-{digest}"


def _memorisation(run: Run, store: Store, plan: Plan, sets: Sequence[Tensor], name: str) -> Memorisation:
    """Search for copies of training images among all sets together, and draw the closest pairs."""
    path = run.path / FOLDER / f"{name}-pairs.png"
    return search_copies(store, sets, plan, plan.job.label, run.config.data.flip, path)
