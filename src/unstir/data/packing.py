"""From any source of images to a packed store, once: validated, restartable, and the same bytes every time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from unstir.data.disk import disk_errors, require_space, usable_path
from unstir.data.folder import joint_digest
from unstir.data.manifest import FORMAT, SPLITS, read_origin
from unstir.data.source import Options, Plan, Source
from unstir.data.sources import source_of
from unstir.data.spelling import Spelling, in_python
from unstir.data.store import HEADER_BYTES, Store, array_file, is_store
from unstir.data.writer import Writer, publish, staging_folder
from unstir.errors import UserError, printable
from unstir.progress import Progress

_EXAMPLES = 10


def pack(
    source: str | Path,
    out: str | Path,
    *,
    size: int | None = None,
    channels: int | None = None,
    held_out: float | None = None,
    sha256: str | None = None,
    download_dir: str | Path | None = None,
    strict: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    spelling: Spelling = in_python,
) -> Store:
    """Pack `source` into the folder `out` and open it; a finished store of the same source and settings is just opened.

    source: "digits" (embedded, 8x8 grey), "cifar10" (downloaded to download_dir, by default out's parent), or the path
        of a CIFAR-10 archive (.tar.gz, binary or python), a folder of images or a zip of images.
    size: side of the packed square in pixels, 1..4096; None keeps the images' own common shape.
    channels: 1 (grey) or 3 (RGB); None means 1 for digits and 3 for all else.
    held_out: fraction in [0, 1) of each class kept from training; None means 1/6 for digits and 1/10 for folders
        and zips. It does not apply to sources that bring a split: CIFAR-10, and folders named train and test.
    sha256: the archive's expected hash (CIFAR-10 only), in place of the official ones.
    strict: any refused file is an error. seed: picks the held-out images.
    progress: called with (done, total); bytes during a download, images afterwards.
    spelling: how messages write these arguments, for the caller to type.

    Interrupted at any instant, the same call continues; the result is byte-identical to an uninterrupted one.
    Raises UserError for every mistake in the arguments, the source or the disk, with the remedy.
    """
    with disk_errors(out := usable_path(out)):
        origin = source_of(source, Options(size, channels, held_out, sha256, seed, spelling))
        if origin.kind == "folder" and out.resolve().is_relative_to(Path(source).resolve()):
            inside = f"{out}: lies inside the images' folder {source}, which packing must not change"
            raise UserError(f"{inside}; {_another(spelling)}")
        if finished := _finished(origin, source, out, strict):
            return finished
        with staging_folder(out) as staging:
            if finished := _finished(origin, source, out, strict):  # by another process meanwhile
                return finished
            stamp = origin.stamp()
            plan = origin.plan(usable_path(download_dir) if download_dir else out.parent, progress)
            require_space(staging, _bytes(plan), spelling("size", max(1, plan.shape[1] // 2)))
            _pack(origin, str(source), plan, stamp, staging, out, strict, progress)
    return Store.open(out)


def _pack(
    origin: Source,
    name: str,
    plan: Plan,
    stamp: str,
    staging: Path,
    out: Path,
    strict: bool,
    progress: Progress | None,
) -> None:
    labelled, classes = bool(plan.classes), list(map(printable, plan.classes))
    head = {"format": FORMAT, "kind": origin.kind, "settings": origin.settings, "stamp": stamp}
    with Writer(staging, {**head, "shape": plan.shape}, plan.shape, labelled) as writer:
        with closing(plan.chunks(writer.state.position)) as chunks:
            for chunk in chunks:
                writer.write(chunk)
                if progress:
                    progress(chunk.stop, plan.total)
        content = writer.finish(classes)
        state = writer.state
    if origin.stamp() != stamp:
        raise UserError(f"{name}: changed while it was packed; run the same command again")
    refused = sorted((printable(path), printable(why)) for path, why in (*plan.refused, *state.refused))
    if not any(state.rows.values()):
        raise UserError(f"{name}: no images to pack, all {len(refused)} are refused; the first: {_list(refused[:1])}")
    _check_refused(name, refused, strict)
    publish(staging, out, {
        "unstir_store": FORMAT,
        **{key: head[key] for key in ("kind", "settings")},
        "source_hash": plan.source_hash or joint_digest(state.digests),
        "content_hash": content,
        "shape": plan.shape,
        "counts": {split: state.rows[split] for split in SPLITS},
        "classes": classes,
        "counts_per_class": _per_class(staging / "store", classes),
        "held_out_rule": plan.held_out_rule,
        "refused": refused,
        "notes": _notes((*plan.notes, *state.notes)),
    }, (name, stamp))  # fmt: skip


def _bytes(plan: Plan) -> int:
    return plan.total * (math.prod(plan.shape) + 8 * bool(plan.classes)) + (1 << 16)


def _check_refused(name: str, refused: Sequence[tuple[str, str]], strict: bool) -> None:
    if strict and refused:
        more = f", and {len(refused) - _EXAMPLES} more" if len(refused) > _EXAMPLES else ""
        found = f"{_list(refused[:_EXAMPLES])}{more}"
        raise UserError(f"{name}: {len(refused)} files refused: {found}; mend them or pack without --strict")


def _another(spelling: Spelling) -> str:
    return f"choose another place ({spelling('out', 'FOLDER')})"


def _finished(origin: Source, source: str | Path, out: Path, strict: bool) -> Store | None:
    """Open what `out` holds if it is what would be packed; None if there is nothing. Raises UserError if it is else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not is_store(out):
        raise UserError(f"{out}: exists and is not a packed store; {_another(origin.spelling)}")
    store = Store.open(out)
    made, (place, stamp) = store.manifest, read_origin(out)
    remedy = f"delete that folder to pack anew, or {_another(origin.spelling)}"
    if (made["kind"], made["settings"]) != (origin.kind, origin.settings):
        pairs = ((made["kind"], made["settings"]), (origin.kind, origin.settings))
        had, asked = (f"{kind} ({', '.join(f'{k}={v}' for k, v in of.items())})" for kind, of in pairs)
        raise UserError(f"{out}: holds {had}, asked for is {asked}; {remedy}")
    if stamp != origin.stamp() and made["source_hash"] != origin.source_hash(store.shape):
        raise UserError(f"{out}: holds {place or 'another source'}, and {source} differs from it; {remedy}")
    _check_refused(str(source), store.refused, strict)
    return store


def _per_class(folder: Path, classes: list[str]) -> dict[str, list[int]]:
    """Count the images of each class, a list a split."""
    counts: dict[str, list[int]] = {}
    for split in SPLITS if classes else ():
        labels = np.fromfile(array_file(folder, split, "labels"), "<i8", offset=HEADER_BYTES)
        counts[split] = np.bincount(labels, minlength=len(classes)).tolist()
    return counts


def _notes(notes: tuple[tuple[str, str], ...]) -> list[dict[str, Any]]:
    """Group notes by text, most frequent first, each with its first ten paths."""
    counts = Counter(text for text, _ in notes)
    paths: dict[str, list[str]] = {}
    for text, path in notes:
        if len(found := paths.setdefault(text, [])) < _EXAMPLES:
            found.append(printable(path))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"text": text, "count": count, "examples": paths[text]} for text, count in ranked]


def _list(refused: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{path} ({reason})" for path, reason in refused)
