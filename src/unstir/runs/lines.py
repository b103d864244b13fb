"""The logs of a run: a JSON object a line, each with a checksum, so that a flipped digit is noticed.

The checksum is a CRC-32 over the object's canonical JSON (sorted keys), under the key "crc32" of the same object.
What a kill leaves is a last line without its end: it is no damage and is dropped. Any other line that is not what was
written is *damaged*: readers pass over it and say so; whoever writes the file anew keeps a copy of it first.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from unstir.data.disk import sync_folder
from unstir.errors import UserError, remedy
from unstir.runs.files import write_text

CHECKSUM = "crc32"


@dataclass(frozen=True)
class Log:
    """The good lines of a file, in its order, and for each damaged one, by its number (1 is the first), the reason."""

    file: Path
    lines: tuple[dict[str, Any], ...] = ()
    damaged: tuple[tuple[int, str], ...] = ()

    @property
    def problem(self) -> str:
        """What is damaged, in words; empty where nothing is."""
        if not self.damaged:
            return ""
        (number, reason), others = self.damaged[0], len(self.damaged) - 1
        more = f", and {others} more {'line is' if others == 1 else 'lines are'} damaged" if others else ""
        return f"{self.file}: line {number} is damaged ({reason}){more}"


def encode(values: Mapping[str, Any], indent: int | None = None) -> str:
    """An object as JSON text with its checksum."""
    return json.dumps({**values, CHECKSUM: _checksum(values)}, indent=indent)


def decode(text: bytes | str) -> dict[str, Any]:
    """The object in what `encode` wrote, without its checksum. Raises ValueError with the reason for anything else."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    found = values.pop(CHECKSUM, None)
    if found is None:
        raise ValueError("it has no checksum")
    try:
        wanted = _checksum(values)
    except RecursionError:  # writing nests a little less deeply than reading
        raise ValueError("it is nested too deeply") from None
    if found != wanted:
        raise ValueError("its checksum does not match")
    return values


def read(file: Path, check: Callable[[dict[str, Any]], None]) -> Log:
    """The lines of a file, each by its checksum and by ``check``, which raises ValueError for what no line can hold.

    A file that is not there has none. Raises UserError where it cannot be read.
    """
    lines, damaged = [], []
    texts = _bytes(file).split(b"\n")
    for number, text in enumerate(texts, start=1):
        try:
            values = decode(text)
            check(values)
        except ValueError as error:
            if number < len(texts):  # else it is a last line that a kill has cut short, or nothing
                damaged.append((number, str(error)))
        else:
            lines.append(values)
    return Log(file, tuple(lines), tuple(damaged))


def append(file: Path, values: Mapping[str, Any], durable: bool = False) -> None:
    """Add a line, in place of one whose end a kill has left out; UserError where it cannot be written.

    With ``durable`` it survives a power cut too.
    """
    with _written(file) as stream:
        _end_last_line(stream)
        stream.write(encode(values).encode() + b"\n")
        if durable:
            stream.flush()
            os.fsync(stream.fileno())


def sync(file: Path) -> None:
    """Make the lines written so far survive a power cut; UserError where that fails."""
    with _written(file) as stream:
        os.fsync(stream.fileno())


@contextmanager
def _written(file: Path) -> Iterator[IO[bytes]]:
    try:
        with file.open("a+b") as stream:
            yield stream
    except OSError as error:
        raise UserError(f"cannot write {file}: {remedy(error)}; then run the same command again to continue") from None


def write(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file by these lines, whole or not at all; UserError where it cannot be written."""
    write_text(file, "".join(encode(line) + "\n" for line in lines))


def copy_aside(file: Path) -> Path:
    """Keep a copy of a damaged file as NAME.damaged, or NAME.damaged-2, ...: no earlier copy is replaced."""
    number, copy = 1, file.with_name(f"{file.name}.damaged")
    while copy.exists():
        number, copy = number + 1, file.with_name(f"{file.name}.damaged-{number + 1}")
    try:
        shutil.copy2(file, copy)
        sync_folder(copy.parent)
    except OSError as error:
        raise UserError(f"cannot keep a copy of {file} as {copy.name}: {remedy(error)}") from None
    return copy


def _checksum(values: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UserError(f"cannot read {file}: {remedy(error)}") from None


def _end_last_line(stream: Any) -> None:
    """Cut off what a kill left of a last line; the end of line alone is added where the line is whole."""
    size = stream.seek(0, os.SEEK_END)
    if size == 0:
        return
    stream.seek(size - 1)
    if stream.read(1) == b"\n":
        return
    stream.seek(0)
    begun = stream.read()
    last = begun.rpartition(b"\n")[2]
    try:
        decode(last)
        stream.write(b"\n")
    except ValueError:
        stream.truncate(size - len(last))
