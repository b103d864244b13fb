"""The command `unstir`. Each command is one call of the library; torch is imported inside them, so that --help is
quick.

Exit status: 0 done, 1 the answer is no, 2 the user's mistake, 130 / 143 interrupted or terminated after saving.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError
from cyclopts.argument import ArgumentCollection, update_argument_collection
from pydantic import ValidationError

import unstir
from unstir.errors import UserError
from unstir.runs import recipes, toml
from unstir.runs.config import MAY_CHANGE, Config


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status; a user's mistake is one line on standard error."""
    try:
        status = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (UserError, CycloptsError, ValidationError, OSError) as error:
        _fail(_one_line(error))
    except KeyboardInterrupt:
        _fail("interrupted", status=130)
    except RuntimeError as error:
        if not any(words in str(error) for words in ("out of memory", "can't allocate memory")):
            raise
        _fail(f"{_one_line(error)} Lower --train.micro_batch (training) or --batch-size (sampling)")
    sys.exit(status if isinstance(status, int) else 0)


def base_config(recipe: str, folder: Path) -> Config:
    """What the command line's own settings are laid over: the recipe if one is named, else the run in ``folder``."""
    if not recipe and (folder / "config.toml").is_file():
        return toml.load(folder / "config.toml")
    return recipes.load(recipe or recipes.DEFAULT)


def run_folder(recipe: str, out: str) -> Path:
    """The folder of a run: ``out``, or runs/NAME after the recipe."""
    return Path(out) if out else Path("runs") / Path(recipe or recipes.DEFAULT).stem


