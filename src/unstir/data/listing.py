"""What lies in a folder or zip: its image files, listed without decoding, and their bytes on request."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from unstir.data.disk import is_of_the_machine, reason
from unstir.data.images import EXTENSIONS, FOREIGN, MAX_FILE_BYTES, Refused, signature
from unstir.errors import UserError, remedy

_LITTER = frozenset(("__macosx", "thumbs.db", "desktop.ini"))
_ENCRYPTED = 1
_IGNORED_HIDDEN = "hidden file ignored"
_IGNORED_OTHER = "not an image, ignored"
_IGNORED_SPECIAL = "device, pipe or socket ignored"
_IGNORED_LINK = "link to a folder not followed"


class Entry(NamedTuple):
    """One candidate: its path inside the source, its length, and its time (folder) or checksum (zip)."""

    path: str
    size: int
    mark: int


@dataclass
class Listing:
    """The candidates of a source, and what was left out with the reason."""

    entries: list[Entry] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    def add(self, entry: Entry, start: Callable[[], bytes]) -> None:
        """Sort one visible regular file in: `start` reads its first bytes, called only when the name does not tell."""
        suffix = os.path.splitext(entry.path)[1].lower()  # noqa: PTH122  (pathlib is ten times slower)
        if suffix in EXTENSIONS:
            self.entries.append(entry)
        elif suffix in FOREIGN:
            self.refused.append((entry.path, f"{suffix} is not an allowed format (PNG, JPEG, WebP, BMP, GIF, TIFF)"))
        elif signature(start()):
            self.entries.append(entry)
        else:
            self.notes.append((_IGNORED_OTHER, entry.path))


def natural(path: str) -> tuple[tuple[tuple[int, str, str], ...], str]:
    """Sort key under which img2 comes before img10 and folders keep together."""

    def component(text: str) -> tuple[tuple[int, str, str], ...]:
        # text and digits alternate; digits compare by length, then value
        pieces = enumerate(re.split(r"([0-9]+)", text))
        return tuple((len(p.lstrip("0")), p.lstrip("0"), "") if i % 2 else (0, p.casefold(), p) for i, p in pieces)

    separator = ((-1, "", ""),)  # before any piece
    return sum((component(part) + separator for part in path.split("/")), ()), path


class Items:
    """Reads the files of a folder or zip by path; a zip is opened once and nothing is ever extracted.

    Raises UserError where the machine and not a file is at fault: leaving a file out would be no answer then.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._zip = zipfile.ZipFile(root) if root.is_file() else None
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._zip.infolist() if self._zip else ():
            self._members.setdefault(member.filename, member)  # the first of a name, as in the listing

    def read(self, path: str) -> bytes:
        """Read one file whole. Raises Refused with the reason when that cannot be."""
        try:
            data = self._read_member(path) if self._zip else self._read_file(path)
        except OSError as error:
            raise Refused(_why(error, f"{self._root}: {path}")) from None
        except MemoryError:  # says nothing about the file
            raise
        except Exception as error:  # zipfile raises anything at all on damaged bytes
            raise Refused(_damage(error)) from None
        if len(data) > MAX_FILE_BYTES:
            raise Refused(f"larger than {MAX_FILE_BYTES >> 20} MiB")
        return data

    def close(self) -> None:
        """Close the zip, if it is one."""
        if self._zip:
            self._zip.close()

    def _read_file(self, path: str) -> bytes:
        with open(f"{self._root}/{path}", "rb") as stream:  # noqa: PTH123  (as above)
            return stream.read(MAX_FILE_BYTES + 1)

    def _read_member(self, path: str) -> bytes:
        assert self._zip is not None
        with self._zip.open(self._members[path]) as stream:
            start = stream.read(16)  # a bomb that is no image is not inflated
            return start + stream.read(MAX_FILE_BYTES + 1 - 16) if signature(start) else start


