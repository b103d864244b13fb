"""Tensors kept in a store's folder with a text that says what decided them, and read again only where they are whole.

A file is safetensors, with that text and a hash of its content in the metadata.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from unstir.runs.checkpoint import content_hash, read_tensors
from unstir.runs.files import make_folder, replacing

NOT_KEPT = (OSError, SafetensorError, ValueError, OverflowError, KeyError, TypeError, RuntimeError, AttributeError)
"""What reading a file may raise that is not what `keep` wrote, whatever it is."""


def keep(path: Path, kind: str, text: str, tensors: Mapping[str, Tensor], durable: bool = True) -> None:
    """Replace the file; UserError where it cannot be written.

    The bytes are made first, for safetensors' own writing leaves files behind when killed. A file that is not
    ``durable`` may be lost when the machine stops.
    """
    data = save(dict(tensors), {f"unstir_{kind}": text, "sha256": content_hash(tensors, text)})
    make_folder(path.parent)
    with replacing(path, durable=durable) as partial:
        partial.write_bytes(data)


def kept(path: Path, kind: str) -> tuple[str, dict[str, Tensor]]:
    """The text and the tensors of a file. Raises one of `NOT_KEPT` for anything else than `keep` wrote."""
    metadata, views = read_tensors(path)
    tensors, text = {name: view.clone() for name, view in views.items()}, metadata[f"unstir_{kind}"]
    if metadata["sha256"] != content_hash(tensors, text):
        raise ValueError(f"{path} is damaged")
    return text, tensors
