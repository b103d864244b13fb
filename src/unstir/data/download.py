"""Fetch one file over HTTP: cut off anywhere it goes on from there, and nothing unverified gets its name."""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from unstir.data.disk import open_file
from unstir.errors import UserError, remedy
from unstir.progress import Progress

TIMEOUT = 30.0
"""Seconds without a byte after which the connection is given up."""

_BLOCK = 1 << 18


def file_sha256(file: Path) -> str:
    """Hash a file: SHA-256 in hex. Raises UserError when it cannot be read."""
    try:
        with open_file(file) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{file}: {remedy(error)}") from None


def fetch(url: str, target: Path, sha256: str, progress: Progress | None = None) -> None:
    """Download url to target unless it is there; a partial file `target.part` is continued, then checked, then renamed.

    Raises UserError offline, when cut off, or when the content has another SHA-256.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        _continue(url, part, progress)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        reason = _cause(error)
        done = part.stat().st_size if part.exists() else 0
        raise UserError(
            f"download of {url} stopped at {done:,} bytes ({reason}); run the same command again to continue, "
            f"or put the file at {target} yourself (SHA-256 {sha256})"
        ) from None
    found = file_sha256(part)
    if found != sha256:
        part.unlink()
        raise UserError(f"{url}: SHA-256 is {found}, expected {sha256}; the download is removed, try again later")
    part.replace(target)


def _cause(error: Exception) -> str:
    """What stopped a download, in the system's words without their number."""
    cause = getattr(error, "reason", error)
    words = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return " ".join(words.split()) or "no answer"


def _continue(url: str, part: Path, progress: Progress | None) -> None:
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:  # the part is whole, or worthless: its hash tells
            return
        raise
    with response, part.open("ab") as stream:
        if start and response.status != http.client.PARTIAL_CONTENT:
            stream.truncate(0)
            start = 0
        length = int(response.headers.get("Content-Length") or 0)
        total, done = start + length, start
        while block := response.read(_BLOCK):
            stream.write(block)
            done += len(block)
            if progress:
                progress(done, max(total, done))
        stream.flush()
        os.fsync(stream.fileno())
    if done < total:
        raise ConnectionError(f"the connection closed {total - done:,} bytes early")
