"""`unstir sample`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from unstir.cli.app import app, say
from unstir.runs.sections import GridConfig, SamplerName, SpacingName


@Parameter(name="*", name_transform=lambda name: name.replace("_", "-"))
@dataclass(frozen=True, kw_only=True)
class ChainOptions:
    """How to sample; what is left out is taken from the run's [grids] settings."""

    sampler: SamplerName | None = None
    """How images are drawn."""
    steps: int | None = None
    """Network calls an image, 1 to T."""
    spacing: SpacingName | None = None
    """Which of the T times are visited."""
    variance: Literal["auto", "small", "large", "learned"] | None = None
    """Of ancestral; auto: learned if it was, else large (beta) over all T steps, small (beta~) over fewer."""
    eta: float | None = None
    """Of ddim: 0 is deterministic, 1 is ancestral sampling with the small variance."""
    clip: bool | None = None
    """Clamp the estimate of the clean image to [-1, 1] at each step."""
    threshold: float | None = None
    """Quantile of dynamic thresholding, such as 0.995, in place of the plain clamp."""
    guidance: float | None = None
    """Scale of guidance: 1 is the conditional model, 0 the unconditional one; a paper's w is this - 1."""
    guidance_low: int | None = None
    """The least time at which guidance acts; left out: 1."""
    guidance_high: int | None = None
    """The greatest time at which guidance acts; 0, or left out: T."""
    guide: str | None = None
    """What guidance leads away from: a less trained step (1000), another run (its folder), or its step (RUN@1000); by
    default the network without its label."""


def over(options: Any, base: Any) -> Any:
    """The chain ``base`` with what is given of the ``options`` of a command, of any number of them, in its place."""
    given = {key: value for key, value in dataclasses.asdict(options).items() if value is not None and key != "guide"}
    return dataclasses.replace(base.by(given.get("sampler", base.sampler)), **given)


def chain_group(options: type) -> Group:
    """The group of a command's chain options, which says what they are by default."""
    usual = dataclasses.asdict(GridConfig())
    names = [each.name for each in dataclasses.fields(options) if each.name in usual and each.default is None]
    said = ", ".join(f"{name} {_in_words(usual[name])}" for name in names)
    return Group(
        "Chain",
        help=f"What is left out is as in the run's [grids] settings: {said}, unless its recipe or config differs.",
    )


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


@app.command
def sample(
    run: Path,
    /,
    *,
    num: int = 64,
    out: Path | None = None,
    chain: Annotated[ChainOptions, Parameter(group=chain_group(ChainOptions))] = ChainOptions(),
    seed: int = 0,
    label: int | None = None,
    compare: str = "",
    animate: Path | None = None,
    strip: Path | None = None,
    stages: int = 10,
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
        Class index; by default each class in turn, where the network knows classes.
    compare
        Samplers with their calls, "ancestral:1000,ddim:50,dpmpp_2m:15": a row of OUT/compare.png each, from one noise.
    animate
        File of an animation of the first images on their way, x_t beside the estimate of x_0: .webp or .gif.
    strip
        File of a picture of the first 8 images at stages of their way, with the estimates of x_0 below.
    stages
        How many stages the strip has.
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
    from unstir.errors import UserError
    from unstir.generate import Job, save_images
    from unstir.pictures.animation import animation_kind
    from unstir.runs import build
    from unstir.runs.guide import guide_of
    from unstir.runs.run import Run

    if animate:
        animation_kind(animate)  # refused before anything is drawn
    for file in (animate, strip):
        if file and not file.absolute().parent.is_dir():
            raise UserError(f"{file} is in a folder that does not exist; make it, or name another")
        if file and file.is_dir():
            raise UserError(f"{file} is a folder; name a file")
    if strip and strip.suffix.lower() != ".png":
        raise UserError(f"--strip {strip} would be a PNG picture; name a file that ends in .png")
    if compare and (animate or strip or chain.sampler or chain.steps):
        raise UserError("--compare names samplers and steps; leave out --sampler, --steps, --animate and --strip")
    if stages < 2:
        raise UserError(f"stages={stages} must be at least 2, the noise and the image")
    opened = Run.open(run)
    loaded = opened.load(checkpoint, say=say)
    job = Job(
        num=num,
        chain=dataclasses.replace(over(chain, opened.chain()), seed=seed),
        step=loaded.step,
        ema=ema,
        label=label,
        guide=guide_of(chain.guide, opened),
        batch_size=batch_size,
        device=device,
        dtype=dtype,
    )
    if compare:
        return _compare(opened, job, compare, out, loaded)
    folder = out or run / "generated" / job.name()
    with console.counting(console.stderr(), "sampling", "steps") as progress:
        save_images(opened, job, folder, progress, loaded)
    calls = job.chain.calls(build.schedule(opened.config.diffusion))
    print(f"samples  {folder / 'grid.png'}\nnoise    {folder / 'noise.png'}")
    print(f"images   {num} in {folder}, {calls} network call{'s' * (calls > 1)} each")
    if animate or strip:
        _show_the_way(opened, job, animate, strip, stages, loaded)
    return 0


def _compare(run: Any, job: Any, text: str, out: Path | None, loaded: Any) -> int:
    """Draw the rows of the comparison and write OUT/compare.png, with what made it in OUT/compare.json."""
    from unstir import compare, console
    from unstir.cli import beside
    from unstir.generate import settings_of
    from unstir.pictures.grid import contact_sheet
    from unstir.runs import build

    chains = compare.parse(text, job.chain)
    for each in chains:
        each.times(build.schedule(run.config.diffusion))
    settings = {**settings_of(run, job, loaded), "num": job.num, "compared": [dataclasses.asdict(c) for c in chains]}
    name = f"compare-step{job.step}-seed{job.chain.seed}-{beside.digest(settings)}"
    file = (out or run.path / "generated" / name) / "compare.png"
    beside.check(file)
    with console.counting(console.stderr(), "comparing", "steps") as progress:
        rows = compare.compare(run, job, chains, loaded, progress)
    measured = {key: [getattr(row, key) for row in rows] for key in ("calls", "seconds")}
    sheet = contact_sheet([(row.caption, row.images) for row in rows])
    beside.save(file, beside.png(sheet), "unstir sample --compare", settings, **measured)
    print("\n".join(row.caption for row in rows) + f"\ncompared {file}")
    return 0


def _show_the_way(run: Any, job: Any, animate: Path | None, strip: Path | None, stages: int, loaded: Any) -> None:
    """Draw the first images once more and keep what they looked like on the way."""
    from unstir import console
    from unstir.generate import way
    from unstir.pictures import animation
    from unstir.runs.files import replacing

    limit = max(animation.MAX_FRAMES, stages)
    with console.counting(console.stderr(), "drawing the way", "steps") as progress:
        frames = way(run, job, 64 if animate else 8, limit=limit, loaded=loaded, progress=progress)
    if animate:
        with replacing(animate) as partial:
            animation.save_animation(
                frames, partial, nrow=run.config.grids.nrow, kind=animation.animation_kind(animate)
            )
        print(f"animation {animate}")
    if strip:
        first = [dataclasses.replace(frame, x=frame.x[:8], x0=frame.x0[:8]) for frame in frames]
        with replacing(strip) as partial:
            animation.strip(first, stages).save(partial, format="png")
        print(f"strip    {strip}")
