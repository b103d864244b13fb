"""Decoding in child processes: faster than threads for small images, and a decoder that crashes takes nothing along.

Request: one line of JSON, a list of paths. Reply: one line of JSON (shape of the decoded block, the rest of `Group`),
then the block's bytes; or {"failed": why}, "" for want of memory, which ends the packing.

Processes of multiprocessing would run the user's script again, unless it has an `if __name__ == "__main__"`.
"""

import json
import os
import queue
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

import numpy as np

from unstir.data.disk import item_digest, read_bytes
from unstir.data.images import Decoded, Group, Outcome, Refused, Shape, Sides, decode, group_of
from unstir.data.listing import Items
from unstir.errors import UserError

MAX_WORKERS = min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
"""One child for each core this process may use, and no more than 16."""

_PROGRAM = "from unstir.data.decoding import serve; serve()"


def decoded(picture: Path | bytes, size: Sides | None, channels: int, ground: str = "white", key: str = "") -> Decoded:
    """`decode` a picture of a person, a file or its bytes; errors as `picture_errors`, OSError as `open_file`."""
    with picture_errors(picture, key):
        if isinstance(picture, bytes):
            return decode(picture, None, size, channels, ground)
        return decode(read_bytes(picture), picture.name, size, channels, ground)


@contextmanager
def picture_errors(picture: Path | bytes, key: str = "") -> Iterator[None]:
    """Turn the refusal of a picture that ``key`` names into a UserError."""
    try:
        yield
    except Refused as error:
        given = picture if isinstance(picture, Path) else "the picture"
        raise UserError(key, given, f"is no picture that can be used: {error}", "name another") from None


def decode_all(
    root: Path, requests: Iterable[list[str]], form: dict[str, Any], shape: Shape | None, num_workers: int
) -> Generator[Group, None, None]:
    """Decode groups of paths below `root`, a few groups ahead, to ``form`` and `shape`; UserError if a child dies."""
    setup = json.dumps({"root": str(root.absolute()), "shape": shape, **form})
    with ExitStack() as stack:
        idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        pool = stack.enter_context(ThreadPoolExecutor(num_workers))
        for _ in range(num_workers):
            worker = _Worker(setup)
            stack.callback(worker.stop)  # before the pool waits for its threads
            idle.put(worker)

        def decode_one(paths: list[str]) -> Group:
            worker = idle.get()
            try:
                return worker.decode(paths)
            finally:
                idle.put(worker)

        pending: deque[Future[Group]] = deque()
        for paths in requests:
            pending.append(pool.submit(decode_one, paths))
            if len(pending) > 2 * num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


class _Worker:
    def __init__(self, setup: str) -> None:
        self._process = start(_PROGRAM, setup)

    def decode(self, paths: list[str]) -> Group:
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(paths).encode() + b"\n")
            self._process.stdin.flush()
            head = json.loads(self._process.stdout.readline())
            shape, kind = tuple(head.get("shape", (0,))), np.dtype(head.get("dtype", "|u1"))
            data = self._process.stdout.read(int(np.prod(shape, dtype=np.int64)) * kind.itemsize)
            pixels = np.frombuffer(data, kind).reshape(shape)
        except (OSError, ValueError):
            self._process.kill()
            code = self._process.wait()
            files = f"{paths[0]!r} to {paths[-1]!r}"
            raise UserError("", files, f"ended the process that decodes them, status {code}", "pack again") from None
        if "failed" in head:
            raise UserError(head["failed"]) if head["failed"] else MemoryError
        return Group(pixels, *(head[key] for key in Group._fields[1:]))

    def stop(self) -> None:
        with suppress(OSError), self._process:  # closes the pipes and waits
            self._process.kill()


def serve() -> None:
    """Be a child: answer the requests on stdin until there are no more; the setup is the first argument."""
    form = json.loads(sys.argv[1])
    items, shape = Items(Path(form.pop("root"))), tuple(form.pop("shape") or ())
    form["size"] = form["size"] and tuple(form["size"])

    def outcome(path: str) -> Outcome:
        data = None
        try:
            data = items.read(path)
            return path, item_digest(path, data), decode(data, path, **form)
        except Refused as refusal:
            return path, item_digest(path, data), refusal

    with suppress(BrokenPipeError):
        for line in sys.stdin.buffer:
            try:
                group = group_of(map(outcome, json.loads(line)), shape or None)
                array = {"shape": group.pixels.shape, "dtype": group.pixels.dtype.str}
                head, data = {**group._asdict(), "pixels": None, **array}, group.pixels.tobytes()
            except (UserError, MemoryError) as error:  # of the machine, not of a file
                head, data = {"failed": str(error) if isinstance(error, UserError) else ""}, b""
            sys.stdout.buffer.writelines((json.dumps(head).encode(), b"\n", data))
            sys.stdout.buffer.flush()


def start(program: str, *arguments: str) -> Popen[bytes]:
    """Start Python with a program, on pipes; what C decoders print as errors is lost, and Ctrl-C reaches us alone."""
    modules, here = [path for path in sys.path if path], str(Path(__file__).parents[2])
    if here not in modules:
        modules.insert(0, here)  # this package was found in the current folder
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(modules), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", program, *arguments]
    return Popen(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment, start_new_session=True)
