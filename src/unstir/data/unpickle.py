"""Turn CIFAR-10's python archive into plain records without trusting it; run as a program of its own.

    python -I unpickle.py cifar-10-python.tar.gz > records

Writes one line of JSON {"classes": [...], "train": N, "held_out": M}, then N + M records of 1 label byte and
3,072 pixel bytes, like the binary archive's. On any doubt it writes one line to stderr, none to stdout, and exits 1.

A pickle is a program that may call any function it can name. This one can name four, and they are stand-ins
written here: none touches anything but its own arguments, so the real numpy is never built from the file's bytes.
The process has bounded memory and processor time and may not write files.
The rest of the package uses nothing of it.
"""

import io
import json
import pickle
import resource
import sys
import tarfile
from pathlib import Path
from typing import Any

FOLDER = "cifar-10-batches-py"
META = f"{FOLDER}/batches.meta"
NAMES = (META, *(f"{FOLDER}/data_batch_{i}" for i in range(1, 6)), f"{FOLDER}/test_batch")
PIXELS = 3072
MAX_MEMBER_BYTES = 1 << 26
MEMORY_BYTES = 1 << 31
SECONDS = 300


class Doubt(Exception):  # noqa: N818
    """The archive is not what it should be; the message says how."""


class _Dtype:
    """Stand-in for numpy.dtype: only unsigned bytes."""

    __slots__ = ()

    def __init__(self, code: object, *flags: object) -> None:
        if code not in ("u1", b"u1"):
            raise Doubt("an array of another type than uint8")

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which single bytes do not have."""


class _Array:
    """Stand-in for numpy.ndarray: shape and raw bytes."""

    __slots__ = ("data", "shape")

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if type(dtype) is not _Dtype or fortran or type(data) is not bytes:
            raise Doubt("an array in another layout than the official one")
        if len(shape) != 2 or shape[1] != PIXELS or shape[0] * PIXELS != len(data):
            raise Doubt(f"an array of shape {shape!r} with {len(data)} bytes")
        self.shape, self.data = shape, data


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    """Stand-in for numpy's function of this name, which makes an empty array to be filled."""
    if kind is not _Array:
        raise Doubt("an object that is no array")
    return _Array()


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise Doubt(f"it asks for {module}.{name}, which no CIFAR-10 file needs")
        return _ALLOWED[module, name]


def load(data: bytes) -> Any:
    """Unpickle the bytes of one member with the four stand-ins. Raises Doubt."""
    try:
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Doubt:
        raise
    except MemoryError:
        raise Doubt("it asks for too much memory") from None
    except Exception:
        raise Doubt("its pickle is damaged") from None


def _batch(data: bytes) -> list[bytes]:
    batch = load(data)
    if type(batch) is not dict or type(batch.get(b"data")) is not _Array or type(batch.get(b"labels")) is not list:
        raise Doubt("no dict with data and labels")
    pixels, labels = getattr(batch[b"data"], "data", None), batch[b"labels"]
    if pixels is None:
        raise Doubt("an array that was never filled")
    if len(labels) * PIXELS != len(pixels) or not all(type(n) is int and 0 <= n < 256 for n in labels):
        raise Doubt("labels that do not fit the images")
    return [bytes([n]) + pixels[i * PIXELS : (i + 1) * PIXELS] for i, n in enumerate(labels)]


def _classes(data: bytes) -> list[str]:
    meta = load(data)
    names = meta.get(b"label_names") if type(meta) is dict else None
    if type(names) is not list or not names or not all(type(name) is bytes for name in names):
        raise Doubt("no list of label names")
    return [name.decode("utf-8", "replace") for name in names]


def convert(archive: Path) -> tuple[list[str], list[bytes], list[bytes]]:
    """Read an archive: class names, train records and test records. Raises Doubt."""
    parts: dict[str, Any] = {}
    with tarfile.open(archive, "r:gz") as opened:
        for member in opened.getmembers():
            if (name := member.name) in NAMES:
                stream = opened.extractfile(member) if member.isreg() and member.size <= MAX_MEMBER_BYTES else None
                if stream is None or name in parts:
                    raise Doubt(f"{name}: not one plain file of the usual size")
                try:
                    parts[name] = (_classes if name == META else _batch)(stream.read())
                except Doubt as doubt:
                    raise Doubt(f"{name}: {doubt}") from None
    for name in NAMES:
        if name not in parts:
            raise Doubt(f"{name} is missing")
    classes, *train, test = (parts[name] for name in NAMES)
    return classes, [record for batch in train for record in batch], test


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def main(archive: str) -> int:
    """Convert `archive` to stdout; the exit status."""
    _limit()
    try:
        classes, train, held_out = convert(Path(archive))
    except Exception as error:  # tarfile raises anything at all on damaged bytes
        doubt = error if isinstance(error, Doubt) else "the archive is damaged, or asks for too much memory"
        sys.stderr.write(f"{doubt}\n")
        return 1
    head = {"classes": classes, "train": len(train), "held_out": len(held_out)}
    sys.stdout.buffer.writelines((json.dumps(head).encode(), b"\n", *train, *held_out))
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
