"""The application that the commands join: settings from recipes, errors as one line, and the exit status."""

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError
from cyclopts.argument import ArgumentCollection, update_argument_collection
from pydantic import ValidationError

import unstir
from unstir.errors import UserError
from unstir.runs import files, recipes, toml
from unstir.runs.config import Config

REMEDIES = {
    **files.REMEDIES,
    errno.EACCES: "name one that you have the right to, or ask for that right (chmod)",
    errno.ENOENT: "name one that exists",
    errno.EEXIST: "name another",
    errno.ENOTDIR: "name one in a folder",
    errno.EISDIR: "name a file",
    errno.ENOSPC: "free some space, and run the same command again",
    errno.ENAMETOOLONG: "name a shorter one",
}
"""What to do about a file that could not be used, by the system's number of the error."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status; a user's mistake is one line on standard error."""
    try:
        status = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except BrokenPipeError:  # whoever reads the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (UserError, CycloptsError, ValidationError, OSError) as error:
        _fail(_one_line(error))
    except KeyboardInterrupt:
        _fail("interrupted; what was written stays, and the same command goes on or begins again", status=130)
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


def _one_line(error: Exception) -> str:
    cause = error.__cause__ or error
    if isinstance(cause, ValidationError):
        return toml.explain(cause)
    if isinstance(error, UnknownOptionError):
        given = (error.token.keyword or error.token.value).lstrip("-").split("=")[0]
        if "." in given and (near := toml.near_key(given)):
            return f"unknown option --{given}. Did you mean --{near}?"
    if isinstance(error, OSError) and error.strerror:
        remedy = REMEDIES.get(error.errno or 0, "mend that, or name another")
        return f"{error.filename}: {error.strerror}; {remedy}" if error.filename else f"{error.strerror}; {remedy}"
    return " ".join(str(error).split())


def say(text: str) -> None:
    """Something a person should know, on standard error."""
    print(f"unstir: {text}", file=sys.stderr)


def _fail(message: str, status: int = 2) -> NoReturn:
    print(f"unstir: {message}", file=sys.stderr)
    sys.exit(status)


app = App(
    name="unstir",
    help="Train a denoising diffusion model on images, sample from it, and understand every step.",
    version=unstir.__version__,
    config=_lay_under,
    help_format="markdown",
    suppress_keyboard_interrupt=False,  # `main` says what becomes of the work
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
)
