"""Images in tars, as webdataset has them: files that share a name up to its first point are one sample.

    000.jpg 000.cls 001.jpg 001.json ...        an image, and its class in .cls, .txt or the "label" of .json
    000.jpg 000.seg.png 000.mask.png            the image is the one without a further point; the others are noted
    img.0000.png img.0001.png ...               one sample of many images, which is refused

Members are read in place by their offset: nothing is extracted.
"""

import json
import tarfile
import zlib
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

from unstir.data.images import EXTENSIONS, LEFT_OUT, MAX_FILE_BYTES
from unstir.data.records import Records, file_stamp, split_of
from unstir.data.rows import Rows
from unstir.errors import UserError, printable, remedy

LABELS = ("cls", "txt", "json")
_MOST_LABEL = 1 << 16  # bytes
_FURTHER = f"{LEFT_OUT}: beside the image of its sample, as masks are"
_SHOWN = 3  # endings in a message


class _Part(NamedTuple):
    name: str
    ending: str  # what follows the first point of its name, in small letters
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
        images, labels, notes = list[_Part](), list[Hashable](), list[tuple[str, str]]()
        with file.open("rb") as stream:
            for key, parts in samples.items():
                endings |= {part.ending for part in parts}
                found = [part for part in parts if f".{part.ending.rpartition('.')[2]}" in EXTENSIONS]
                if found:
                    image = _image(found, f"{file}: the sample {printable(key)!r}")
                    images.append(image)
                    labels.append(_label(stream, {part.ending: part for part in reversed(parts)}))
                    notes += [(_FURTHER, f"{file.name}: {part.name}") for part in found if part is not image]
        if not images:
            there = ", ".join(f".{ending}" for ending in sorted(endings)[:20])
            raise UserError(
                f"{file}: no images in it; there are {there or 'no files'}, and .png, .jpg, ... are allowed"
            )

        def read(index: int) -> object:
            with file.open("rb") as stream:
                stream.seek(images[index].offset)
                return stream.read(min(images[index].size, MAX_FILE_BYTES + 1))

        return Rows(split_of(file.name), file.name, labels, read, notes=notes)

    def _samples(self, file: Path) -> dict[str, list[_Part]]:
        """The parts of each sample, in the order of the tar; of files of one name the last, as tar takes it."""
        found: dict[str, dict[str, _Part]] = {}
        try:
            with tarfile.open(file, "r:") as tar:
                for member in tar:
                    folder, slash, name = member.name.rpartition("/")
                    key, point, ending = name.partition(".")
                    if member.isreg() and key and point:
                        part = _Part(member.name, ending.lower(), member.offset_data, member.size)
                        found.setdefault(f"{folder}{slash}{key}", {})[member.name] = part
        except OSError as error:
            if error.errno:
                raise UserError(f"{file}: {remedy(error)}") from None
            raise UserError(f"{file}: no readable tar; fetch it again") from None
        except (tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError):
            raise UserError(f"{file}: no readable tar; fetch it again") from None
        return {key: list(parts.values()) for key, parts in found.items()}


def _image(found: list[_Part], whose: str) -> _Part:
    """The image of a sample: the only one, or the only one whose ending has no further point."""
    plain = [part for part in found if "." not in part.ending]
    if len(found) > 1 and len(plain) != 1:
        endings = ", ".join(f".{printable(part.ending)}" for part in found[:_SHOWN]) + ", ..." * (len(found) > _SHOWN)
        rule = "files that share a name up to its first point are one sample, of one image"
        further = plain[1] if plain else found[0]  # whatever has a further point is no image beside a plain one
        mend = f"write {_alone(further)} in place of {printable(further.name)}, or unpack the tar and pack the folder"
        raise UserError(f"{whose} has {len(found)} images ({endings}): {rule}; {mend}")
    return plain[0] if plain else found[0]


def _alone(part: _Part) -> str:
    """A name by which a file is a sample of its own: "img-1.png" for "img.1.png", "a-2.png" for "a.png"."""
    folder, slash, name = part.name.rpartition("/")
    stem, _, ending = name.rpartition(".")
    return printable(f"{folder}{slash}{stem.replace('.', '-') if '.' in stem else f'{stem}-2'}.{ending}")


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
