"""`unstir edit`: inpaint, vary, invert, blend and morph."""

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from unstir.cli.app import app
from unstir.cli.chain_options import ChainOptions, FillOptions, InvertOptions, chain_group
from unstir.cli.edit_options import EditOptions, carry_out

edit = App(name="edit", help="Fill in, vary, invert, blend and morph images with a trained run.")
app.command(edit)


AS_THE_RUN, FILL_AS_THE_RUN, INVERT_AS_USUAL, AS_USUAL = ChainOptions(), FillOptions(), InvertOptions(), EditOptions()
Edit = Annotated[EditOptions, Parameter(group="Edit")]
Chain = Annotated[ChainOptions, Parameter(group=chain_group(ChainOptions))]
Inversion = Annotated[InvertOptions, Parameter(group=chain_group(InvertOptions))]
Fill = Annotated[FillOptions, Parameter(group=chain_group(FillOptions))]


@edit.command
def inpaint(
    run: Path,
    image: Path,
    /,
    *,
    mask: Path | None = None,
    box: tuple[int, int, int, int] | None = None,
    num: int = 8,
    label: str | None = None,
    resamples: int = 10,
    jump: int = 1,
    chain: Fill = FILL_AS_THE_RUN,
    options: Edit = AS_USUAL,
) -> int:
    """Fill in a part of an image: the white of MASK, or a box. The picture: image, what is left of it, and NUM results.

    RePaint (Lugmayr et al. 2022): the part that is kept is put back at every step, and each step is taken several
    times, so that what is filled in agrees with it.

    Example: `unstir edit inpaint runs/digits seven.png --box 0 4 8 4`

    Parameters
    ----------
    run
        Folder of the run.
    image
        A picture file; its centre square is resized to the run's images.
    mask
        A picture of the image's size or of the run's: white is filled in, black is kept.
    box
        Left, top, width and height of what is filled in, in pixels of the run's images.
    num
        How many results.
    label
        Class of the image, by name or number, for a network with classes; optional where labels were hidden in
        training.
    resamples
        How often each step is taken; more agree better, at as many times the calls.
    jump
        Steps in a row that are repeated together.
    """
    from unstir import edit

    work = partial(edit.inpaint, image=image, mask=mask, box=box, resamples=resamples, jump=jump)
    return carry_out(run, [image], "filling in", chain, options, work, mask=mask, num=num, label=label)


@edit.command
def vary(
    run: Path,
    image: Path,
    /,
    *,
    strength: float = 0.6,
    num: int = 8,
    label: str | None = None,
    chain: Chain = AS_THE_RUN,
    options: Edit = AS_USUAL,
) -> int:
    """Draw images like a given one: noise is added to it and removed again. The picture: the image, and NUM results.

    SDEdit (Meng et al. 2022), with any sampler. All --steps are taken below the time that STRENGTH goes to.

    Example: `unstir edit vary runs/digits seven.png --strength 0.5`

    Parameters
    ----------
    run
        Folder of the run.
    image
        A picture file; its centre square is resized to the run's images.
    strength
        How far to go, above 0 and at most 1: to time round(strength T). At 1 the image is forgotten.
    num
        How many images to draw.
    label
        Class of the images, by name or number, for a network with classes; optional where labels were hidden in
        training.
    """
    from unstir import edit

    work = partial(edit.vary, image=image, strength=strength)
    return carry_out(run, [image], "varying", chain, options, work, num=num, label=label)


@edit.command
def invert(
    run: Path,
    image: Path,
    /,
    *,
    label: str | None = None,
    refinements: int = 2,
    chain: Inversion = INVERT_AS_USUAL,
    options: Edit = AS_USUAL,
) -> int:
    """Find the noise that DDIM turns into an image, and turn it back. The picture: image, noise, and the image again.

    The PSNR of the image that came back is printed: more steps or refinements raise it.

    Example: `unstir edit invert runs/digits seven.png --steps 100`

    Parameters
    ----------
    run
        Folder of the run.
    image
        A picture file; its centre square is resized to the run's images.
    label
        Class of the image, by name or number, for a network with classes; optional where labels were hidden in
        training.
    refinements
        Fixed-point iterations per step; each raises the order of the inversion by one and costs one network call per
        step.
    """
    from unstir import edit

    work = partial(edit.invert, image=image, refinements=refinements)
    return carry_out(run, [image], "inverting", chain, options, work, label=label)


@edit.command
def blend(
    run: Path,
    image1: Path | None = None,
    image2: Path | None = None,
    /,
    *,
    numbers: tuple[int, int] | None = None,
    count: int = 8,
    labels: tuple[str, str] | None = None,
    refinements: int = 2,
    chain: Inversion = INVERT_AS_USUAL,
    options: Edit = AS_USUAL,
) -> int:
    """Interpolate between two images through their noises. The picture: both images, and COUNT from one to the other.

    With --numbers the ends are two images that the run draws, as `unstir sample` numbers them; nothing is inverted.

    Example: `unstir edit blend runs/digits three.png eight.png --count 10`

    Example: `unstir edit blend runs/digits --numbers 0 5`

    Parameters
    ----------
    run
        Folder of the run.
    image1
        A picture file; its centre square is resized to the run's images.
    image2
        Another.
    numbers
        In place of the two: numbers of images that `--sampler ddim` draws from the seed at the same times.
    count
        How many images, both ends among them.
    labels
        Classes of the two images, by name or number, for a network with classes.
    refinements
        Fixed-point iterations per step of the inversions.
    """
    from unstir import edit
    from unstir.errors import UserError

    images = [image for image in (image1, image2) if image is not None]
    if len(images) != (0 if numbers else 2):
        raise UserError("name two images to blend, or two --numbers of images that the run draws")
    if numbers and min(numbers) < 0:
        raise UserError(f"--numbers {numbers[0]} {numbers[1]}: images are numbered from 0")
    ends = numbers or (images[0], images[1])

    work = partial(edit.blend, ends=ends, count=count, refinements=refinements)
    return carry_out(run, ends, "blending", chain, options, work, labels=labels)


@edit.command
def morph(
    run: Path,
    /,
    *,
    labels: tuple[str, str],
    count: int = 8,
    num: int = 4,
    chain: Chain = AS_THE_RUN,
    options: Edit = AS_USUAL,
) -> int:
    """Interpolate between two classes from one noise. The picture: NUM rows of COUNT images.

    Example: `unstir edit morph runs/digits-guided --labels 3 8`

    Parameters
    ----------
    run
        Folder of a run with classes.
    labels
        The classes at both ends, by name or number.
    count
        How many images per row, both ends among them.
    num
        How many rows, each from its own noise.
    """
    from unstir import edit

    work, remedy = partial(edit.morph, count=count), "name a run that does, or blend two images"
    return carry_out(run, labels, "morphing", chain, options, work, labels=labels, remedy=remedy, num=num)
