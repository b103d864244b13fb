"""`unstir sample`."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from unstir.cli.app import app


@app.command
def sample(
    run: Path,
    /,
    *,
    num: int = 64,
    out: Path | None = None,
    sampler: Literal["ancestral", "ddim"] | None = None,
    steps: int | None = None,
    spacing: Literal["trailing", "leading", "linspace"] | None = None,
    variance: Literal["auto", "small", "large", "learned"] | None = None,
    clip: bool | None = None,
    eta: float | None = None,
    seed: int = 0,
    label: int | None = None,
    batch_size: int = 64,
    dtype: Literal["float32", "bfloat16", "auto"] = "float32",
    device: str = "auto",
    checkpoint: int | None = None,
    ema: bool = True,
) -> int:
    """Draw images from a trained run: OUT/000000.png, ..., with the noise they began as and both as grids.

    What is left out is taken from the run's [grids] settings. A job killed half way goes on when it is run again.

    Example: `unstir sample runs/digits --num 500 --steps 1000 --out digits500`

    Parameters
    ----------
    run
        Folder of the run.
    num
        How many images: exactly so many are written.
    out
        Folder for the images; by default one in RUN/generated, named after the settings.
    sampler
        How images are drawn.
    steps
        Network calls an image, 1 to T.
    spacing
        Which of the T times are visited.
    variance
        Variance of the chain; auto: learned if it was, else large (beta) over all T steps, small (beta~) over fewer.
    clip
        Clamp the estimate of the clean image to [-1, 1] at each step.
    eta
        Share of randomness in ddim: 0 is deterministic, 1 is ancestral sampling with the small variance.
    seed
        Image i is a function of the seed and i.
    label
        Class index; by default each class in turn, where the network knows classes.
    batch_size
        Images computed at once; a job that goes on keeps what it began with.
    dtype
        Arithmetic inside the network.
    device
        "auto", "cpu", "cuda", "cuda:1" or "mps".
    checkpoint
        The saved step whose weights are used; by default the newest.
    ema
        Use the averaged weights where the run has them.
    """
    from unstir import console
    from unstir.generate import Job, save_images
    from unstir.runs.run import Run

    opened = Run.open(run)
    given: dict[str, Any] = {
        "sampler": sampler,
        "steps": steps,
        "spacing": spacing,
        "variance": variance,
        "clip": clip,
        "eta": eta,
    }
    if sampler not in (None, "ddim"):
        given["eta"] = eta or 0.0  # the run's own belongs to its own sampler
    chain = dataclasses.replace(opened.chain(), seed=seed, **{k: v for k, v in given.items() if v is not None})
    loaded = opened.load(checkpoint)
    job = Job(
        num=num,
        chain=chain,
        step=loaded.step,
        ema=ema,
        label=label,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
    )
    folder = out or run / "generated" / job.name()
    with console.counting(console.stderr(), "sampling", "network calls") as progress:
        save_images(opened, job, folder, progress, loaded)
    print(f"samples  {folder / 'grid.png'}\nnoise    {folder / 'noise.png'}\nimages   {num} in {folder}")
    return 0
