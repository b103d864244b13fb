"""Models of the Hugging Face Hub, by their id: OWNER/NAME, or OWNER/NAME@REVISION.

huggingface_hub keeps what it fetches in its own cache (~/.cache/huggingface, or HF_HOME). What lies there is read
without a network.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from unstir.errors import UserError
from unstir.interop.libraries import library

ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")


def is_id(source: str) -> bool:
    """Whether a source that is no file or folder can be the id of a model on the Hub."""
    return ID.fullmatch(source) is not None


def fetch(source: str, patterns: Sequence[str]) -> tuple[Path, str]:
    """The folder of a model's files, of which those that fit the ``patterns`` are fetched, and its id@commit.

    Raises UserError where there is no such model, or neither network nor cache have it.
    """
    match = ID.fullmatch(source)
    assert match is not None
    name, revision = match[1], match[2]
    hub = library("huggingface_hub", "diffusers", f"{source}, a model of the Hugging Face Hub,")
    try:
        folder = Path(hub.snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (OSError, ValueError, RuntimeError) as error:  # as all of its errors are, of requests or httpx too
        raise UserError(_refusal(source, error)) from None
    return folder, f"{name}@{folder.name[:12]}"


def _refusal(source: str, error: Exception) -> str:
    kind = type(error).__name__
    if kind in ("RepositoryNotFoundError", "RevisionNotFoundError", "GatedRepoError", "HFValidationError"):
        what = {"RevisionNotFoundError": "has no such revision", "GatedRepoError": "asks for a login (hf auth login)"}
        return f"{source} {what.get(kind, 'is neither a file, a folder nor a model of the Hugging Face Hub')}"
    return (
        f"{source} is no file or folder here, and could not be fetched from the Hugging Face Hub ({kind}); "
        f"with a network: hf download {source.split('@')[0]}, or name a folder that has its files"
    )
