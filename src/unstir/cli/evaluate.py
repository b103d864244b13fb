"""`unstir evaluate`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from unstir.chain import FAST
from unstir.cli.app import app, say, show, show_json
from unstir.cli.chain_options import ChainOptions

AS_USUAL = ChainOptions()
CHAIN = Group(
    "Chain",
    help=f"Defaults are {FAST.sampler} with {FAST.steps} steps, and else as in the run's [grids] settings.",
)


@app.command
def evaluate(
    run: Path,
    /,
    *,
    num: int = 0,
    seeds: int = 3,
    minutes: float = 3.0,
    chain: Annotated[ChainOptions, Parameter(group=CHAIN)] = AS_USUAL,
    checkpoint: str = "newest",
    fid: bool = False,
    features: Path | None = None,
    split: Literal["train", "held_out"] = "train",
    reference: int = 0,
    memorisation: bool = True,
    against: Path | None = None,
    seed: int = 0,
    label: str | None = None,
    store: Path | None = None,
    batch_size: int = 64,
    dtype: Literal["float32", "bfloat16", "auto"] = "auto",
    device: str = "auto",
    ema: bool = True,
    json_: bool = False,
) -> int:
    """Evaluate a trained run: distances of its samples to the data, with those of real images and of noise.

    Without any download the features are those of a small classifier of the run's own labels, trained in seconds and
    kept with the data (FD-classifier, which is no FID); data without labels has the sliced Wasserstein distance. With
    --fid Inception's are added: FID, KID, Inception Score, precision and recall, density and coverage. Images are drawn
    into RUN/generated, figures with their whole protocol go to RUN/evaluation; the same command again goes on where it
    was killed, and a finished one only prints.

    Example: `unstir evaluate runs/digits`

    Example: `unstir evaluate runs/mine --num 10000 --fid --against runs/theirs`

    Parameters
    ----------
    run
        Folder of the run.
    num
        Images per seed; 0: as many as before, else as --minutes allow, but no more than are held out where 100 or more
        are.
    seeds
        Sets of images, each with its own seed, for error bars.
    minutes
        Time for drawing the images where --num is 0.
    checkpoint
        The saved step whose weights are evaluated, "newest", or "all": each saved step, for a curve.
    fid
        Also measure FID and its company by the Inception network; needs unstir[fid], and a file of 96 MB, downloaded
        once.
    features
        The file of that network, where it is already there; implies --fid.
    split
        The images to compare with; published figures take those trained on.
    reference
        How many of them; 0: all, but with --fid on a CPU 2000, or --num.
    memorisation
        Look for copies of training images.
    against
        Another run to compare with, evaluated before by the same protocol.
    seed
        Seed of the first set.
    label
        Class, by name or number, for a network with classes; by default each as often as the data has it.
    store
        Folder of the packed data, where it has moved.
    batch_size
        Images computed at once.
    dtype
        Arithmetic inside the denoising network.
    device
        "auto", "cpu", "cuda", "cuda:1" or "mps".
    ema
        Use the averaged weights where the run has them.
    json_
        Print the evaluations as JSON.
    """
    from unstir import console
    from unstir.metrics.evaluation import Evaluation, describe
    from unstir.metrics.request import EvaluationRequest, evaluate_run

    request = EvaluationRequest(
        checkpoint=checkpoint,
        num=num,
        seeds=seeds,
        minutes=minutes,
        chain=chain.given(),
        guide=chain.guide,
        seed=seed,
        label=label,
        inception=fid or features is not None,
        features=features,
        split=split,
        reference=reference,
        memorisation=memorisation,
        against=against,
        store=store,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        ema=ema,
    )

    def finished(evaluation: Evaluation) -> None:
        if not json_:
            show(*describe(evaluation).splitlines())

    with console.heartbeat("evaluating"):
        found, comparison = evaluate_run(run, request, say=say, showing=console.counting, finished=finished)
    if json_:
        show_json({"evaluations": [dataclasses.asdict(each) for each in found], "comparison": comparison or None})
    elif comparison:
        show(*comparison)
    return 0
