"""The files of a page: what is checked before any work, and the PDF that a browser of the machine prints."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from unstir.data.disk import open_file
from unstir.errors import UserError
from unstir.report.tables import WRITERS, targets
from unstir.runs.files import check_file, replacing

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
OPTIONS = ("--headless=new", "--disable-gpu", "--no-first-run", "--disable-extensions", "--no-pdf-header-footer")
SECONDS = 180
LAST = 65_536  # bytes at the end of a page, where its footer is, and at the beginning of other files
MADE_BY = b"<footer>Made by unstir "  # of every page (templates/base.html)
PRINTED_BY = b"Skia/PDF"  # of every PDF by Chromium and Chrome


def check_files(path: Path, printed: bool, exported: Path | None) -> list[Path]:
    """The PDF of a page, if it is ``printed``. UserError for files that cannot be written, and without a browser."""
    _check_file(path, "--out", ".html")
    for target in targets(exported) if exported else ():
        _check_file(target, "--export", target.suffix)
    prints = [path.with_suffix(".pdf")] if printed else []
    for target in prints:
        _check_file(target, "--pdf", ".pdf")
        check_browser(path)
    return prints


def _check_file(path: Path, option: str, suffix: str) -> None:
    """Raise UserError for a file of another kind or one that cannot be written."""
    if path.suffix.lower() != suffix.lower():
        more = "; --pdf adds a PDF of the page" if path.suffix.lower() == ".pdf" else ""
        raise UserError(f"{option} {path} must end in {suffix}{more}")
    check_file(path, option)
    if path.is_file() and path.stat().st_size and not _is_ours(path):
        what = "was printed by no browser" if suffix == ".pdf" else "was not written by unstir report"
        raise UserError(f"{option} {path} is there and {what}; delete it, or name another file")


def _is_ours(path: Path) -> bool:
    """Whether a page or a file of figures was written by unstir; of a PDF, whether a browser printed it."""
    kind = path.suffix.lower()
    with open_file(path) as stream:
        if kind == ".html":
            stream.seek(max(0, path.stat().st_size - LAST))
            return MADE_BY in stream.read()
        text = stream.read(LAST)
    if kind == ".pdf":
        return PRINTED_BY in text
    first = WRITERS[kind](()).splitlines()[0].encode()  # whatever figures follow
    return text.startswith((first + b"\n", first + b","))


def browser() -> str | None:
    """The path of a browser that can print; None where there is none. $UNSTIR_BROWSER names another."""
    named = os.environ.get("UNSTIR_BROWSER", "")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, BROWSERS)), None)


def check_browser(html: Path) -> str:
    """The browser that is to print ``html``. Raises UserError where none is found."""
    if program := browser():
        return program
    raise UserError(
        f"--pdf needs Chromium or Chrome, which was not found ({', '.join(BROWSERS)}); install one, name it in "
        f"UNSTIR_BROWSER, or print {html} from any browser"
    )


def print_pdf(html: Path, path: Path) -> None:
    """Print an HTML file to a PDF by a browser of the machine. Raises UserError where there is none or it fails."""
    program = check_browser(html)
    with tempfile.TemporaryDirectory() as profile, replacing(path) as partial:
        files = f"--user-data-dir={profile}", f"--print-to-pdf={partial.resolve()}", html.resolve().as_uri()
        as_root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium's sandbox does not run as root
        command = [program, *(["--no-sandbox"] if as_root else []), *OPTIONS, *files]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise UserError(f"{program} did not print {html} within {SECONDS} s; print it by hand") from None
        if done.returncode or not partial.read_bytes().startswith(b"%PDF"):
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise UserError(f"{program} did not print {html}: {said[-1] if said else 'no reason given'}")
