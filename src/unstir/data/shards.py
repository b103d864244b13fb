"""Images in tars, as webdataset has them: files that share a name up to its first point are one sample.

    000.jpg 000.cls 001.jpg 001.json ...        an image, and its class in .cls, .txt or the "label" of .json

Members are read in place by their offset: nothing is extracted.
"""

import json
import tarfile
import zlib
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

from unstir.data.images import EXTENSIONS, MAX_FILE_BYTES
from unstir.data.records import Records, file_stamp, split_of
from unstir.data.rows import Rows
from unstir.errors import UserError, remedy

LABELS = ("cls", "txt", "json")
_MOST_LABEL = 1 << 16  # bytes


class _Part(NamedTuple):
    offset: int
    size: int


class Shards(Records):
    """One tar or several; names beginning with train, test or validation say the split."""

    kind = "webdataset"

    def __init__(self, files: Sequence[Path], name: str) -> None:
        self._files, self.name = sorted(files), name

    def stamp(self) -> str:
        """Identify the files by name, length and time."""
        return file_stamp(self._files)

    def rows(self) -> list[Rows]:
        """The samples of all tars that have an image."""
        return [self._of(file) for file in self._files]

    def _of(self, file: Path) -> Rows:
        samples, endings = self._samples(file), set[str]()
        images, labels = list[_Part](), list[Hashable]()
        with file.open("rb") as stream:
            for parts in samples.values():
                endings |= parts.keys()
                image = next((parts[ending] for ending in parts if f".{ending.rpartition('.')[2]}" in EXTENSIONS), None)
                if image is not None:
                    images.append(image)
                    labels.append(_label(stream, parts))
        if not images:
            there = ", ".join(f".{ending}" for ending in sorted(endings)[:20])
            raise UserError(
                f"{file}: no images in it; there are {there or 'no files'}, and .png, .jpg, ... are allowed"
            )

        def read(index: int) -> object:
            with file.open("rb") as stream:
                stream.seek(images[index].offset)
                return stream.read(min(images[index].size, MAX_FILE_BYTES + 1))

        return Rows(split_of(file.name), file.name, labels, read)

    def _samples(self, file: Path) -> dict[str, dict[str, _Part]]:
        """The parts of each sample by their endings, in the order of the tar."""
        found: dict[str, dict[str, _Part]] = {}
        try:
            with tarfile.open(file, "r:") as tar:
                for member in tar:
                    folder, slash, name = member.name.rpartition("/")
                    key, point, ending = name.partition(".")
                    if member.isreg() and key and point:
                        part = _Part(member.offset_data, member.size)
                        found.setdefault(f"{folder}{slash}{key}", {}).setdefault(ending.lower(), part)
        except OSError as error:
            if error.errno:
                raise UserError(f"{file}: {remedy(error)}") from None
            raise UserError(f"{file}: no readable tar; fetch it again") from None
        except (tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError):
            raise UserError(f"{file}: no readable tar; fetch it again") from None
        return found


def _label(stream: object, parts: dict[str, _Part]) -> Hashable:
    for ending in LABELS:
        if (part := parts.get(ending)) is None or part.size > _MOST_LABEL:
            continue
        stream.seek(part.offset)  # type: ignore[attr-defined]
        text = stream.read(part.size).decode("utf-8", "replace").strip()  # type: ignore[attr-defined]
        if ending == "json":
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                continue
            text = value.get("label") if isinstance(value, dict) else None
        if isinstance(text, int):
            return str(text)
        if isinstance(text, str) and text:
            return text
    return None
