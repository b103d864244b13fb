"""`unstir sample`."""

import logging
from pathlib import Path
from typing import Literal

from unstir.chain import OPTIONS
from unstir.cli.app import app, of_one, show
from unstir.cli.options import ChainOptions, ModelOptions, OutFolder, RunFolder
from unstir.errors import UserError
from unstir.jobs.process import torchrun_group

logger = logging.getLogger(__name__)


@app.command
def sample(
    run: RunFolder,
    /,
    *,
    num: int = 64,
    out: OutFolder | None = None,
    format: Literal["png", "npy"] | None = None,
    chain: ChainOptions = ChainOptions(),
    seed: int = 0,
    label: str | None = None,
    condition: str | None = None,
    compare: str = "",
    animate: Path | None = None,
    strip: Path | None = None,
    stages: int | None = None,
    scale: int | None = None,
    batch_size: int = 64,
    engine: Literal["torch", "onnxruntime"] = "torch",
    options: ModelOptions = ModelOptions(),
) -> int:
    """Draw images from a trained run: OUT/000000.png, ..., with grids of the images and of their noise.

    The same command continues a job that was killed. With --compare it draws one picture of several samplers instead.

    Example: `unstir sample runs/mnist --num 500 --sampler dpmpp_2m --steps 15 --out mnist500`

    Example: `unstir sample runs/mnist --num 8 --compare "ancestral:1000,ddim:50,dpmpp_2m:15" --out compared`

    Args:
        num: Number of images, 1 or more; exactly this number is written.
        out: Folder for the images; by default one in RUN/generated, named after the settings.
        format: png files, or images.npy, in units of the data; by default npy where PNG files cannot hold the images.
        seed: Image i is a function of the seed, any whole number, and i.
        label: Class, by name or number, for a network with classes; by default each class in turn.
        condition: What describes the images to a run with data.condition: numbers ("0.3,1.2"), a .csv or .npy file with
            a row an image, a picture, or a folder of pictures. Image i takes row i, and so on from the first again. By
            default they are those of held-out images, of which an image is named by its number ("3") too.
        compare: Samplers with their steps, and optional spacing and options: "ddim:50,dpmpp_2m:15:log_snr" or
            "unipc:10:order=2,mine:heun2:20:eta=1". Each has a row in OUT/compare.png, all from one noise.
        animate: File (.webp or .gif) of an animation of the first 64 images: x_t next to the estimate of x_0.
        strip: File of a picture of the first 8 images at stages of their trajectories, with the estimates of x_0 below.
        stages: Number of stages of the strip; by default 11.
        scale: Whole factor by which images are enlarged in grids, the animation, the strip and the comparison; by
            default tiles are at least 48 pixels high.
        batch_size: Images computed at once; a job that continues keeps its own.
        engine: What computes the network. onnxruntime computes in float32 on the CPU, by a file in RUN/onnx.
    """
    from unstir.generate.conditions import read_conditions
    from unstir.generate.drawing import Job
    from unstir.generate.sampling import sample as save_samples
    from unstir.generate.sampling import shorter
    from unstir.runs.run import Run

    if compare:
        _check_compared(any(it is not None for it in (animate, strip, stages, format)), chain)
    model = options.model(Run.open(run), chain.guide)
    if engine == "onnxruntime":
        from unstir.interop.onnx_file import on_onnxruntime

        model = on_onnxruntime(model)
    given = chain.given()
    own = {name: given.pop(name) for name in OPTIONS if compare and name in given}  # for the samplers that take them
    settings = model.chain.changed(**given, seed=seed)
    number, described = model.labels.number(label), read_conditions(condition, model)
    job = Job(num=num, chain=settings, label=number, condition=described, batch_size=batch_size)
    if compare:
        from unstir.compare import save_comparison

        file, rows = save_comparison(model, job, compare, out, given=own, scale=scale)
        show(*(row.caption for row in rows), f"compared {file}")
        return 0
    if advice := shorter(model, settings, given):
        logger.info(advice)
    with torchrun_group(str(model.device)) as group:
        files: dict[str, Path | None] = {"animation": animate, "strip": strip}
        done = save_samples(model, job, out, **files, stages=stages, scale=scale, group=group, format=format)
    if done.job.batch_size != batch_size:
        logger.info(f"{done.folder} was begun in batches of {done.job.batch_size}, and so it went on")
    show(*done.lines)
    return 0


def _check_compared(trajectories: bool, chain: ChainOptions) -> None:
    """Raise UserError for what goes with --compare neither in one process nor in several."""
    if trajectories or chain.given().keys() & {"sampler", "steps", "times", "options"}:
        others = "--sampler, --steps, --times, --options, --animate, --strip, --stages and --format"
        raise UserError(f"--compare names samplers and steps; leave out {others}")
    of_one("unstir sample --compare")
