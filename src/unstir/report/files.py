"""The files of a page, checked before any work."""

from pathlib import Path

from unstir.data.disk import open_file
from unstir.errors import UserError
from unstir.report.tables import WRITERS, targets
from unstir.runs.files import check_file

LAST = 65_536  # bytes at the end of a page, where its footer is, and at the beginning of other files
MADE_BY = b"<footer>Made by unstir "  # of every page (templates/base.html)


def check_files(path: Path, exported: Path | None) -> None:
    """Raise UserError for a page or a file of figures that cannot be written."""
    _check_file(path, "out", ".html")
    for target in targets(exported) if exported else ():
        _check_file(target, "exported", target.suffix)


def _check_file(path: Path, key: str, suffix: str) -> None:
    """Raise UserError for a file of another kind or one that cannot be written."""
    if path.suffix.lower() != suffix.lower():
        raise UserError(key, path, f"must end in {suffix}")
    check_file(path, key)
    if path.is_file() and path.stat().st_size and not _is_ours(path):
        raise UserError(key, path, "is there and was not written by unstir report", "delete it, or name another file")


def _is_ours(path: Path) -> bool:
    """Whether a page or a file of figures was written by unstir."""
    kind = path.suffix.lower()
    with open_file(path) as stream:
        if kind == ".html":
            stream.seek(max(0, path.stat().st_size - LAST))
            return MADE_BY in stream.read()
        text = stream.read(LAST)
    first = WRITERS[kind](()).splitlines()[0].encode()  # whatever figures follow
    return text.startswith((first + b"\n", first + b","))
