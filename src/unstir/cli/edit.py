"""`unstir edit`: inpaint, vary, invert, blend and morph."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from unstir.cli.app import app, show
from unstir.cli.options import FLAT, ChainOptions, FillOptions, Given, InvertOptions, ModelOptions, RunFolder
from unstir.errors import UserError

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from unstir.edit import Edited
    from unstir.generate.drawing import Job
    from unstir.runs.model import Model

edit = App(name="edit", help="Fill in, vary, invert, blend and morph images with a trained run.")
app.command(edit)


@FLAT
@Parameter(group="Edit")
@dataclass(frozen=True, kw_only=True)
class EditOptions(ModelOptions):
    """What every edit takes."""

    out: Path | None = None
    """The PNG file to write, with its settings in OUT.json; by default a file in RUN/edits for each setting."""
    singles: bool = False
    """Also write each result as a file at the run's resolution: OUT-0.png, OUT-1.png, ... Those of a picture of
    other settings that is replaced are removed, unless they were changed."""
    seed: int = 0
    """Result i is a function of the seed, any whole number, and i."""
    condition: str | None = None
    """What describes the image to a run with data.condition: as for `unstir sample`. By
    default it is hidden; of a stack in an .npz file it is the conditions there."""


IMAGE = Parameter(help="A picture file; its centre square is resized to the run's images.")
STACK = Parameter(help=f"{IMAGE.help} Or a stack, whose results are arrays: a folder of them, .npy or .npz.")
Label = Annotated[
    str | None,
    Parameter(
        help="Class of the image, by name or number. A network with classes needs it, unless labels were hidden in "
        "training."
    ),
]


@edit.command
def inpaint(
    run: RunFolder,
    image: Annotated[Path, STACK],
    /,
    *,
    mask: Path | None = None,
    box: tuple[int, int, int, int] | None = None,
    num: int = 8,
    label: Label = None,
    resamples: int = 3,
    jump: int = 1,
    into: Path | None = None,
    spread: bool = False,
    batch_size: int = 64,
    chain: FillOptions = FillOptions(),
    options: EditOptions = EditOptions(),
) -> int:
    """Fill in a part of an image: the white of MASK, or a box.

    The picture shows the image, its known part and NUM results.

    The method is RePaint (Lugmayr et al. 2022). Each step puts the known part back and is repeated, so that the new
    part agrees with it.

    The results of a stack are arrays in the folder --out: results.npy [N, NUM, C, H, W].

    Example: `unstir edit inpaint runs/mnist seven.png --box 0 14 28 14`

    Example: `unstir edit inpaint runs/mnist images.npy --mask masks.npy --num 16 --spread`

    Args:
        mask: A picture of the image's size or of the run's. White is filled in, black is kept; or what was erased from
            it, so that it is transparent, is filled in. Of a stack also a folder of these, in the order of the images,
            or an array [N, H, W] or [N, C, H, W] that is not 0 where an image is to be filled in. What is
            missing (NaN) is filled in without a mask too.
        box: Left, top, width and height of the part to fill in, in pixels of the run's images.
        num: Number of results.
        resamples: How often each step is taken; more repetitions agree better and cost as many times the calls.
        jump: Number of consecutive steps that are repeated together.
        into: File (.png) of the image itself, at its own size, with the first result pasted in.
        spread: Write the mean and the standard deviation of the NUM results too, as arrays and as pictures.
        batch_size: Results computed at once.
    """
    from unstir import edit
    from unstir.edit import stack
    from unstir.runs import sidecar

    if spread or image.is_dir() or image.suffix.lower() in (".npy", ".npz"):
        if into or options.singles:
            raise UserError("--into and --singles are for one picture without --spread; leave them out")
        model, job = _asked(run, chain, options, num=num, label=label, batch_size=batch_size)
        if options.out is not None:
            stack.targets(options.out, spread)
        images, described = stack.read_stack(image, model)
        job = replace(job, condition=described if job.condition is None else job.condition)
        keep = stack.read_masks(mask, box, images.shape)
        filled = stack.inpaint_stack(model, images, keep, job, resamples=resamples, jump=jump)
        name = f"inpaint-{image.stem}-seed{job.chain.seed}-{sidecar.digest(filled.settings)}"
        files = stack.save(filled, model, options.out or model.folder / "edits" / name, spread)
        show(*(f"{file.suffix[1:]}      {file}" for file in files), f"calls    {filled.calls} of the network")
        return 0
    work = partial(edit.inpaint, image=image, mask=mask, box=box, resamples=resamples, jump=jump)
    return _carry_out(
        run, [image], chain, options, work, mask=mask, into=into, num=num, label=label, batch_size=batch_size
    )


@edit.command
def vary(
    run: RunFolder,
    image: Annotated[Path, IMAGE],
    /,
    *,
    strength: float = 0.6,
    num: int = 8,
    label: Label = None,
    batch_size: int = 64,
    chain: ChainOptions = ChainOptions(),
    options: EditOptions = EditOptions(),
) -> int:
    """Draw images like a given one: add noise and remove it again. The picture shows the image and NUM results.

    The method is SDEdit (Meng et al. 2022), with any sampler. All --steps are taken below the time of STRENGTH.

    Example: `unstir edit vary runs/mnist seven.png --strength 0.5`

    Args:
        strength: How much noise to add, above 0 and at most 1: up to time round(strength T). At 1 the image is lost.
        num: Number of images to draw.
        batch_size: Images computed at once.
    """
    from unstir import edit

    work = partial(edit.vary, image=image, strength=strength)
    return _carry_out(run, [image], chain, options, work, num=num, label=label, batch_size=batch_size)


@edit.command
def invert(
    run: RunFolder,
    image: Annotated[Path, IMAGE],
    /,
    *,
    label: Label = None,
    refinements: int = 2,
    chain: InvertOptions = InvertOptions(),
    options: EditOptions = EditOptions(),
) -> int:
    """Find the noise that DDIM turns into an image. The picture shows the image, the noise, and the image again.

    It prints the PSNR of the image again; more steps or refinements raise it.

    Example: `unstir edit invert runs/mnist seven.png --steps 100`

    Args:
        refinements: Fixed-point iterations per step. Each raises the order of the inversion by one, for one more
            network call per step.
    """
    from unstir import edit

    work = partial(edit.invert, image=image, refinements=refinements)
    return _carry_out(run, [image], chain, options, work, label=label)


@edit.command
def blend(
    run: RunFolder,
    image1: Annotated[Path | None, IMAGE] = None,
    image2: Annotated[Path | None, Parameter(help="Another.")] = None,
    /,
    *,
    numbers: tuple[int, int] | None = None,
    count: int = 8,
    labels: tuple[str, str] | None = None,
    refinements: int = 2,
    chain: InvertOptions = InvertOptions(),
    options: EditOptions = EditOptions(),
) -> int:
    """Interpolate between two images through their noises. The picture shows both images and COUNT between them.

    With --numbers the ends are two images that the run draws, as `unstir sample` numbers them.

    Example: `unstir edit blend runs/mnist three.png eight.png --count 10`

    Example: `unstir edit blend runs/mnist --numbers 0 5`

    Args:
        numbers: Numbers of two images that `--sampler ddim` draws from the seed at the same times, without guidance,
            in place of files.
        count: Number of images, including both ends.
        labels: Classes of the two images, by name or number, for a network with classes.
        refinements: Fixed-point iterations per step of the inversions.
    """
    from unstir import edit

    images = [image for image in (image1, image2) if image is not None]
    if len(images) != (0 if numbers else 2):
        raise UserError("", None, "two images to blend are needed", ("name them", {"numbers": (0, 5)}))
    ends = numbers or (images[0], images[1])
    work = partial(edit.blend, ends=ends, count=count, refinements=refinements)
    return _carry_out(run, ends, chain, options, work, labels=labels)


@edit.command
def morph(
    run: Path,
    /,
    *,
    labels: tuple[str, str],
    count: int = 8,
    num: int = 4,
    batch_size: int = 64,
    chain: ChainOptions = ChainOptions(),
    options: EditOptions = EditOptions(),
) -> int:
    """Interpolate between two classes from one noise. The picture has NUM rows of COUNT images.

    Example: `unstir edit morph runs/mnist --labels 3 8`

    Args:
        run: Folder of a run with classes.
        labels: The classes at both ends, by name or number.
        count: Number of images per row, including both ends.
        num: Number of rows, each from its own noise.
        batch_size: Images computed at once.
    """
    from unstir import edit

    work = partial(edit.morph, count=count)
    return _carry_out(run, labels, chain, options, work, labels=labels, num=num, batch_size=batch_size)


def _carry_out(
    run: Path,
    parts: Sequence[str | int | Path],
    chain: Given,
    options: EditOptions,
    work: Callable[..., "Edited"],
    *,
    mask: Path | None = None,
    into: Path | None = None,
    labels: tuple[str, str] | None = None,
    **asked: Any,
) -> int:
    """Do the ``work`` and write its picture, named after ``parts``, its images; ``asked`` is of the job, as typed."""
    from unstir.edit.files import Target, notes_on
    from unstir.runs.run import Run

    images = [part for part in parts if isinstance(part, Path)]
    target = Target(
        options.out, Run.open(run).path / "edits", parts, [*images, *([mask] if mask else [])], options.singles, into
    )
    model, job = _asked(run, chain, options, **asked)
    ends = {"labels": model.labels.numbers(labels, "labels")} if labels else {}
    edited = work(model, job=job, **ends)
    for image in images:
        for note in notes_on(image, model.shape):
            logger.warning(f"{image}: {note}")
    show(*target.save(edited))
    return 0


def _asked(run: Path, chain: Given, options: EditOptions, **asked: Any) -> tuple["Model", "Job"]:
    from unstir.generate.conditions import read_conditions
    from unstir.generate.drawing import Job
    from unstir.runs.run import Run

    opened, given = Run.open(run), chain.given()
    guided = chain.guide is None and given.get("guidance", 1) != 1
    if guided and opened.labels.has_null and asked.get("label", 0) is None:
        raise UserError("guidance", given["guidance"], "leads towards a class", "name it with --label")
    if guided and opened.conditions is not None and options.condition is None:
        raise UserError("guidance", given["guidance"], "leads towards a condition", "name it with --condition")
    if "label" in asked:
        asked["label"] = opened.labels.number(asked["label"])
    model = options.model(opened, chain.guide)
    asked["condition"] = read_conditions(options.condition, model)
    job = Job(chain=model.chain.changed(**given, seed=options.seed), **{"num": 1, **asked})
    return model, job
