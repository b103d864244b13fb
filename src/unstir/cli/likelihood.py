"""`unstir likelihood`."""

from pathlib import Path
from typing import Literal

from unstir.cli.app import app, show, show_json
from unstir.cli.options import ModelOptions, RunFolder, StoreFolder


@app.command
def likelihood(
    run: RunFolder,
    /,
    *,
    split: Literal["held_out", "train", "both"] = "held_out",
    num: int = 0,
    calls: int = 0,
    variance: Literal["auto", "small", "large", "learned"] = "auto",
    clip: bool = True,
    seed: int = 0,
    store: StoreFolder = None,
    batch_size: int = 64,
    options: ModelOptions = ModelOptions(),
    out: Path | None = None,
    json_: bool = False,
) -> int:
    """Bound the likelihood of images under a trained run, in bits per dimension, and draw where the bits go.

    It sums every term of the bound of Ho et al. 2020, eq. 5: T network calls per image. Figures, their protocol and
    a picture of the curve go to RUN/likelihood. With classes it is the likelihood given the true class.

    Example: `unstir likelihood runs/mnist --split both`

    Args:
        split: The held-out images, the training images, or both.
        num: Number of images of the split, drawn by the seed; 0: all.
        calls: Network calls per image; 0: every term. Fewer give an unbiased estimate from random times, with its
            error over batches; below about 20 it is rough.
        variance: Variance of the reverse steps; auto: learned where the network has it, else large (beta).
        clip: Clamp each estimate of the clean image to [-1, 1].
        seed: Seed of noise, times and choice of images, any whole number.
        batch_size: Images computed at once.
        out: Folder of the figures; by default RUN/likelihood.
        json_: Print the figures as JSON.
    """
    from unstir.data import SPLITS
    from unstir.metrics.likelihood import Protocol, describe, save_likelihood
    from unstir.runs.run import Run
    from unstir.runs.stores import with_store

    opened, data = with_store(Run.open(run), store)
    model = options.model(opened)
    splits = SPLITS if split == "both" else (split,)
    protocol = Protocol(num=num, calls=calls, variance=variance, clip=clip, seed=seed, batch_size=batch_size)
    results, curve = save_likelihood(model, data, splits, protocol, out)
    if json_:
        show_json(results)
    else:
        show(*(line for each in results.values() for line in describe(each).splitlines()), f"curve     {curve}")
    return 0