def item_digest(path: str, data: bytes | None) -> bytes:
    """Identify one file of the source: SHA-256 over its name and its content (None: unreadable)."""
    content = b"unreadable" if data is None else hashlib.sha256(data).digest()
    return hashlib.sha256(path.encode("utf-8", "surrogateescape") + b"\0" + content).digest()


def list_folder(root: Path) -> Listing:
    """List a folder and everything below it; links to folders are not followed. Raises UserError if unreadable."""
    listing, pending = Listing(), [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(root / folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise UserError(f"{root}: {remedy(error)}") from None
            listing.refused.append((folder, _why(error, f"{root}: {folder}")))
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if _list_one(root, entry, path, listing):
                pending.append(path)
    return listing


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _list_one(root: Path, entry: os.DirEntry[str], path: str, listing: Listing) -> bool:
    """Sort one directory entry into the listing; true if it is a folder to enter."""
    if _hidden(entry.name):
        listing.notes.append((_IGNORED_HIDDEN, path))
        return False
    try:
        status = entry.stat()
        if stat.S_ISREG(status.st_mode):
            listing.add(Entry(path, status.st_size, status.st_mtime_ns), lambda: _first_bytes(entry.path))
            return False
        if stat.S_ISDIR(status.st_mode) and not entry.is_symlink():
            return True
        listing.notes.append((_IGNORED_LINK if stat.S_ISDIR(status.st_mode) else _IGNORED_SPECIAL, path))
    except OSError as error:
        listing.refused.append((path, _why(error, f"{root}: {path}")))
    return False


def list_zip(archive: Path) -> Listing:
    """List a zip's members. Raises UserError when it is not a readable zip."""
    listing, seen = Listing(), set[str]()
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                if member.is_dir():
                    continue
                reason = _unsafe(member, seen)
                seen.add(member.filename)
                if reason:
                    listing.refused.append((member.filename, reason))
                else:
                    _list_member(opened, member, listing)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{archive}: {remedy(error)}") from None
    except UnicodeDecodeError:
        raise UserError(f"{archive}: a name in it is not the UTF-8 that it says it is; make the zip again") from None
    except MemoryError:
        raise
    except Exception:  # as above
        raise UserError(f"{archive}: not a readable zip; fetch or make it again") from None
    return listing


def _list_member(opened: zipfile.ZipFile, member: zipfile.ZipInfo, listing: Listing) -> None:
    def start() -> bytes:
        with opened.open(member) as stream:
            return stream.read(16)

    entry = Entry(member.filename, member.file_size, member.CRC)
    if any(_hidden(part) for part in member.filename.split("/") if part != "."):
        listing.notes.append((_IGNORED_HIDDEN, member.filename))
        return
    try:
        listing.add(entry, start)
    except OSError as error:
        listing.refused.append((member.filename, _why(error, f"{opened.filename}: {member.filename}")))
    except Exception as error:  # as above
        listing.refused.append((member.filename, _damage(error)))


def _unsafe(member: zipfile.ZipInfo, seen: set[str]) -> str | None:
    parts = member.filename.split("/")
    if ".." in parts or parts[0] == "" or "\\" in member.filename or ":" in parts[0]:
        return "the member's name leaves the archive"
    if member.flag_bits & _ENCRYPTED:
        return "encrypted"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "a link"
    return "a second member of the same name" if member.filename in seen else None


def _first_bytes(file: str) -> bytes:
    with Path(file).open("rb") as stream:
        return stream.read(16)


def _why(error: OSError, file: str) -> str:
    """The reason to refuse `file`. Raises UserError where the machine is at fault."""
    if is_of_the_machine(error):
        raise UserError(f"{file}: {remedy(error)}") from None
    if error.errno == errno.ELOOP:
        return "a link that leads to itself"
    if error.errno == errno.ENOENT:
        return "a link to nothing, or removed meanwhile"
    return reason(error)


def _damage(error: Exception) -> str:
    """Say in words of our own why a member cannot be read; those of zipfile change with its version."""
    if isinstance(error, NotImplementedError):
        return "compressed in the zip by a method that cannot be read; make the zip again"
    return "damaged in the zip"
