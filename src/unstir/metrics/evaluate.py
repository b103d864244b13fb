"""From a run to an evaluation: images drawn (or taken from where they were drawn before), judged, and written down."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unstir import randomness
from unstir.data import SPLITS, Store
from unstir.diffusion.draw import Chain
from unstir.errors import UserError
from unstir.generate import Job, generate, labels, load_denoisers, read_images, save_images
from unstir.generate.job import check as check_job
from unstir.metrics import memorisation
from unstir.metrics.classifier import classifier_for
from unstir.metrics.evaluation import FOLDER, FORMAT, Evaluation, find, name_of, save, saved, unlike
from unstir.metrics.floor import FEWEST
from unstir.metrics.judge import judge, reference_size
from unstir.metrics.reference import Network, other_split
from unstir.runs import build
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.files import make_folder, replacing
from unstir.runs.guide import used
from unstir.runs.provenance import weights_hash
from unstir.runs.run import Run

SAMPLER, CALLS = "dpmpp_2m_sde", 20
"""What images are drawn with where nothing else is asked: random like the ancestral chain, and as good in 20 calls."""

SIZES = (100, 200, 300, 500, 1000, 2000, 5000, 10_000)
"""The numbers of images that `fitting` chooses from."""

NEW_IMAGES = 2000
"""Of held-out images, at most so many are compared with the training images."""

SPARE_HELD_OUT = 100
"""With so many held-out images or more, no more are drawn by default than are held out: the floor has equal n."""

Showing = Callable[[str, str], AbstractContextManager[Callable[[int, int], None] | None]]
"""showing(what, unit) opens a progress display that is called with (done, total)."""


def silently(what: str, unit: str) -> AbstractContextManager[None]:
    """No display."""
    return nullcontext()


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """How to judge: the sampling ``job`` (its number of images and seed are the first set's), and against what.

    ``seeds`` sets are drawn, with seeds job.chain.seed, +1, ... The reference is ``num_reference`` images of ``split``
    (0: all). ``networks`` are those whose features are used; empty for the sliced Wasserstein distance.
    """

    job: Job
    seeds: int = 3
    split: str = "train"
    num_reference: int = 0
    networks: Sequence[Network] = field(default=())
    memorisation: bool = True

    def protocol(self, run: Run) -> dict[str, Any]:
        """All that decides a figure but the weights: what two evaluations must share to be compared."""
        job, chain = self.job, self.job.chain
        device = build.device(job.device)
        schedule = build.schedule(run.config.diffusion)
        sampling = {**dataclasses.asdict(chain), "calls": chain.calls(schedule)}
        del sampling["steps"]
        return {
            "num": job.num,
            "seeds": self.seeds,
            "split": self.split,
            "num_reference": reference_size(run.data.counts[self.split], self.num_reference, self.networks),
            "data": run.data.content_hash,
            "flip": False,  # reference images are as they are stored
            "rounding": "uint8, to nearest",
            "networks": {network.name: network.hash for network in self.networks},
            **sampling,
            "label": "by the data's shares" if job.shares else job.label,
            "guide": None if job.guide is None else str(job.guide),
            "ema": job.ema and run.config.train.ema_decay > 0,
            "dtype": build.dtype_name(job.dtype, device),
        }


def check(run: Run, store: Store, plan: Plan) -> None:
    """Raise UserError for a plan that does not fit the run or its data, before anything is drawn."""
    if store.content_hash != run.data.content_hash:
        raise UserError(f"{store.path} is not the data of {run.path}; name the store that it was trained on")
    check_job(run, plan.job)
    if plan.split not in SPLITS:
        raise UserError(f"split={plan.split!r} is unknown; choose one of {', '.join(SPLITS)}")
    if store.count(plan.split) < 2:
        raise UserError(f"{store.path} has {store.count(plan.split)} {plan.split} images, too few to compare with")
    if plan.job.num < FEWEST:
        raise UserError(f"num={plan.job.num} must be at least {FEWEST}: a distance is between sets; better hundreds")
    if plan.seeds < 1:
        raise UserError(f"seeds={plan.seeds} must be at least 1; error bars over seeds need 2")
    if plan.num_reference and not 2 <= plan.num_reference <= store.count(plan.split):
        count = store.count(plan.split)
        raise UserError(f"num_reference={plan.num_reference} is outside 2..{count}, the {plan.split} images; 0 is all")


def usual_labels(run: Run, store: Store, label: int | None = None) -> dict[str, Any]:
    """The settings of a `Job` that say which classes are judged: one, or each as often as the data has it."""
    if label is not None or not run.config.model.num_classes:
        return {"label": label}
    of_data = store.labels("train")
    assert of_data is not None
    return {"shares": tuple(torch.bincount(of_data, minlength=run.config.model.num_classes).tolist())}


def usual_chain(run: Run) -> Chain:
    """The chain that a run is judged by where nothing else is asked: its grids' clamp and guidance, a fast sampler."""
    chain = run.chain().by(SAMPLER)
    return replace(chain, steps=min(CALLS, run.config.diffusion.T), spacing="trailing")


def networks_for(store: Store, showing: Showing = silently) -> list[Network]:
    """The networks that need no download: the classifier of the store's labels, or none where it has no two classes."""
    if len(store.classes) < 2 or store.count("train") == 0:
        return []
    with showing("training the classifier", "images") as progress:
        return [classifier_for(store, progress)]


def evaluate(
    run: Run, store: Store, plan: Plan, *, loaded: Checkpoint | None = None, showing: Showing = silently
) -> Evaluation:
    """Judge a saved step by ``plan``, or take the figures that the same plan gave before; they are kept in the run.

    Images are drawn into RUN/generated and are whole after a kill, so the same call goes on. Raises UserError as
    `check` and `save_images` do.
    """
    check(run, store, plan)
    protocol, loaded = plan.protocol(run), loaded or run.load(plan.job.step)
    weights = weights_hash(used(run, loaded, plan.job.guide), plan.job.ema)
    known = find(run, plan.job.step, protocol)
    if known is not None and known.weights != weights:  # the step was trained anew
        known = None
    if known is not None and (known.memorisation is not None or not plan.memorisation):
        return known
    began = time.perf_counter()
    sets = [
        samples(run, job, weights, f"sampling, set {number} of {plan.seeds}", loaded, showing)
        for number, job in enumerate(jobs(plan), start=1)
    ]
    drawn = time.perf_counter()
    made = known or _judged(run, store, plan, sets, weights, showing)
    if plan.memorisation:
        found = _memorisation(run, store, plan, sets, name_of(plan.job.step, protocol))
        made = replace(made, memorisation=found)
    seconds = {"drawing": round(drawn - began, 1), "judging": round(time.perf_counter() - drawn, 1)}
    made = replace(made, seconds=seconds)
    save(run, made)
    return made


def _judged(run: Run, store: Store, plan: Plan, sets: Sequence[Tensor], weights: str, showing: Showing) -> Evaluation:
    """The evaluation of sets of images, without a search for copies."""
    asked = labels(run, plan.job, torch.arange(plan.job.num))
    with showing("judging", "images") as progress:
        figures = judge(
            store,
            sets,
            plan.networks,
            split=plan.split,
            num_reference=plan.num_reference,
            labels=None if asked is None else [asked] * plan.seeds,
            progress=progress,
        )
    return Evaluation(
        step=plan.job.step,
        images=plan.job.step * run.config.train.batch_size,
        weights=weights,
        protocol=plan.protocol(run),
        figures=figures,
    )


def sized(run: Run, store: Store, plans: Sequence[Plan], num: int, seconds: float) -> tuple[list[Plan], float]:
    """The plans with ``num`` images a set, and the seconds that drawing those which are not there yet will take.

    For 0 it is the number that the run was judged with before by such plans, or else as many as fit into ``seconds``
    altogether, at the speed of a short chain measured here.
    """
    num = num or max(known_number(run, plan) for plan in plans)
    missing = [plan for plan in plans if not num or not _is_done(run, _of(plan, num))]
    if not missing:
        return [_of(plan, num) for plan in plans], 0.0
    each = seconds_per_call(run, plans[0].job)
    calls = {plan: plan.job.chain.calls(build.schedule(run.config.diffusion)) for plan in plans}
    if not num:
        num = fitting(seconds, each * sum(calls[plan] * plan.seeds for plan in plans), store, plans[0].split)
    left = sum(calls[plan] * (num - min(num, _count(run, job))) for plan in missing for job in jobs(_of(plan, num)))
    return [_of(plan, num) for plan in plans], each * left


def known_number(run: Run, plan: Plan) -> int:
    """The most images a set that the run was judged with by this plan but for their number; 0 where it was not."""
    protocol = plan.protocol(run)
    return max(
        (each.protocol["num"] for each in saved(run) if not unlike(protocol, each.protocol, ("num",))), default=0
    )


def _of(plan: Plan, num: int) -> Plan:
    return replace(plan, job=replace(plan.job, num=num))


def _is_done(run: Run, plan: Plan) -> bool:
    return find(run, plan.job.step, plan.protocol(run)) is not None


def _count(run: Run, job: Job) -> int:
    """How many images of a job were drawn before, by these weights or others of the same step."""
    folders = (run.path / "generated").glob(f"{job.name()}-*")
    return max((sum(1 for path in folder.glob("*.png") if path.stem.isdecimal()) for folder in folders), default=0)


def _folder(run: Run, job: Job, weights: str) -> Path:
    """Where the images of a job are kept: a folder for each that other weights, torch or format would draw."""
    digest = hashlib.sha256(f"{weights} {torch.__version__} {FORMAT}".encode()).hexdigest()[:6]
    return run.path / "generated" / f"{job.name()}-{digest}"


def jobs(plan: Plan) -> list[Job]:
    """The sampling job of each seed."""
    chain = plan.job.chain
    return [replace(plan.job, chain=replace(chain, seed=chain.seed + k)) for k in range(plan.seeds)]


def samples(
    run: Run,
    job: Job,
    weights: str,
    what: str = "sampling",
    loaded: Checkpoint | None = None,
    showing: Showing = silently,
) -> Tensor:
    """The images of a job, uint8 [num, C, H, W], from its folder in RUN/generated, drawn now as far as they are not.

    ``weights`` is the hash of those used, ``what`` is what is shown to be going on.
    """
    folder = _folder(run, job, weights)
    there = max((int(path.stem) + 1 for path in folder.glob("*.png") if path.stem.isdecimal()), default=0)
    with showing(what, "steps") as progress:
        save_images(run, replace(job, num=max(job.num, there)), folder, progress, loaded)
    return read_images(folder, job.num)


def seconds_per_call(run: Run, job: Job, loaded: Checkpoint | None = None) -> float:
    """The seconds of one network call an image, measured on a short chain of a batch."""
    short = replace(job, num=job.batch_size, chain=replace(job.chain, steps=min(4, job.chain.steps)))
    denoisers = load_denoisers(run, job, loaded)
    list(generate(run, replace(short, chain=replace(short.chain, steps=2)), denoisers=denoisers))  # warm up
    began = time.perf_counter()
    list(generate(run, short, denoisers=denoisers))
    return (time.perf_counter() - began) / job.batch_size / short.chain.calls(build.schedule(run.config.diffusion))


def fitting(seconds: float, each: float, store: Store, split: str = "train") -> int:
    """How many images fit into ``seconds`` at ``each`` seconds an image: one of `SIZES`, at least the least of them."""
    spare = store.count(other_split(split))
    most = spare if spare >= SPARE_HELD_OUT else SIZES[-1]
    sizes = sorted({*(size for size in SIZES if size <= most), min(most, SIZES[-1])})
    return max((size for size in sizes if size * each <= seconds), default=sizes[0])


def held_out_like(store: Store, label: int | None) -> Tensor:
    """At most `NEW_IMAGES` held-out images, uint8 [N, C, H, W]; of class ``label`` alone where one was asked for.

    Images of some classes lie nearer to each other than those of others do, which is no sign of copies.
    """
    labels, kept = store.labels("held_out"), torch.arange(store.count("held_out"))
    if label is not None and labels is not None:
        kept = kept[labels == label]
    some = randomness.permutation(0, "memorisation", 0, len(kept))[:NEW_IMAGES]
    return store.images("held_out")[kept[some].sort().values]


def _memorisation(run: Run, store: Store, plan: Plan, sets: Sequence[Tensor], name: str) -> dict[str, Any]:
    """Look for copies of training images among all sets together, and draw the closest pairs beside the figures."""
    samples_of_all, train = torch.cat(list(sets)), store.images("train")
    held_out = held_out_like(store, plan.job.label)
    features = next((network.features for network in plan.networks if network.name == "classifier"), None)
    found = memorisation.memorisation(samples_of_all, train, held_out, flip=run.config.data.flip, features=features)
    with replacing(make_folder(run.path / FOLDER) / f"{name}-pairs.png") as partial:
        memorisation.picture(found, samples_of_all, train, held_out).save(partial, format="png")
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(found)))  # lists, as they are read again
    return {**plain, "says": memorisation.describe(found)}
