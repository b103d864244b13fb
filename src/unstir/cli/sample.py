"""`unstir sample`."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from unstir.cli.app import app, say, show
from unstir.cli.chain_options import ChainOptions, chain_group
from unstir.errors import UserError
from unstir.runs import sidecar

IMAGES_OWN = "grid", "noise", "settings"
"""Names in the folder of the images, beside their numbers."""

AS_THE_RUN = ChainOptions()

LINE = 16
"""Images in a line of a comparison."""


@app.command
def sample(
    run: Path,
    /,
    *,
    num: int = 64,
    out: Path | None = None,
    chain: Annotated[ChainOptions, Parameter(group=chain_group(ChainOptions))] = AS_THE_RUN,
    seed: int = 0,
    label: str | None = None,
    compare: str = "",
    animate: Path | None = None,
    strip: Path | None = None,
    stages: int | None = None,
    batch_size: int = 64,
    dtype: Literal["float32", "bfloat16", "auto"] = "float32",
    device: str = "auto",
    checkpoint: int | None = None,
    ema: bool = True,
) -> int:
    """Draw images from a trained run: OUT/000000.png, ..., with the noise they began as and both as grids.

    A job killed half way goes on when it is run again. With --compare one picture of several samplers is made instead.

    Example: `unstir sample runs/digits --num 500 --sampler dpmpp_2m --steps 15 --out digits500`

    Example: `unstir sample runs/digits --num 8 --compare "ancestral:1000,ddim:50,dpmpp_2m:15" --out compared`

    Parameters
    ----------
    run
        Folder of the run.
    num
        How many images: exactly so many are written.
    out
        Folder for the images; by default one in RUN/generated, named after the settings.
    seed
        Image i is a function of the seed and i.
    label
        Class, by its name or number; by default each class in turn, where the network knows classes.
    compare
        Samplers with their steps and, if another, spacing: "ancestral:1000,ddim:50,dpmpp_2m:15:log_snr". Each has its
        row in OUT/compare.png, all from one noise.
    animate
        File of an animation of the first 64 images on their way, x_t beside the estimate of x_0: .webp or .gif.
    strip
        File of a picture of the first 8 images at stages of their way, with the estimates of x_0 below.
    stages
        How many stages the strip has; 10 if left out.
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
    from unstir.generate import Job, name_of, save_images
    from unstir.runs.run import Run

    if compare and (animate or strip or chain.given().keys() & {"sampler", "steps"}):
        raise UserError("--compare names samplers and steps; leave out --sampler, --steps, --animate and --strip")
    if stages is not None and not strip:
        raise UserError(f"--stages {stages} is of a --strip FILE.png; name that too, or leave it out")
    if stages is not None and stages < 2:
        raise UserError(f"--stages {stages} must be at least 2, the noise and the image")
    opened = Run.open(run)
    model = opened.model(checkpoint, ema=ema, device=device, dtype=dtype, guide=chain.guide, say=say)
    job = Job(
        num=num,
        chain=model.chain.changed(**chain.given(), seed=seed),
        label=model.labels.number(label),
        batch_size=batch_size,
    )
    if compare:
        return _compare(model, job, compare, out)
    folder = out or run / "generated" / name_of(model, job)
    _check_ways(animate, strip, folder)
    with console.counting("sampling", "steps") as progress:
        model, done = save_images(model, job, folder, progress)
    if done.batch_size != batch_size:
        say(f"{folder} was begun in batches of {done.batch_size}, and so it went on")
    show(f"samples  {folder / 'grid.png'}", f"noise    {folder / 'noise.png'}")
    show(f"images   {num} in {folder}, {_cost(model, done)}")
    if animate or strip:
        _show_trajectory(model, done, folder, animate, strip, stages or 10)
    return 0


def _check_ways(animate: Path | None, strip: Path | None, folder: Path) -> None:
    """Raise UserError where the animation or strip cannot be written, or would replace what it must not."""
    kinds = {"--animate": (animate, (".webp", ".gif")), "--strip": (strip, (".png",))}
    for option, (file, suffixes) in kinds.items():
        if file is None:
            continue
        if not file.absolute().parent.is_dir():
            raise UserError(f"{option} {file} is in a folder that does not exist; make it, or name another")
        if file.resolve().parent == folder.resolve() and (file.stem in IMAGES_OWN or file.stem.isdecimal()):
            raise UserError(f"{option} {file} is the name of a file of the images themselves; name another")
        sidecar.check(file, option=option, suffixes=suffixes)


def _cost(model: Any, job: Any) -> str:
    """The steps and network calls per image, in words."""
    words = f"{job.chain.cost(model.process.schedule)} each"
    if job.chain.guidance in (0, 1):
        return words
    return words + (", computed for two labels (guidance)" if model.guide is None else ", and as many of the guide")


def _compare(model: Any, job: Any, text: str, out: Path | None) -> int:
    """Draw the rows of the comparison and write OUT/compare.png, with what made it in OUT/compare.json."""
    from unstir import compare, console
    from unstir.generate import drawn_classes, settings_of
    from unstir.pictures.grid import contact_sheet
    from unstir.pictures.named import titled

    chains = compare.parse(text, job.chain)
    for each in chains:
        each.times(model.process.schedule)
    settings = {**settings_of(model, job), "num": job.num, "compared": [dataclasses.asdict(c) for c in chains]}
    name = f"compare-step{model.step}-seed{job.chain.seed}-{sidecar.digest(settings)}"
    file = (out or model.folder / "generated" / name) / "compare.png"
    sidecar.check(file)
    with console.counting("comparing", "steps") as progress:
        rows = compare.compare(model, job, chains, progress)
    measured = {key: [getattr(row.cost, key) for row in rows] for key in ("steps", "calls")}
    measured["seconds"] = [row.seconds for row in rows]
    lines = [
        (row.caption if at == 0 else "", row.images[at : at + LINE]) for row in rows for at in range(0, job.num, LINE)
    ]
    sheet = titled(contact_sheet(lines, widest=400), ", ".join(drawn_classes(model, job, LINE)))
    sidecar.save(file, sidecar.png(sheet), "unstir sample --compare", settings, **measured)
    show(*(row.caption for row in rows), f"compared {file}")
    return 0


def _show_trajectory(model: Any, job: Any, folder: Path, animate: Path | None, strip: Path | None, stages: int) -> None:
    """Draw the first images once more and keep what they looked like on their trajectories."""
    from unstir import console
    from unstir.generate import drawn_classes, trajectory
    from unstir.generate.folder import computing_with, settings_in
    from unstir.pictures import animation
    from unstir.pictures.named import titled

    limit, settings = max(animation.MAX_FRAMES, stages), settings_in(folder)
    counting = console.counting("drawing trajectories", "steps")
    with computing_with(settings["threads"]), counting as progress:
        frames = trajectory(model, job, 64 if animate else 8, limit=limit, progress=progress)
    settings |= {"num": job.num, "frames": len(frames)}
    if animate:
        kind = animation.animation_kind(animate)
        moving = partial(animation.save_animation, frames, nrow=model.nrow, kind=kind)
        sidecar.save(animate, moving, "unstir sample", settings)
        show(f"animation {animate}")
    if strip:
        first = [dataclasses.replace(frame, x=frame.x[:8], x0=frame.x0[:8]) for frame in frames]
        sheet = titled(animation.strip(first, stages), ", ".join(drawn_classes(model, job, 8)))
        sidecar.save(strip, sidecar.png(sheet), "unstir sample", {**settings, "stages": stages})
        show(f"strip    {strip}")
