"""A page printed to PDF by a Chromium or Chrome that is on the machine."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from unstir.errors import UserError
from unstir.runs.files import replacing

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
OPTIONS = ("--headless=new", "--disable-gpu", "--no-first-run", "--disable-extensions", "--no-pdf-header-footer")
SECONDS = 180


def browser() -> str | None:
    """The path of a browser that can print; None where there is none. $UNSTIR_BROWSER names another."""
    named = os.environ.get("UNSTIR_BROWSER", "")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, BROWSERS)), None)


def check_browser(page: Path) -> str:
    """The browser that is to print ``page``. Raises UserError where none is found."""
    if program := browser():
        return program
    raise UserError(
        f"--pdf needs Chromium or Chrome, which was not found ({', '.join(BROWSERS)}); install one, name it in "
        f"UNSTIR_BROWSER, or print {page} from any browser"
    )


def print_pdf(page: Path, path: Path) -> None:
    """Print an HTML file to a PDF. Raises UserError where no browser is found or it fails."""
    program = check_browser(page)
    with tempfile.TemporaryDirectory() as profile, replacing(path) as partial:
        files = f"--user-data-dir={profile}", f"--print-to-pdf={partial.resolve()}", page.resolve().as_uri()
        as_root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium's sandbox does not run as root
        command = [program, *(["--no-sandbox"] if as_root else []), *OPTIONS, *files]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise UserError(f"{program} did not print {page} within {SECONDS} s; print it by hand") from None
        if done.returncode or not partial.read_bytes().startswith(b"%PDF"):
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise UserError(f"{program} did not print {page}: {said[-1] if said else 'no reason given'}")
