"""From the arguments of `pack` to a source, or one line that says what is wrong with them."""

from __future__ import annotations

import operator
import re
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np

from unstir.data.cifar import CifarSource
from unstir.data.digits import DigitsSource
from unstir.data.disk import usable_path, what_it_is
from unstir.data.folder import FolderSource
from unstir.data.source import Options, Source
from unstir.data.spelling import Spelling
from unstir.data.store import is_store
from unstir.errors import UserError, remedy

MAX_SIZE = 4096


def source_of(source: str | Path, asked: Options) -> Source:
    """The source that the arguments of `pack` name. Raises UserError for what is out of range, missing or no source."""
    options, spelling = _checked(asked), asked.spelling
    if source == "digits":
        return DigitsSource(options)
    if source == "cifar10":
        return CifarSource(None, options)
    path = usable_path(source)
    try:
        mode = path.stat().st_mode
        start = b""
        if stat.S_ISREG(mode):
            with path.open("rb") as stream:
                start = stream.read(4)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{spelling('source', str(source))} is not there; use digits, cifar10, or the path of a folder or archive"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: {remedy(error)}") from None
    if stat.S_ISDIR(mode) and is_store(path):
        raise UserError(f"{path}: is a packed store already; use it as it is")
    if stat.S_ISDIR(mode) or start[:2] == b"PK":
        return FolderSource(path, options)
    if start[:2] == b"\x1f\x8b":
        return CifarSource(path, options)
    found = "neither a folder, a zip nor a CIFAR-10 .tar.gz" if stat.S_ISREG(mode) else what_it_is(mode)
    raise UserError(f"{path}: {found}; give the folder that holds the images")


def _whole(name: str, value: object, spelling: Spelling) -> int | None:
    """The value as an int. Raises UserError for a fraction, a truth value or a text; nothing is rounded."""
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise UserError(f"{spelling(name, value)} is no whole number; give one, without a point") from None


def _checked(asked: Options) -> Options:
    """The options as plain numbers. Raises UserError for one that is out of range."""
    spelling, held_out, sha256 = asked.spelling, asked.held_out, asked.sha256
    size, channels, seed = (_whole(name, getattr(asked, name), spelling) for name in ("size", "channels", "seed"))
    if size is not None and not 1 <= size <= MAX_SIZE:
        raise UserError(f"{spelling('size', size)} is outside 1..{MAX_SIZE}; use a size such as 32")
    if channels not in (None, 1, 3):
        raise UserError(f"{spelling('channels', channels)} is not possible; use 1 for grey or 3 for colour")
    if held_out is not None and not (_is_number(held_out) and 0 <= held_out < 1):
        raise UserError(
            f"{spelling('held_out', held_out)} is outside [0, 1); use a fraction of the images, such as 0.1"
        )
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UserError(f"{spelling('sha256', sha256)} is not 64 hexadecimal digits; use what sha256sum prints")
    held_out = None if held_out is None else float(held_out)
    return replace(asked, size=size, channels=channels, held_out=held_out, seed=seed or 0)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
