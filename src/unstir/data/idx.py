"""MNIST and its relatives as idx files: NAME-images-idx3-ubyte beside NAME-labels-idx1-ubyte, unpacked or .gz.

A file is 0, 0, 8 (unsigned bytes), the number of dimensions, each as 4 bytes, the highest first, and then the values.
"""

import gzip
import re
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unstir.data.arrays import rows_of
from unstir.data.disk import open_file
from unstir.data.records import Records, Rows
from unstir.data.source import Options
from unstir.errors import UserError

_NAME = re.compile(r"(.*?)(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
_MOST = 1 << 31  # bytes of a file, unpacked


def idx_in(path: Path) -> list[Path]:
    """The idx files in a folder, or in raw or NAME/raw inside it, as torchvision has them; none where there are none.

    Raises UserError where there are several data sets, or images without labels.
    """
    if _NAME.fullmatch(path.name) and path.is_file():
        raise UserError("source", path, "is one file of a data set", "give the folder that it is in")
    places = [path, path / "raw", *path.glob("*/raw")] if path.is_dir() else []
    files = [file for place in places for file in sorted(place.glob("*-ubyte*")) if _NAME.fullmatch(file.name)]
    if len(sets := {file.parent / _part(file)[0] for file in files}) > 1:
        several = ", ".join(sorted(str(name.relative_to(path)) for name in sets))
        raise UserError("source", path, f"holds several data sets: {several}", "give a folder that has one of them")
    for file in files:
        labels = file.name.replace("images", "labels").replace("idx3", "idx1")
        if not any((file.parent / f"{labels.removesuffix('.gz')}{ending}").is_file() for ending in ("", ".gz")):
            raise UserError("source", file, f"has no labels: {labels} is not beside it", "fetch that file too")
    return files


def _part(file: Path) -> tuple[str, str]:
    """The name of a file's data set, "" where it has none, and the array that the file is, such as test_images."""
    match = _NAME.fullmatch(file.name)
    assert match
    return match[1], f"{match[2].replace('t10k', 'test')}_{match[3]}"


class IdxFiles(Records):
    """The idx files of one data set; where a file is there unpacked too, its .gz is not read."""

    kind = "idx"

    def __init__(self, files: Sequence[Path], options: Options) -> None:
        super().__init__(options, list({_part(file)[1]: file for file in reversed(files)}.values())[::-1])

    def rows(self) -> list[Rows]:
        """The images of both splits."""
        arrays = {_part(file)[1]: _array(file) for file in self.files}
        return rows_of(arrays, "images", self.name, self.options.depth)


def _array(file: Path) -> NDArray[np.uint8]:
    """The values of an idx file, in its shape. Raises UserError where it is damaged."""
    with suppress(gzip.BadGzipFile, EOFError, IndexError, ValueError, zlib.error), open_file(file) as stream:
        data = (gzip.GzipFile(fileobj=stream) if file.suffix == ".gz" else stream).read(_MOST)
        start = 4 + 4 * data[3]
        if data[:3] == b"\0\0\x08":
            return np.frombuffer(data, np.uint8, offset=start).reshape(np.frombuffer(data[4:start], ">u4").tolist())
    raise UserError("", file, "is damaged, or no idx file of unsigned bytes", "fetch it again")
