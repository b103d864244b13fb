"""The Hugging Face Hub: models by their id, OWNER/NAME or OWNER/NAME@REVISION, fetched and published."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unstir.errors import UserError
from unstir.parts import library

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
_KEYS = re.compile(r"(?<=\S)\?\S+")  # in the query of an address
NO_NAME = "is no name of a model on the Hugging Face Hub", "give OWNER/NAME"
_FIRST = {".gitattributes"}  # what the Hub itself puts into a new repository
FROM_CACHE = "without an answer from the Hub: the files of an earlier fetch, perhaps not all"


def is_id(source: str) -> bool:
    """Whether a source that is no file or folder can be the id of a model on the Hub."""
    return _ID.fullmatch(source) is not None


def is_fetched(identity: str) -> bool:
    """Whether this is the id@commit of a model that `fetch` fetched, and no path."""
    return is_id(identity) and re.search("@[0-9a-f]{12}$", identity) is not None


def fetch(source: str, patterns: Sequence[str]) -> tuple[Path, str, tuple[str, ...]]:
    """Fetch files of a model by ``patterns``, or find them here: folder, id@commit, notes. UserError if none."""
    name, _, revision = source.partition("@")
    with _in_one_line(source):
        folder = Path(_library().snapshot_download(name, revision=revision or None, allow_patterns=list(patterns)))
    notes = tuple[str, ...]()
    try:  # without a network the library gives what lies there, and does not say so
        _library().HfApi().model_info(name, revision=revision or None)
    except _errors():
        notes = (FROM_CACHE,)
    return folder, f"{name}@{folder.name[:12]}", notes


def check(name: str, ours: str, private: bool) -> None:
    """Raise UserError for a name that cannot be published: what is there must hold ``ours``, and be so ``private``."""
    if not is_id(name) or "@" in name:
        raise UserError("", name, *NO_NAME)
    api = _library().HfApi()
    with _in_one_line(name):
        api.whoami()
        try:
            published = api.model_info(name)
        except _library("errors").RepositoryNotFoundError:  # a private one of another looks so too
            return
    files = {file.rfilename for file in published.siblings or ()} - _FIRST
    if files and ours not in files:
        raise UserError("", name, "is there and holds something else than a model of unstir", "name another")
    if private and not published.private:
        raise UserError("private", True, f"does not change {name}, which is public", "make it private on the Hub")


def publish(folder: Path, name: str, message: str, private: bool, replaced: Sequence[str]) -> str:
    """Upload a folder as one commit without files that fit ``replaced``; the address. UserError as the Hub refuses."""
    api = _library().HfApi()
    with _in_one_line(name):
        api.create_repo(name, private=private or None, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message=message, delete_patterns=list(replaced))
    return f"{api.endpoint}/{name}"


def _library(part: str = "") -> Any:
    return library(f"huggingface_hub{'.' * bool(part)}{part}", "hub", "the Hugging Face Hub")


def _errors() -> tuple[type[Exception], ...]:
    """What the library raises, and the one under it that speaks HTTP."""
    return (OSError, ValueError, RuntimeError, getattr(_library("errors"), "HTTPError", OSError))


@contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    """Errors of the library and the network as a UserError, without keys; progress bars on a terminal alone."""
    bars = _library("utils")
    silent = not sys.stderr.isatty() and not bars.are_progress_bars_disabled()
    if silent:
        bars.disable_progress_bars()
    try:
        yield
    except _errors() as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = _KEYS.sub("?***", reason.replace(_library().get_token() or "\0", "***"))
        raise UserError(reason).at(f"{name} on the Hugging Face Hub") from None
    finally:
        if silent:
            bars.enable_progress_bars()
