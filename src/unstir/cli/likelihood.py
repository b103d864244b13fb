"""`unstir likelihood`."""

import dataclasses
import json
from pathlib import Path
from typing import Literal

from unstir.cli.app import app, say, show
from unstir.errors import UserError


@app.command
def likelihood(
    run: Path,
    /,
    *,
    split: Literal["held_out", "train", "both"] = "held_out",
    num: int = 0,
    calls: int = 0,
    variance: Literal["auto", "small", "large", "learned"] = "auto",
    clip: bool = True,
    seed: int = 0,
    store: Path | None = None,
    batch_size: int = 64,
    dtype: Literal["float32", "bfloat16", "auto"] = "float32",
    device: str = "auto",
    checkpoint: int | None = None,
    ema: bool = True,
    out: Path | None = None,
    json_: bool = False,
) -> int:
    """Bound the likelihood of images under a trained run, in bits per dimension, and draw where the bits go.

    Every term of the bound of Ho et al. 2020, eq. 5 is summed: T network calls an image. Writes SPLIT.json with the
    figures and the protocol, and curve.png, to RUN/likelihood; other numbers of calls or images are in the names. Of a
    network with classes it is the likelihood given the true class.

    Example: `unstir likelihood runs/digits --split both`

    Parameters
    ----------
    run
        Folder of the run.
    split
        Which images: held out, those trained on, or both.
    num
        How many of the split's images, drawn by the seed; 0: all.
    calls
        Network calls an image: 0 for every term, or fewer to estimate their sum from so many times, drawn anew for each
        batch; below about 20 the estimate is rough. Its error is over batches.
    variance
        Variance of the reverse steps; auto: learned where it was, else large (beta).
    clip
        Clamp each estimate of the clean image to [-1, 1].
    seed
        Seed of noise, times and choice of images.
    store
        Folder of the packed data, where it has moved.
    batch_size
        Images computed at once.
    dtype
        Arithmetic inside the network.
    device
        "auto", "cpu", "cuda", "cuda:1" or "mps".
    checkpoint
        The saved step whose weights are used; by default the newest.
    ema
        Use the averaged weights where the run has them.
    out
        Folder of the figures; by default RUN/likelihood.
    json_
        Print the figures as JSON.
    """
    from unstir import console
    from unstir.data import SPLITS, Store, is_store
    from unstir.metrics.likelihood import Protocol, check, describe, save
    from unstir.metrics.likelihood import likelihood as bound
    from unstir.pictures.charts import likelihood_curves
    from unstir.runs.files import check_writable, make_folder, replacing
    from unstir.runs.run import Run

    opened = Run.open(run)
    if store is None and not is_store(opened.config.data.store):
        raise UserError(f"{opened.config.data.store}, the data of {run}, is no longer there; name it with --store")
    data = Store.open(store or opened.config.data.store)
    model = opened.model(checkpoint, ema=ema, device=device, dtype=dtype, say=say)
    everywhere = Protocol(
        num=num,
        calls=calls,
        variance=variance,
        clip=clip,
        seed=seed,
        batch_size=batch_size,
    )
    parts = SPLITS if split == "both" else (split,)
    protocols = {part: dataclasses.replace(everywhere, split=part) for part in parts}
    for protocol in protocols.values():
        check(model, data, protocol)
    folder = out or run / "likelihood"
    check_writable(folder, "name another with --out")
    make_folder(folder)
    suffix = (f"-{calls}-calls" if calls else "") + (f"-{num}-images" if num else "")
    results = {}
    for part, protocol in protocols.items():
        with console.counting(f"bounding {part}", "network calls") as progress:
            results[part] = bound(model, data, protocol, progress=progress)
        save(folder / f"{part}{suffix}.json", results[part])
    curve = folder / f"curve{suffix}.png"
    with replacing(curve) as partial:
        likelihood_curves({name: (r.times, r.curve, r.decoder, r.total) for name, r in results.items()}, partial)
    if json_:
        print(json.dumps({name: dataclasses.asdict(result) for name, result in results.items()}))
    else:
        show(*(line for each in results.values() for line in describe(each).splitlines()), f"curve     {curve}")
    return 0
