"""A training as event files of TensorBoard, in RUN/tensorboard. Nothing leaves the machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unstir.parts import library, tracker
from unstir.trackers import Scalars


@tracker
class TensorBoard(Scalars):
    """Writes an event file each time the run in ``folder`` goes on. Raises UserError where the extra is missing."""

    def __init__(self, folder: Path) -> None:
        for name in ("tensorboard", "torch.utils.tensorboard"):
            self._library = library(name, "tensorboard", "log.to=tensorboard")
        self._folder = folder
        self._writer: Any = None

    def begin(self, step: int, length: int, shape: tuple[int, ...], snapshots: Sequence[int] = ()) -> None:
        """Begin a file, which makes readers forget what earlier files say of the steps to come."""
        self._writer = self._library.SummaryWriter(str(self._folder / "tensorboard"), purge_step=step + 1)
        config = (self._folder / "config.toml").read_text(encoding="utf-8")
        self._writer.add_text("config", f"```toml\n{config}\n```", step)

    def grid(self, step: int, file: Path) -> None:
        """Add the grid of a snapshot."""
        with Image.open(file) as picture:
            self._writer.add_image("samples", np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        self._writer.flush()

    def add(self, step: int, row: dict[str, Any]) -> None:
        """Add the numbers of a log line."""
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # what a checkpoint has seen survives a kill, or the curve would have a hole

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
