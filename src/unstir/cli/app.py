"""The application that the commands join: settings from recipes, errors as one line, and the exit status."""

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter
from cyclopts.argument import Argument, ArgumentCollection, update_argument_collection
from pydantic import ValidationError
from pydantic_core import to_jsonable_python

import unstir
from unstir.chain import DEFAULTS, OPTIONS
from unstir.cli import values
from unstir.cli.messages import Options, of_limits, one_line
from unstir.cli.options import FORMATTER
from unstir.errors import NotFiniteError, OutOfMemoryError, UserError, printable
from unstir.group import LostError
from unstir.jobs import process
from unstir.jobs.process import LOST, end_at_once, may_speak, place
from unstir.parts import allow, options_of
from unstir.progress import Count, shown_by
from unstir.runs import recipes, toml
from unstir.runs.config import PARTS
from unstir.runs.named import located

HELP = "--help", "-h"
DEBUG = "UNSTIR_DEBUG"  # 1: where an error is one line, its traceback stands above

_MENDED = UserError, OutOfMemoryError, NotFiniteError, CycloptsError, ValidationError, OSError, UnicodeEncodeError
_STOPPED = 129, 130, 143  # the exit status of a command that was asked to stop
TYPED = set[str]()
"""The options of `unstir train` that were typed, without their values: `photos` leaves these settings as they are."""
BY_SEVERAL = "train", "distill", "sample"  # commands that several processes share


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status; a user's mistake is one line on standard error."""
    process.keep_blocks()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the same bits on CUDA (`diffusion.arithmetic`)
    process.prepare_terminal()
    with _talking():
        _main(sys.argv[1:] if arguments is None else list(arguments))


def _main(words: list[str]) -> NoReturn:
    try:
        if any("," in word or values.NEGATIVE.match(word) or values.OFF.match(word) for word in words):
            words = values.spelled(words, _arguments(words))
        if words[:1] and words[0] not in BY_SEVERAL:
            of_one(f"unstir {words[0]}")
        if words[:1] == ["train"] and (settings := [word for word in words if word not in HELP]) != words:
            _show_values_of(settings)
        status = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except BrokenPipeError:  # whoever reads the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except LostError as error:
        _fail(str(error), status=LOST)
    except _MENDED as error:
        names = [name for argument in _arguments(words) for name in argument.names]
        _fail(one_line(error, Options(names, words)))
    except KeyboardInterrupt:
        end_at_once()
        _fail("interrupted; what was written stays, and the same command goes on or begins again", status=130)
    except (MemoryError, RecursionError, OverflowError, ValueError, RuntimeError, ImportError) as error:
        if (message := of_limits(error)) is None:
            raise
        _fail(message)
    if status in _STOPPED:
        end_at_once()
    sys.exit(status if isinstance(status, int) else 0)


def _arguments(words: list[str]) -> list[Argument]:
    commands, (*_, command), _ = app.parse_commands(words)
    if not command.default_command or {*commands} & {*HELP, "--version"}:
        return []
    return command.assemble_argument_collection()


