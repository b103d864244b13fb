"""What a power cut may leave of a folder: all that was synced, and anything that was done since, or nothing of it.

A kill keeps what the system holds in memory; a power cut does not. `Recorder` looks at a folder after every sync,
rename, removal and new folder. From that `state` makes folders that a file system is allowed to leave after a cut: of
each folder the entries of its last sync or any later ones, and of each file the content of its last sync, any later
one, one cut short, zeros, or nothing; one file or folder independently of the others.
"""

import os
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

CALLS = ("fsync", "replace", "rename", "unlink", "remove", "rmdir", "mkdir")


class Recorder:
    """What happened below ``root``, event by event.

    ``promises`` are (number of events before it, what must hold from then on). ``deaf_to``, "file" or "folder", leaves
    out what the syncs of one kind achieve, as if they were not in the code.
    """

    def __init__(self, root, deaf_to=""):
        self.root, self.deaf_to, self.lock = Path(root), deaf_to, threading.RLock()
        self.snapshots, self.synced, self.promises = [], [], []
        self._born, self._last = {}, set()
        self._look(None)

    @contextmanager
    def recording(self):
        """Watch the calls of this process in this block."""
        real = {name: getattr(os, name) for name in CALLS}

        def watched(name):
            def call(*arguments, **options):
                with self.lock:
                    result = real[name](*arguments, **options)
                    self._look(self._synced(arguments[0]) if name == "fsync" else None)
                    return result

            return call

        try:
            for name in CALLS:
                setattr(os, name, watched(name))
            yield self
        finally:
            for name, call in real.items():
                setattr(os, name, call)
            self._look(None)

    def promise(self, what):
        """From here on ``what`` must hold."""
        with self.lock:
            self.promises.append((len(self.snapshots), what))

    def promised(self, at):
        """What must hold after a power cut that comes when ``at`` events are over."""
        return [what for number, what in self.promises if number <= at]

    def _synced(self, descriptor):
        it = os.fstat(descriptor)
        kind = "folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"
        return None if kind == self.deaf_to else it.st_ino

    def _look(self, synced):
        """Take down every file and folder: {identity: bytes, or {name: identity}}; an inode used again is another."""
        found, identities = {}, {}

        def identity(inode):
            if inode not in identities:
                if inode not in self._last:
                    self._born[inode] = self._born.get(inode, 0) + 1
                identities[inode] = (inode, self._born[inode])
            return identities[inode]

        def look(folder):
            entries = {}
            for entry in os.scandir(folder):
                try:
                    entries[entry.name] = name = identity(entry.inode())
                    if entry.is_dir(follow_symlinks=False):
                        found[name] = look(entry.path)
                    else:
                        found[name] = Path(entry.path).read_bytes()
                except FileNotFoundError:  # gone meanwhile
                    entries.pop(entry.name, None)
            return entries

        found["root"] = look(self.root)
        if synced == self.root.stat().st_ino:
            synced = "root"
        elif synced is not None:
            synced = identities.get(synced)
        self._last = set(identities)
        self.snapshots.append(found)
        self.synced.append(synced)

    def state(self, chance, out, at=None):
        """Make in folder ``out`` what a cut may leave; the number of events that were over.

        The first three draws of each moment are the extremes: nothing since the last syncs, everything, and every name
        with nothing of its unsynced content, as file systems leave that write names before content.
        """
        at = chance.randrange(len(self.snapshots)) if at is None else at
        kind = chance.choice(("oldest", "newest", "names first", "any", "any"))
        shutil.rmtree(out, ignore_errors=True)
        self._make("root", at, kind, chance, Path(out))
        return at

    def _versions(self, what, at):
        """The contents that a file or folder may have: of its last sync, or its beginning, and all later ones."""
        first = max((i for i in range(at + 1) if self.synced[i] == what), default=None)
        always = what in self.snapshots[0]
        durable = self.snapshots[0 if first is None else first].get(what) if always or first is not None else None
        later = [self.snapshots[i][what] for i in range(first or 0, at + 1) if what in self.snapshots[i]]
        return durable, later

    def _make(self, what, at, kind, chance, path):
        durable, later = self._versions(what, at)
        if isinstance(later[-1], dict):
            choice = {"oldest": durable or {}, "newest": later[-1], "names first": later[-1]}
            entries = choice[kind] if kind != "any" else chance.choice([durable or {}, *later])
            path.mkdir()
            for name, of in entries.items():
                self._make(of, at, kind, chance, path / name)
            return
        whole = later[-1]
        if kind == "newest":
            content = whole
        elif kind in ("oldest", "names first"):
            content = durable or b""
        else:
            unsynced = whole != durable
            half = whole[: chance.randrange(len(whole) + 1)]
            content = chance.choice([durable or b"", *later, *([half, bytes(len(whole))] if unsynced else [])])
        path.write_bytes(content)
