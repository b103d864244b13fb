"""Images in tars, unpacked into the staging folder of the store and read as the folder they give.

Several tars, and one in which an image has a label or another image beside it, are read as webdataset has them: files
that share a name up to its first point are one sample. A tar with a link, a device or a name that leads out is refused
before anything is unpacked.
"""

import json
import tarfile
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from unstir.data.disk import require_space, tar_errors
from unstir.data.folder import FolderSource
from unstir.data.images import EXTENSIONS, LEFT_OUT, MAX_FILE_BYTES, UNLABELLED
from unstir.data.records import Records, Rows, split_of
from unstir.data.source import Plan
from unstir.errors import UserError, printable

_LABELS = ("cls", "txt", "json")
_FURTHER = f"{LEFT_OUT}: beside the image of its sample, as masks are"


class _Tar(NamedTuple):
    """One tar unpacked into a folder: the names of its files in their order."""

    file: Path
    folder: Path
    names: list[str]
    notes: Sequence[tuple[str, str]]  # (text, path) of what is not unpacked

    def samples(self) -> dict[str, list[str]]:
        samples: dict[str, list[str]] = {}
        for path in self.names:
            folder, slash, name = path.rpartition("/")
            key, point, _ = name.partition(".")
            if key and point:
                samples.setdefault(f"{folder}{slash}{key}", []).append(path)
        return samples

    def label(self, parts: Sequence[str]) -> str | None:
        for part in sorted(filter(_is_label, parts), key=lambda part: _LABELS.index(_ending(part))):
            text: Any = (self.folder / part).read_bytes().decode("utf-8", "replace").strip()
            if _ending(part) == "json":
                with suppress(ValueError, RecursionError):
                    text = json.loads(text)
                text = text.get("label") if isinstance(text, dict) else None
            if isinstance(text, int | str) and text != "":
                return str(text)
        return None


class TarSource(Records):
    """One tar or several, whose names may say the split of their samples (`split_of`)."""

    kind = "tar"
    hashes_files = True

    def plan(self, staging: Path) -> Plan:
        """Unpack the tars, and plan what they hold."""
        self._tars = [_unpacked(file, staging / f"unpacked-{number}") for number, file in enumerate(self.files)]
        if len(self._tars) == 1 and not any(map(_has_more, self._tars[0].samples().values())):
            folder = FolderSource(self._tars[0].folder, self.options)
            folder.stamp()
            plan = folder.plan(staging)
            plan = replace(plan, source_hash=self.source_hash(plan.shape))
        else:
            plan = super().plan(staging)
        return replace(plan, notes=[*plan.notes, *(note for tar in self._tars for note in tar.notes)])

    def rows(self) -> list[Rows]:
        """The samples of all tars that have an image."""
        return [self._of(tar) for tar in self._tars]

    def _of(self, tar: _Tar) -> Rows:
        images, labels, notes = list[str](), list[Hashable](), list[tuple[str, str]]()
        for key, parts in tar.samples().items():
            if pictures := _images(parts):
                image = _image(pictures, f"{tar.file}: the sample {printable(key)!r}")
                images.append(image)
                labels.append(tar.label(parts))
                if labels[-1] is None:
                    why = f"{UNLABELLED}: what lies beside it has none"
                    notes += [(why, f"{tar.file.name}: {part}") for part in filter(_is_label, parts)]
                notes += [(_FURTHER, f"{tar.file.name}: {part}") for part in pictures if part is not image]

        def read(index: int) -> object:
            return (tar.folder / images[index]).read_bytes()

        return Rows(split_of(tar.file.name), tar.file.name, labels, read, notes=notes)


def _unpacked(file: Path, folder: Path) -> _Tar:
    """Unpack a tar into a new folder. Raises UserError for more than files and folders, and where the disk is full."""
    folder.mkdir()
    files, large, needed = list[tarfile.TarInfo](), list[str](), 0
    with tar_errors(file), tarfile.open(file) as tar:
        for member in tar:  # what follows a header is passed over when the next one is read
            if _is_file(member, file) and member.size > MAX_FILE_BYTES:
                large.append(member.name)
            elif member.isreg():
                files.append(member)
                needed += member.size
                require_space(folder, needed)
        tar.extractall(folder, files, filter="data")
    notes = [(f"{LEFT_OUT}: larger than {MAX_FILE_BYTES >> 20} MiB", f"{file.name}: {name}") for name in large]
    return _Tar(file, folder, list(dict.fromkeys(member.name for member in files)), notes)


def _is_file(member: tarfile.TarInfo, file: Path) -> bool:
    """Whether a member is a file, not a folder. Raises UserError for all else, and where its name leads out."""
    inside = not member.name.startswith("/") and ".." not in member.name.split("/")
    if not (inside and (member.isreg() or member.isdir())):
        kind = "is neither a file nor a folder" if inside else "leads out of it"
        mend = "if you trust it, unpack it yourself and pack the folder"
        raise UserError("", f"{file}: {printable(member.name)}", kind, mend)
    return member.isreg()


def _ending(path: str) -> str:
    """What follows the first point of a name, in small letters."""
    return path.rpartition("/")[2].partition(".")[2].lower()


def _is_label(path: str) -> bool:
    return _ending(path) in _LABELS


def _has_more(parts: Sequence[str]) -> bool:
    """Whether a sample has an image and beside it another one or a file of its label."""
    images = _images(parts)
    return bool(images) and len(images) + len([*filter(_is_label, parts)]) > 1


def _images(parts: Sequence[str]) -> list[str]:
    return [part for part in parts if f".{part.rpartition('.')[2].lower()}" in EXTENSIONS]


def _image(images: list[str], whose: str) -> str:
    """The only image of a sample, or the only one whose ending has no further point."""
    plain = [part for part in images if "." not in _ending(part)]
    if len(images) > 1 and len(plain) != 1:
        rule = "files that share a name up to its first point are one sample, of one image"
        raise UserError("", whose, f"has {len(images)} images: {rule}", "unpack the tar and pack the folder")
    return plain[0] if plain else images[0]