def _lay_under(_: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Give `unstir train` the settings of its recipe wherever the command line is silent."""
    if commands != ("train",):
        return
    given = {argument.field_info.name: argument.tokens for argument in arguments if not argument.keys}
    recipe, out = (given[name][-1].value if given.get(name) else "" for name in ("recipe", "out"))
    base = toml.to_dict(base_config(recipe, run_folder(recipe, out)))
    del base["recipe"]
    update_argument_collection(base, recipe or recipes.DEFAULT, arguments, root_keys=(), allow_unknown=False)


def _train_help() -> str:
    listed = "\n".join(f"- **{name}**: {sentence}" for name, sentence in recipes.sentences().items())
    return f"""Train a model, or continue a run: the same command goes on where it stopped.

Alone it trains the embedded digits in minutes. RECIPE is one of the list or a TOML file of the settings below; options
override it. Ctrl-C saves and exits.

Example: `unstir train cifar10-small --data.source my_images/ --data.size 32 --out runs/mine`

{listed}

When continuing, these may change: {", ".join(MAY_CHANGE)}.
"""


def _one_line(error: Exception) -> str:
    cause = error.__cause__ or error
    if isinstance(cause, ValidationError):
        return toml.explain(cause)
    if isinstance(error, UnknownOptionError):
        given = (error.token.keyword or error.token.value).lstrip("-").split("=")[0]
        if "." in given and (near := toml.near_key(given)):
            return f"unknown option --{given}. Did you mean --{near}?"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _fail(message: str, status: int = 2) -> NoReturn:
    print(f"unstir: {message}", file=sys.stderr)
    sys.exit(status)


app = App(
    name="unstir",
    help="Train a denoising diffusion model on images, sample from it, and understand every step.",
    version=unstir.__version__,
    config=_lay_under,
    help_format="markdown",
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
)
data = App(name="data", help="Pack images into one store, and look into it.")
app.command(data)


@app.command(help=_train_help())
def train(
    recipe: Annotated[str, Parameter(help="A recipe, or a TOML file of settings.")] = "",
    /,
    *,
    out: Annotated[str, Parameter(help="Folder of the run; empty: runs/RECIPE.")] = "",
    config: Config = Config(),  # noqa: B008 - frozen
) -> int:
    """Train a model or continue one; the status is 0 when finished, 130 or 143 when stopped."""
    from unstir import console
    from unstir.train.launch import open_data, open_run
    from unstir.train.milestones import newest_picture
    from unstir.train.trainer import Trainer
    from unstir.train.watch import Stop

    folder = run_folder(recipe, out)
    config = dataclasses.replace(config, recipe=base_config(recipe, folder).recipe)
    screen = console.stderr()
    with console.counting(screen, "packing", "images") as progress:
        store = open_data(config, folder, progress)
    if store.refused:
        print(f"{len(store.refused)} files were refused; unstir data inspect {store.path} lists them", file=sys.stderr)
    run = open_run(config, folder, store)
    with run.lock(), Stop() as stop, console.TrainingDisplay(screen) as display:
        run.tidy()
        trainer = Trainer(run, store, display)
        display.say(trainer.introduction())
        if trainer.finished:
            print(trainer.conclusion())
            return 0
        finished = trainer.run(stop)
    if finished:
        print(f"samples  {newest_picture(run)}\ncurves   {run.path / 'curves.png'}\ndata     {run.config.data.store}")
    else:
        print(f"stopped at step {trainer.state.step} of {run.length}; all is saved, the same command continues")
    return 0 if finished else stop.status


@app.command
def sample(
    run: Path,
    /,
    *,
    num: int = 64,
    out: Path | None = None,
    sampler: Literal["ancestral"] | None = None,
    steps: int | None = None,
    spacing: Literal["trailing", "leading", "linspace"] | None = None,
    variance: Literal["auto", "small", "large"] | None = None,
    clip: bool | None = None,
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
        Variance of the chain; auto: large (beta) over all T steps, small (beta~) over fewer.
    clip
        Clamp the estimate of the clean image to [-1, 1] at each step.
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
    given: dict[str, Any] = {"sampler": sampler, "steps": steps, "spacing": spacing, "variance": variance, "clip": clip}
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


@data.command
def pack(
    source: str,
    /,
    *,
    out: Path,
    size: int = 0,
    channels: Literal[1, 3] | None = None,
    held_out: float | None = None,
    sha256: str = "",
    strict: bool = False,
) -> int:
    """Check every image of a source and pack them into one store; killed half way, the same command goes on.

    Example: `unstir data pack my_images/ --out data/mine --size 32`

    Parameters
    ----------
    source
        "digits", "cifar10", a CIFAR-10 archive, or a folder or zip of images. Subfolders name classes; train/ and test/
        are the split.
    out
        Folder of the store.
    size
        Side in pixels that images are resized and centre-cropped to; 0: as they come, all alike.
    channels
        1 grey, 3 RGB; by default 1 for digits, 3 for all else.
    held_out
        Fraction kept out of training, where the source has no split; by default 1/6 of digits, 1/10 of others.
    sha256
        Expected SHA-256 of a CIFAR-10 archive that is not the official one.
    strict
        Fail if any file is refused.
    """
    from unstir import console
    from unstir.data import pack as pack_images

    with console.counting(console.stderr(), "packing", "images") as progress:
        store = pack_images(
            source,
            out,
            size=size or None,
            channels=channels,
            held_out=held_out,
            sha256=sha256 or None,
            strict=strict,
            progress=progress,
        )
    return inspect(store.path)


@data.command
def inspect(store: Path, /, *, sheet: Path | None = None) -> int:
    """Show what a store holds: counts, classes, what was refused and why, and a contact sheet.

    Example: `unstir data inspect data/digits`

    Parameters
    ----------
    store
        Folder of the store.
    sheet
        File of the contact sheet; by default STORE/contact-sheet.png.
    """
    from unstir.data import Store
    from unstir.pictures.contact import describe, save_contact_sheet

    opened = Store.open(store)
    sheet = sheet or store / "contact-sheet.png"
    save_contact_sheet(opened, sheet)
    print(f"{describe(opened)}\ncontact sheet  {sheet}")
    return 0
