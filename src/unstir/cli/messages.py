"""An exception as the one line that a person reads: what was given, what is allowed, what to type."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from cyclopts import CycloptsError, MissingArgumentError, UnknownCommandError, UnknownOptionError
from cyclopts import UnusedCliTokensError as Unused
from cyclopts.exceptions import CoercionError, RepeatArgumentError
from pydantic import ValidationError

from unstir.cli.values import meant, option_of, shortened
from unstir.errors import (
    OutOfMemoryError,
    Spelling,
    UnwrittenError,
    UserError,
    arguments,
    asked_for,
    is_out_of_memory,
    of_pydantic,
    printable,
    remedy,
)
from unstir.runs import toml
from unstir.runs.synonyms import near_setting

_OWN_NAMES = {
    "step": "checkpoint",
    "num_reference": "reference",
    "labels": "label",
    "animation": "animate",
    "exported": "export",
}
"""Options that the library calls otherwise, by its names."""


def one_line(error: BaseException, spelled: Spelling) -> str:
    """What to say about an exception that a user's mistake, or the machine, has caused, options as ``spelled``."""
    cause = error.__cause__ or error
    if isinstance(cause, ValidationError):
        return of_pydantic(cause, toml.near_key).line(spelled)
    if isinstance(cause, UserError | OutOfMemoryError):
        return cause.line(spelled)
    if isinstance(error, CycloptsError):
        return _of_parser(error)
    if isinstance(error, OSError) and error.strerror:
        files = [shortened(str(name)) for name in (error.filename, error.filename2) if name is not None]
        if isinstance(error, UnwrittenError):
            return f"cannot write {files[0]}: {remedy(error)}, and run the same command again"
        return f"{' -> '.join(files)}: {remedy(error)}" if files else remedy(error)
    if isinstance(error, UnicodeEncodeError):
        return f"{shortened(printable(error.object))} is not UTF-8, as text in a file of unstir is; rename it"
    return " ".join(str(error).split())


class Options:
    """How the options of a command are written, by its ``names``, such as --batch-size, and the ``words`` typed."""

    def __init__(self, names: Iterable[str], words: Sequence[str] = ()) -> None:
        self._known = {name.removeprefix("--").replace("-", "_"): name for name in names if name.startswith("--")}
        self._typed = {word.partition("=")[0] for word in words}

    def __call__(self, settings: Mapping[str, object]) -> str:
        """Settings as options: ``--num 0``; a name that is of no option as in a call, and a file as such."""
        return " ".join(self._one(name, value) for name, value in settings.items())

    def _one(self, name: str, value: object) -> str:
        """An option with its value: ``--train.warmup "6 steps"``, ``--data.no-flip``."""
        if (option := self._option(name)) is None:
            return shortened(str(value)) if isinstance(value, os.PathLike) else arguments({name: value})
        if isinstance(value, bool):
            head, _, key = option.removeprefix("--").rpartition(".")
            return option if value else f"--{head}.no-{key}" if head else f"--no-{key}"
        values = value if isinstance(value, list | tuple) else [] if value is None else [value]
        return " ".join([option, *map(_typed, values)])

    def _option(self, name: str) -> str | None:
        name = _OWN_NAMES.get(name, name) if name not in self._known else name
        if name in self._known:
            return self._known[name]
        for head, option in self._known.items():  # of a part, whatever its name
            if head.endswith("options") and name.startswith(f"{head}."):
                return option + name.removeprefix(head)
        of_section = [option for key, option in self._known.items() if key.endswith(f".{name}")]
        typed = [option for option in of_section if option in self._typed]
        return next((some[0] for some in (typed, of_section) if len(some) == 1), None)


def _typed(value: object) -> str:
    text = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    text = shortened(text) if isinstance(value, os.PathLike) else text if len(text) <= 40 else f"{text[:37]}..."
    plain = shlex.quote(text)
    return plain if plain == text or {*text} & {*'"$`\\!'} else f'"{text}"'


def of_limits(error: Exception) -> str | None:
    """What to say where a limit of the machine or of Python was met; None for any other error, which is a bug."""
    text = str(error)
    if is_out_of_memory(error):
        return f"out of memory{asked_for(error)}; lower --batch-size where the command has it, or end other programs"
    if type(error).__module__.startswith(("torch._dynamo.", "torch._inductor.")):
        cause = shortened(" ".join(text.split()))
        return f"torch could not compile the network: {cause}. Leave it out: --compile no, or --train.compile no"
    if isinstance(error, RecursionError):
        return "something that was read is nested too deeply; name another file"
    if isinstance(error, OverflowError) or "Exceeds the limit" in text:
        return "a number that was given is too large to compute with; give a smaller one"
    return None


def _of_parser(error: CycloptsError) -> str:
    command = " ".join(["unstir", *(error.command_chain or ())])
    if isinstance(error, UnknownCommandError) and error.unused_tokens and error.app:
        return _unknown_command(error.unused_tokens, command, error.app)
    if isinstance(error, UnknownOptionError):
        given = (error.token.keyword or error.token.value).split("=")[0]
        listed = [each for each in error.argument_collection if each.parse and not each.children]
        near = meant(given, [name for each in listed for name in each.names])
        hint = f"Did you mean {near}?" if near else f"{command} --help lists them"
        return f"{command} has no option {shortened(given)}. {hint}"
    if isinstance(error, MissingArgumentError) and error.argument:
        names = error.argument.names
        for given in (token for token in error.unused_tokens or () if token[:1] == "-" and token not in names):
            if near := meant(given, names):
                return f"{command} has no option {shortened(given)}. Did you mean {near}?"
        lacks = f"lacks {'more values' if error.tokens_so_far else 'a value'} for {error.keyword or names[0]}"
        return f"{command} {lacks}; {command} --help says what it takes"
    if isinstance(error, RepeatArgumentError):
        return f"{error.token.keyword} is given twice; once is enough"
    if isinstance(error, Unused) and error.unused_tokens:
        other = "leave it out, name its option, or in place of many files their folder"
        if error.unused_tokens[0] in ("yes", "no", "true", "false"):
            other = "an option that is on or off is written --NAME or --no-NAME"
        return f"{command} takes no further {shortened(error.unused_tokens[0])!r}; {other}"
    if isinstance(error, CoercionError) and error.argument:
        token = error.token or next(iter(error.argument.tokens), None)
        given = f"{option_of(error.argument, token)} {shortened(token.value) if token else ''}".strip()
        if bool in (error.argument.hint, *get_args(error.argument.hint)):
            return f"{given} must be yes or no"
        return f"{given} is not of the kind that it takes; {command} --help says what it takes"
    return " ".join(str(error).split())


def _unknown_command(words: Sequence[str], command: str, known: Iterable[str]) -> str:
    names = {name.lstrip("-"): name for name in known}
    near = near_setting(first := words[0].lstrip("-"), names)
    meaning = names.get(first) or (names[near] if near else "")
    listed = ", ".join(word for word, name in names.items() if word == name)
    hint = f"Did you mean {command} {meaning}?" if meaning else f"Name one of {listed}"
    return f"{command} has no {'option' if words[0][:1] == '-' else 'command'} {shortened(words[0])!r}. {hint}"
