"""What lies in a folder or zip: its image files, listed without decoding, and their bytes on request."""

import errno
import os
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from io import FileIO
from pathlib import Path
from typing import IO, NamedTuple

from unstir.data.images import EXTENSIONS, FOREIGN, LEFT_OUT, MAX_FILE_BYTES, UNREADABLE, Refused, signature
from unstir.errors import OF_THE_DISK, OF_THE_MACHINE, UserError, remedy

BESIDE = frozenset(("metadata.csv", "metadata.jsonl", "dataset.json"))
"""Files that give the images beside them their labels."""
_LITTER = frozenset(("__macosx", "thumbs.db", "desktop.ini"))
_IGNORED_HIDDEN = "hidden file ignored"
_SHEETS = "grid.png", "noise.png"  # of a folder of images that unstir drew, beside these
_DRAWN = "000000.png", "settings.json"


class Entry(NamedTuple):
    """One candidate: its path inside the source, its length, and its time (folder) or checksum (zip)."""

    path: str
    size: int
    mark: int


@dataclass
class Listing:
    """The candidates of a source, and what was left out with the reason."""

    entries: list[Entry] = field(default_factory=list)
    beside: list[Entry] = field(default_factory=list)  # files of `BESIDE`
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    def add(self, entry: Entry, opener: Callable[[], IO[bytes]]) -> None:
        """Sort one visible regular file in, by its first bytes where its name does not tell."""
        suffix = os.path.splitext(entry.path)[1].lower()  # noqa: PTH122  (pathlib is ten times slower)
        if suffix in FOREIGN:
            self.refused.append((entry.path, f"{suffix} is not an allowed format (PNG, JPEG, WebP, BMP, GIF, TIFF)"))
        elif suffix in EXTENSIONS or signature(_start_of(opener)):
            self.entries.append(entry)
        elif entry.path.rpartition("/")[2] in BESIDE:
            self.beside.append(entry)
        else:
            self.notes.append(("not an image, ignored", entry.path))

    def without_sheets(self) -> "Listing":
        """Itself without the sheets that `unstir sample` puts beside the images it draws, which are noted."""
        there = {entry.path for entry in self.entries} | {path for _, path in self.notes}
        folders = [path.removesuffix(_DRAWN[0]) for path in there if path.rpartition("/")[2] == _DRAWN[0]]
        drawn = [folder for folder in folders if {folder + name for name in (*_DRAWN, *_SHEETS)} <= there]
        sheets = {folder + name for folder in drawn for name in _SHEETS}
        self.entries = [entry for entry in self.entries if entry.path not in sheets]
        self.notes += [(f"{LEFT_OUT}: a sheet of images that are here one by one", path) for path in sorted(sheets)]
        return self


class Items:
    """Reads files of a folder or zip by path, extracting nothing; UserError where the machine is at fault."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._zip = zipfile.ZipFile(root) if root.is_file() else None
        members = reversed(self._zip.infolist() if self._zip else [])
        self._members = {member.filename: member for member in members}  # the first of a name, as in the listing

    def read(self, path: str, any_kind: bool = False) -> bytes:
        """Read one file whole, an image unless ``any_kind``. Raises Refused with the reason where it cannot be."""
        try:
            file = self._zip.open(self._members[path]) if self._zip else open(f"{self._root}/{path}", "rb")  # noqa: PTH123, SIM115
            with file as stream:
                start = stream.read(16)  # a bomb in a zip that is no image is not inflated
                data = start + stream.read(MAX_FILE_BYTES) if signature(start) or any_kind or not self._zip else start
        except MemoryError:  # says nothing about the file
            raise
        except Exception as error:
            raise Refused(_why(error, f"{self._root}: {path}")) from None
        if len(data) > MAX_FILE_BYTES:
            raise Refused(f"larger than {MAX_FILE_BYTES >> 20} MiB")
        return data

    def close(self) -> None:
        """Close the zip, if it is one."""
        if self._zip:
            self._zip.close()


def list_folder(root: Path) -> Listing:
    """List what is below a folder; links to folders are not followed. Raises OSError where it cannot be read."""
    listing, pending = Listing(), [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(root / folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            if not folder or error.errno in OF_THE_DISK:  # nobody knows how many images that are
                raise
            listing.refused.append((folder, _why(error, f"{root}: {folder}")))
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            try:
                if _hidden(entry.name):
                    listing.notes.append((_IGNORED_HIDDEN, path))
                elif _is_folder(entry, path, listing):
                    pending.append(path)
            except OSError as error:
                listing.refused.append((path, _why(error, f"{root}: {path}")))
    return listing.without_sheets()


def _is_folder(entry: os.DirEntry[str], path: str, listing: Listing) -> bool:
    """Whether to enter a directory entry; all else is sorted into the listing."""
    status, is_folder = entry.stat(), entry.is_dir()
    if stat.S_ISREG(status.st_mode):
        listing.add(Entry(path, status.st_size, status.st_mtime_ns), partial(FileIO, entry.path))
    elif not is_folder:
        listing.notes.append(("device, pipe or socket ignored", path))
    elif entry.is_symlink():
        listing.notes.append((f"{LEFT_OUT}: a link to a folder, which is not followed", path))
    return is_folder and not entry.is_symlink()


def list_zip(archive: Path) -> Listing:
    """List a zip's members. Raises UserError when it is not a readable zip."""
    listing, seen = Listing(), set[str]()
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                if not member.is_dir():
                    _list_member(opened, member, listing, seen)
                    seen.add(member.filename)
    except (UserError, MemoryError, OSError):
        raise
    except Exception:  # zipfile raises anything at all on damaged bytes
        raise UserError("", archive, "is no readable zip", "fetch or make it again") from None
    return listing.without_sheets()


def _list_member(opened: zipfile.ZipFile, member: zipfile.ZipInfo, listing: Listing, seen: set[str]) -> None:
    path = member.filename
    parts = path.split("/")
    if ".." in parts or parts[0] == "" or "\\" in path or ":" in parts[0]:
        listing.refused.append((path, "the member's name leaves the archive"))
    elif stat.S_ISLNK(member.external_attr >> 16):
        listing.refused.append((path, "a link"))
    elif path in seen:
        listing.refused.append((path, "a second member of the same name"))
    elif any(_hidden(part) for part in parts if part != "."):
        listing.notes.append((_IGNORED_HIDDEN, path))
    else:
        try:
            listing.add(Entry(path, member.file_size, member.CRC), partial(opened.open, member))
        except Exception as error:
            listing.refused.append((path, _why(error, f"{opened.filename}: {path}")))


def _start_of(opener: Callable[[], IO[bytes]]) -> bytes:
    with opener() as stream:
        return stream.read(16)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _why(error: Exception, file: str) -> str:
    """The reason to refuse `file`, in words of ours. UserError where the machine is at fault."""
    if not isinstance(error, OSError):
        return "damaged in the zip, encrypted, or compressed by a method that cannot be read"
    if error.errno in OF_THE_DISK:
        return f"{UNREADABLE}: {error.strerror}"
    if error.errno in OF_THE_MACHINE:
        raise UserError(remedy(error)).at(file) from None
    known = {errno.ELOOP: "a link that leads to itself", errno.ENOENT: "a link to nothing, or removed meanwhile"}
    return known.get(error.errno or 0, (error.strerror or "cannot be read").lower())