def _complete(_: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Check what was typed, and give `unstir train` the settings of its recipe wherever the command line is silent."""
    values.check(arguments)
    typed = {argument.name.strip("-").lower(): argument.tokens[-1].value for argument in arguments if argument.tokens}
    for argument in arguments:
        for token in argument.tokens if values.part_of(argument) else ():
            allow(token.value)
    allow(typed.get("source") or typed.get("data.source", ""))
    if commands != ("train",):
        sampler = typed.get("sampler") or _sampler_of(typed.get("run", ""))  # a run's own is code that nobody has named
        part = ("source", typed["source"]) if "source" in typed else ("sampler", sampler)
        values.read_options(arguments, "--options", part)
        for argument in arguments:
            for token in argument.tokens if argument.name == "--features" else ():
                values.read_options(arguments, "--features-options", ("features", token.value))
        return
    TYPED.clear()
    TYPED.update(typed)
    recipe, out = typed.get("recipe", ""), typed.get("out")
    base = toml.to_dict(recipes.settings(recipe, recipes.run_folder(recipe, out)))
    del base["recipe"], base["imported"]
    if typed.get("grids.sampler", base["grids"]["sampler"]) != base["grids"]["sampler"]:  # its options are its own
        base["grids"] |= {name: DEFAULTS[name] for name in OPTIONS if f"grids.{name}" not in typed}
    for key in PARTS.keys() & typed.keys():
        section, name = key.split(".")
        words = next([token.value for token in each.tokens] for each in arguments if each.name == f"--{key}")
        base = recipes.over(base, {section: {name: words if isinstance(base[section].get(name), list) else words[-1]}})
    for key in PARTS:
        section, options = key.partition(".")[0], PARTS[key][1]
        values.keep_others(arguments, f"--{section}.{options}", base[section].get(options, {}))
    update_argument_collection(base, recipe or recipes.DEFAULT, arguments, root_keys=(), allow_unknown=False)
    for key, (kind, options) in PARTS.items():
        section, name = key.split(".")
        named, table = base[section].get(name, ""), base[section].get(options, {})
        several = isinstance(named, list)
        for part in named if several else [named]:
            of_part = options_of(part, table) if several else table
            values.read_options(arguments, f"--{section}.{options}", (kind, part), of_part)


def _sampler_of(run: str) -> str:
    """The sampler of a run, by its config.toml; "" where that cannot be read."""
    with suppress(OSError, UserError):
        return str(toml.read((located(run) or Path(run)) / "config.toml").get("grids", {}).get("sampler", ""))
    return ""


def _show_values_of(words: Sequence[str]) -> None:
    """Have the help show the values that the command of these words would use, else those of the default recipe."""
    try:
        given = app.parse_known_args(words)[1].arguments
    except (UserError, OSError):
        if words[1:] and not words[1].startswith("-"):  # a recipe
            raise
        given = app.parse_known_args([words[0], recipes.DEFAULT])[1].arguments
    recipe, folder = given.get("recipe", ""), recipes.run_folder(given.get("recipe", ""), given.get("out"))
    continued = not recipe and (folder / "config.toml").is_file()
    FORMATTER.config = given["config"]
    FORMATTER.source = f"{folder}" if continued else f"recipe {recipe or recipes.DEFAULT}"


def of_one(what: str) -> None:
    """Raise UserError in one of several processes, for ``what`` they cannot share."""
    if place().size > 1:
        raise UserError("", what, "is the work of one process", "start it without torchrun")


class _Sentences(logging.Handler):
    """Prints what is logged on standard error, above a bar; what a person should act on begins as an error does."""

    def emit(self, record: logging.LogRecord) -> None:
        head = "unstir: " if record.levelno >= logging.WARNING else ""
        print(f"{head}{printable(record.getMessage())}", file=sys.stderr)


@contextmanager
def _talking() -> Iterator[None]:
    """In this block what the package logs is printed, and how far jobs have come; of several processes by the first."""
    if place().rank > 0:
        yield
        return
    logger, handler = logging.getLogger("unstir"), _Sentences()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with shown_by(_bar):
            yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


def _bar(what: str, unit: str) -> AbstractContextManager[Count]:
    from unstir.console import BARS  # which loads rich and torch

    return BARS(what, unit)


def show(*lines: str) -> None:
    """Results, a line each, on standard output; what a terminal would act on in a name is escaped."""
    if place().rank == 0:
        for line in lines:
            print(printable(line))


def show_result(value: object, json_: bool, *lines: str) -> None:
    """A result as lines, or its ``value``, dataclasses too, as one line of JSON, with null for NaN and infinity."""
    if json_:
        print(json.dumps(to_jsonable_python(value, inf_nan_mode="null"), allow_nan=False))
    else:
        show(*lines)


def _fail(message: str, status: int = 2) -> NoReturn:
    if may_speak(lost=status == LOST):
        if os.environ.get(DEBUG) == "1":
            _print_traceback()
        here = f"{place()}: " if place().rank else ""
        print(f"unstir: {here}{printable(message)}", file=sys.stderr)
    sys.exit(status)


def _print_traceback() -> None:
    """Print the exception at hand and all that led to it, also what ``raise ... from None`` hides."""
    error = sys.exception()
    while error is not None:
        error.__suppress_context__ = False
        error = error.__context__
    traceback.print_exc()


app = App(
    name="unstir",
    help="Train a denoising diffusion model on images, sample from it, and understand every step.",
    version=unstir.__version__,
    config=_complete,
    help_format="markdown",
    suppress_keyboard_interrupt=False,  # `main` says what becomes of the work
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
)
