"""Data: any source of images, validated and packed once into uint8 arrays that training maps into memory.

`pack` makes a store of any source; `Store.open` opens it.
"""

from unstir.data.ahead import Ahead
from unstir.data.manifest import SPLITS, Note
from unstir.data.packing import pack
from unstir.data.store import Store, is_store

__all__ = ["SPLITS", "Ahead", "Note", "Store", "is_store", "pack"]
