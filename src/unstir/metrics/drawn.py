"""The images that a run draws to be judged: sets of them, a folder in RUN/generated for each, whole after a kill."""

import dataclasses
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unstir.chain import Chain
from unstir.data import Store
from unstir.generate.drawing import Job, sample_batches
from unstir.generate.drawing import check as check_job
from unstir.generate.folder import drawn_in, name_of, read_images, save_images
from unstir.metrics.evaluation import FOLDER, FORMAT, SHARES
from unstir.progress import counting
from unstir.runs.conditions import some_images
from unstir.runs.files import check_writable
from unstir.runs.model import Model
from unstir.runs.run import Run
from unstir.runs.stores import check_data

MOST_CONDITIONS = 10_000  # of held-out images that samples are drawn for, before they begin anew


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """What the ``model`` of a run draws by a ``chain``, whose seed is the first set's; the others have +1, +2, ...

    ``label`` and ``shares`` say which classes, ``condition`` what else describes the images, alike in all sets, and
    ``batch_size`` how many at once, as in a `Job`.
    """

    run: Run
    model: Model
    chain: Chain
    label: int | None = None
    shares: tuple[int, ...] = ()
    condition: Tensor | None = None
    batch_size: int = 64

    @property
    def home(self) -> Run:
        """Figures are kept with the run."""
        return self.run

    @property
    def about(self) -> Mapping[str, Any]:
        """The step, how many training images it had seen, the run and the weights."""
        step = self.model.step
        return {"step": step, "images": self.run.images_seen(step), **self.model.marks}

    def job(self, num: int, number: int = 0) -> Job:
        """The sampling job of a set by its number, from 0."""
        chain = replace(self.chain, seed=self.chain.seed + number)
        asked = {key: getattr(self, key) for key in ("label", "shares", "condition", "batch_size")}
        return Job(num=num, chain=chain, **asked)

    def folder(self, number: int = 0) -> Path:
        """Where the images of a set are kept: other weights, torch or format have another folder."""
        digest = hashlib.sha256(f"{self.model.marks} {torch.__version__} {FORMAT}".encode()).hexdigest()[:6]
        return self.run.path / "generated" / f"{name_of(self.model, self.job(1, number))}-{digest}"

    def drawn(self, number: int) -> int:
        """How many images of a set are there already, without a gap."""
        return drawn_in(self.folder(number))

    def check(self, num: int, seeds: int, store: Store) -> None:
        """Raise UserError where the model cannot draw them, their folders cannot be written, or the data is other."""
        check_data(self.run.path, self.run.data, store)
        check_job(self.model, self.job(max(num, 1)))  # what is too few to be judged, the plan says
        for folder in ("generated", FOLDER):
            check_writable(self.run.path / folder)

    def protocol(self, num: int, seeds: int, store: Store) -> dict[str, Any]:
        """How they are drawn."""
        model = self.model
        return {
            **self.chain.in_effect(),
            **dataclasses.asdict(self.chain.cost(model.process.schedule)),
            "label": SHARES if self.shares else self.label,
            "guide": model.guide_name,
            "ema": model.averaged,
            "dtype": model.arithmetic,
            **({} if model.conditions is None else {"condition": model.conditions.hash(self.condition)}),
        }

    def classes(self, num: int, seeds: int) -> list[Tensor] | None:
        """The classes asked for, alike in all sets."""
        labels = self.model.labels.of(torch.arange(num), self.label, self.shares)
        return None if labels is None else [labels] * seeds

    def sets(self, num: int, seeds: int) -> list[Tensor]:
        """The first ``num`` images of each folder, drawn now as far as they are not there."""
        model, drawn = self.model.unloaded(), []  # what computes the figures needs the memory afterwards
        for number in range(seeds):
            job = self.job(max(num, self.drawn(number)), number)
            with counting(f"sampling, set {number + 1} of {seeds}", "steps"):
                save_images(model, job, self.folder(number))
            drawn.append(read_images(self.folder(number), num))
        return drawn


def usual_labels(run: Run, store: Store, label: int | None = None) -> dict[str, Any]:
    """The settings of `Drawn` that say which classes, by default by the data's shares, or which held-out conditions."""
    if run.conditions is not None:
        store.verify()
        split = usual_split(run, store)
        return {"condition": run.conditions.rows_of(store, split, some_images(store, split, MOST_CONDITIONS))}
    if label is not None or not run.config.model.num_classes:
        return {"label": label}
    store.verify()  # a damaged label may be of any size
    of_data, classes = store.labels("train"), run.config.model.num_classes
    return {} if of_data is None else {"shares": tuple(of_data.bincount(minlength=classes).tolist())}


def usual_split(run: Run, store: Store) -> str:
    """The images that a run is compared with: those of training, or the held-out ones whose conditions it is given."""
    return "train" if run.conditions is None or not store.count("held_out") else "held_out"


def usual_chain(run: Run) -> Chain:
    """The chain of an evaluation where nothing else is asked: the clamp and guidance of the grids, a fast sampler."""
    return run.config.kind.usual(run.chain(), run.config.diffusion.T)


def seconds_per_call(drawn: Drawn) -> float:
    """The seconds of one network call per image, measured on a short chain of a batch."""
    model, job = drawn.model.unloaded(), drawn.job(drawn.batch_size)
    short = replace(job, chain=model.kind.shorter(job.chain, 4))
    list(sample_batches(model, replace(short, chain=model.kind.shorter(job.chain, 2))))  # warm up
    began = time.perf_counter()
    list(sample_batches(model, short))
    return (time.perf_counter() - began) / job.batch_size / short.chain.calls(model.process.schedule)
