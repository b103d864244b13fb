"""`unstir edit`: inpaint, vary, invert, blend and morph."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from unstir.cli.app import app
from unstir.cli.chain_options import ChainOptions, FillOptions, InvertOptions, chain_group
from unstir.cli.edit_options import EditOptions, carry_out
from unstir.runs.sidecar import as_stem, short

if TYPE_CHECKING:
    from unstir.edit import Edited

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

    RePaint (Lugmayr et al. 2022): what is kept is put back at every step, and each step is taken several times over, so
    that what is filled in comes to agree with it.

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
        How many ways to fill it in.
    label
        Class of the image, by name or number, where the network knows classes; may be left out where labels were hidden
        in training.
    resamples
        How often each step is taken; more agree better, at that many times the calls.
    jump
        Steps taken in a row before they are taken again.
    """
    from unstir import edit

    def work(model: Any, job: Any, progress: Any) -> "Edited":
        how: dict[str, Any] = {"mask": mask, "box": box, "resamples": resamples, "jump": jump}
        return edit.inpaint(model, image, job, **how, progress=progress)

    name, read = f"inpaint-{short(image.stem)}", [mask] if mask else []
    return carry_out(run, name, "filling in", chain, options, work, image, read=read, num=num, label=label)


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
    """Draw images like one: noise is put on it, and taken off again. The picture: the image, and NUM results.

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
        Class of the images, by name or number, where the network knows classes; may be left out where labels were
        hidden in training.
    """
    from unstir import edit

    def work(model: Any, job: Any, progress: Any) -> "Edited":
        return edit.vary(model, image, job, strength=strength, progress=progress)

    return carry_out(run, f"vary-{short(image.stem)}", "varying", chain, options, work, image, num=num, label=label)


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
        Class of the image, by name or number, where the network knows classes; may be left out where labels were hidden
        in training.
    refinements
        Fixed-point iterations a step; each raises the order of the inversion by one, and takes a network call a step.
    """
    from unstir import edit

    def work(model: Any, job: Any, progress: Any) -> "Edited":
        return edit.invert(model, image, job, refinements=refinements, progress=progress)

    return carry_out(run, f"invert-{short(image.stem)}", "inverting", chain, options, work, image, label=label)


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
    """Go from one image to another by way of their noises. The picture: both images, and COUNT from one to the other.

    With --numbers the ends are two images of the run's own, as `unstir sample` numbers them; nothing is inverted.

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
        In place of the two: numbers of images that the seed gives by `--sampler ddim`, over the same times.
    count
        How many images, both ends among them.
    labels
        Classes of the two images, by their names or numbers, where the network knows classes.
    refinements
        Fixed-point iterations a step of the inversions.
    """
    from unstir import edit
    from unstir.errors import UserError

    images = [image for image in (image1, image2) if image is not None]
    if len(images) != (0 if numbers else 2):
        raise UserError("name two images to blend, or two --numbers of the run's own")
    if numbers and min(numbers) < 0:
        raise UserError(f"--numbers {numbers[0]} {numbers[1]}: images are numbered from 0")
    ends = numbers or (images[0], images[1])

    def work(model: Any, job: Any, progress: Any) -> "Edited":
        told = model.labels.numbers(labels, "--labels") if labels else None
        how: dict[str, Any] = {"count": count, "labels": told, "refinements": refinements}
        return edit.blend(model, ends, job, **how, progress=progress)

    name = "-".join(["blend", *(short(end.stem) if isinstance(end, Path) else str(end) for end in ends)])
    return carry_out(run, name, "blending", chain, options, work, *images)


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
    """Go from one class to another out of one noise. The picture: NUM rows of COUNT images.

    Example: `unstir edit morph runs/digits-guided --labels 3 8`

    Parameters
    ----------
    run
        Folder of a run that knows classes.
    labels
        The classes at both ends, by their names or numbers.
    count
        How many images a row, both ends among them.
    num
        How many rows, each out of its own noise.
    """
    from unstir import edit

    def work(model: Any, job: Any, progress: Any) -> "Edited":
        remedy = "name a run that does, or blend two images"
        first, last = model.labels.numbers(labels, "--labels", remedy)
        return edit.morph(model, job, labels=(first, last), count=count, progress=progress)

    name = "-".join(["morph", *(short(as_stem(label)) for label in labels)])
    return carry_out(run, name, "morphing", chain, options, work, num=num)
