"""Whether the bytes of a store were read and compared with its hash: once a process, and of a large store once at all.

That of a large one is remembered in verified.json of its folder, with inode, length and times of every file. The time
of its last change no program can set, so a copy, a restored file and an edited one are all read anew. What a disk
loses by itself changes no time: `unstir doctor` and `unstir data inspect` read every byte each time.
"""

import json
import secrets
from contextlib import suppress
from typing import Any

from unstir.data.disk import open_file
from unstir.data.manifest import parsed
from unstir.data.store import Store

RECORD = "verified.json"
_verified = set[str]()


def verify_once(store: Store) -> None:
    """Read every byte of a store unless that was done and no file has changed since. Raises as `Store.verify`."""
    state = _state(store)
    if (key := json.dumps([str(store.path.resolve()), state])) in _verified:
        return
    if not (store.is_large and _recorded(store) == state):
        store.verify()
        if store.is_large:
            _record(store, state)
    _verified.add(key)


def _state(store: Store) -> list[Any]:
    """What changes whenever a file of the store does, or its manifest."""
    found: list[Any] = [repr(store.manifest)]
    for array in store.arrays().values():
        with suppress(OSError):  # `Store.verify` says so
            it = array.file.stat()
            found.append([array.file.name, it.st_ino, it.st_size, it.st_mtime_ns, it.st_ctime_ns])
    return found


def _recorded(store: Store) -> Any:
    try:
        with open_file(store.path / RECORD) as file:
            return parsed(file.read())
    except (OSError, ValueError):
        return None


def _record(store: Store, state: list[Any]) -> None:
    """Remember it where the folder can be written; several processes may do so at once."""
    partial = store.path / f".{RECORD}.{secrets.token_hex(4)}"
    with suppress(OSError):
        try:
            partial.write_text(json.dumps(state))
            partial.replace(store.path / RECORD)
        finally:
            partial.unlink(missing_ok=True)
