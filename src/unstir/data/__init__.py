"""Data: any source of images, packed once (`pack`) into a store of arrays that training maps into memory (`Store`)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unstir.data.manifest import SPLITS, Note
    from unstir.data.packing import pack
    from unstir.data.store import Ahead, Store, is_store

__all__ = ["SPLITS", "Ahead", "Note", "Store", "is_store", "pack"]

_HOME = {"SPLITS": "manifest", "Note": "manifest", "pack": "packing"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'unstir.data' has no attribute {name!r}")
    return getattr(import_module(f"unstir.data.{_HOME.get(name, 'store')}"), name)
