"""`unstir evaluate` and `unstir likelihood`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from unstir.chain import FAST
from unstir.cli.app import app, show, show_result
from unstir.cli.options import (
    FLAT,
    ChainOptions,
    ChartFormat,
    ModelOptions,
    OutFolder,
    RunFolder,
    StoreFolder,
    check_one,
)
from unstir.errors import UserError
from unstir.metrics.request import EvaluationRequest

USUAL = f"Defaults are {FAST.sampler} with {FAST.steps} steps; the others are the run's [grids] settings."


@FLAT
@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(EvaluationRequest):
    """A request as options; the chain and its guide have options of their own."""

    chain: Annotated[Mapping[str, Any], Parameter(parse=False)] = field(default_factory=dict)
    guide: Annotated[str | None, Parameter(parse=False)] = None


@app.command
def evaluate(
    run: RunFolder | None = None,
    /,
    *,
    images: list[Path] | None = None,
    options: EvaluationOptions = EvaluationOptions(),
    chain: Annotated[ChainOptions, Parameter(group=Group("Chain", help=USUAL))] = ChainOptions(),
    json_: bool = False,
) -> int:
    """Evaluate a trained run: distances of its samples to the data, with those of real images and of noise.

    It needs no download: features come from a small classifier of the run's labels, trained in seconds and kept with
    the data. Its distance, FD-classifier, is no FID. Data without labels has the sliced Wasserstein distance. --fid
    adds the figures of Inception. Images go to RUN/generated, figures with their protocol to RUN/evaluation. The same
    command continues where it was killed.

    --images judges images of any other program in the same way: a folder, a zip, or a NumPy file (.npy, .npz). Their
    figures go to STORE/evaluation.

    Example: `unstir evaluate runs/mnist`

    Example: `unstir evaluate --images made/ --store data/mnist --against runs/mnist`

    Args:
        images: Images to judge in place of a run, of the size of those in --store. Each folder is a set. Subfolders
            with the names of classes say which class was asked for.
        json_: Print the evaluations as JSON.
    """
    from unstir.metrics.evaluate import evaluate_images, evaluate_run
    from unstir.metrics.evaluation import Evaluation, describe

    request = dataclasses.replace(options, chain=chain.given(), guide=chain.guide)
    check_one(run, images)

    def finished(evaluation: Evaluation) -> None:
        if not json_:
            show(*describe(evaluation).splitlines())

    if run is not None:
        found, comparison = evaluate_run(run, request, finished=finished)
    else:
        made, comparison = evaluate_images(images or [], None, request)
        finished(made)
        found = [made]
    show_result({"evaluations": found, "comparison": comparison or None}, json_, *comparison)
    return 0


@app.command
def likelihood(
    run: RunFolder,
    /,
    *,
    split: Literal["held_out", "train", "both"] = "held_out",
    images: Path | None = None,
    per_image: Path | None = None,
    label: str | None = None,
    num: int = 0,
    calls: int = 0,
    variance: Literal["auto", "small", "large", "learned", "optimal"] = "auto",
    clip: bool = True,
    seed: int = 0,
    store: StoreFolder = None,
    batch_size: int = 64,
    options: ModelOptions = ModelOptions(),
    out: OutFolder | None = None,
    format: ChartFormat = "png",
    json_: bool = False,
) -> int:
    """Bound the likelihood of images under a trained run, in bits per dimension, and draw where the bits go.

    It sums every term of the bound of Ho et al. 2020, eq. 5: T network calls per image. Figures, their protocol and
    a picture of the curve go to RUN/likelihood. With classes it is the likelihood given the true class.

    Example: `unstir likelihood runs/mnist --split both`

    Example: `unstir likelihood runs/mnist --images new/ --per-image new.csv`

    Args:
        split: The held-out images, the training images, or both.
        images: Other images of the run's shape: a store, or any source that `unstir data pack` reads. All of them are
            bounded, of a store those of one split.
        per_image: CSV file with a row for each image, of --images or else of the run's data: its name or number, its
            bits per dimension and their parts. With --calls it has the error of each.
        label: Class of all images, of --images or else of the run's data, in place of their own.
        num: Number of images of the split, drawn by the seed; 0: all.
        calls: Network calls per image; 0: every term. Fewer give an unbiased estimate from random times, with its
            error over batches; below about 20 it is rough.
        variance: Variance of the reverse steps; auto: learned where the network has it, else large (beta). optimal is
            read off the loss by time, which is measured first where it was not.
        clip: Clamp each estimate of the clean image to [-1, 1].
        seed: Seed of noise, times and choice of images, any whole number.
        batch_size: Images computed at once.
        out: Folder of the figures; by default RUN/likelihood.
        format: Of the picture of the curve.
        json_: Print the figures as JSON.
    """
    from unstir.data import SPLITS
    from unstir.metrics import scores
    from unstir.metrics.likelihood import Protocol, describe, save_likelihood
    from unstir.runs.run import Run
    from unstir.runs.stores import with_store

    terms: dict[str, Any] = {"calls": calls, "variance": variance, "clip": clip, "seed": seed, "batch_size": batch_size}
    if images or per_image or label:
        if num or out or split == "both":
            raise UserError("--num, --out and --split both are of the run's figure; leave them out")
        source = images or with_store(Run.open(run), store)[1].path
        model = options.model(Run.open(run))
        columns = scores.save_scores(model, source, per_image, split=split, label=label, **terms)
        line = scores.describe(columns, calls, model.process.T)
        show_result(columns, json_, line, *([f"per image {per_image}"] if per_image else []))
        return 0
    opened, data = with_store(Run.open(run), store)
    model = options.model(opened)
    splits = SPLITS if split == "both" else (split,)
    results, curve = save_likelihood(model, data, splits, Protocol(num=num, **terms), out, format)
    lines = [line for each in results.values() for line in describe(each).splitlines()]
    show_result(results, json_, *lines, f"curve     {curve}")
    return 0
