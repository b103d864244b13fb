"""The program of one decoding process; see unstir.data.workers, which starts it.

Reads requests from stdin, each one line of JSON: a list of paths. Answers each with one line of JSON (shape of the
decoded block, a reason or null for each path, notes, digest of the files) and the block's bytes; or with
{"failed": why}, which ends the packing.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from unstir.data.images import OTHER_SHAPE, Refused, decode
from unstir.data.listing import Items, item_digest
from unstir.errors import UserError

_MEMORY = "close other programs, and run the same command again to continue"


def _decode_group(items: Items, paths: list[str], setup: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    shape = tuple(setup["shape"] or ())
    reasons: list[str | None] = []
    notes: list[tuple[str, str]] = []
    decoded: list[bytes] = []
    digest = hashlib.sha256()
    for path in paths:
        data = None
        try:
            data = items.read(path)
            pixels, remarks = decode(data, path, setup["size"], setup["channels"])
            shape = shape or pixels.shape
            if pixels.shape != shape:
                height, width = pixels.shape[1:]
                raise Refused(f"{OTHER_SHAPE} {width}x{height} pixels, where others have {shape[2]}x{shape[1]}")
        except Refused as refusal:
            reasons.append(str(refusal))
        else:
            reasons.append(None)
            notes += [(text, path) for text in remarks]
            decoded.append(pixels.tobytes())
        digest.update(item_digest(path, data))
    head = {"shape": (len(decoded), *(shape or (0,))), "reasons": reasons, "notes": notes}
    return {**head, "digest": digest.hexdigest()}, decoded


def _serve(setup: dict[str, Any], requests: BinaryIO, replies: BinaryIO) -> None:
    items = Items(Path(setup["root"]))
    for line in requests:
        try:
            head, decoded = _decode_group(items, json.loads(line), setup)
        except UserError as error:  # of the machine, not of a file
            head, decoded = {"failed": str(error)}, []
        except MemoryError:
            head, decoded = {"failed": f"{setup['root']}: not enough memory to decode its images; {_MEMORY}"}, []
        replies.write(json.dumps(head).encode() + b"\n")
        replies.writelines(decoded)
        replies.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
    with suppress(BrokenPipeError):
        _serve(json.loads(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
