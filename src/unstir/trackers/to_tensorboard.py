"""Rows as event files of TensorBoard, in RUN/tensorboard. Nothing leaves the machine.

Each time that a run is followed its whole history is written to a new file, which begins with the mark that makes
readers forget what earlier files said from step 0 on. So each step is there once, also of a run that was killed and of
one that was trained without a tracker before. Of the files before it the last one stays, for a TensorBoard that is open
may be reading it, and would not get beyond it if it were gone.
"""

import struct
import time
from typing import Any

from unstir.libraries import library
from unstir.progress import Say
from unstir.trackers.folder import Row
from unstir.trackers.job import Job

FLUSH_SECONDS = 5
FIRST = f"events.out.tfevents.{int(time.time()):010d}"  # the least name of a file that this process makes
COLOURS = {0: 1, 2: 3, 4: 2, 6: 4}  # of a PNG file its type of colour, and as many values has a pixel


def load() -> None:
    """Load what is needed. Raises UserError where the extra is missing."""
    for name in ("summary.writer.event_file_writer", "compat.proto", "plugins.text.summary_v2"):
        _library(name)


def _library(name: str) -> Any:
    return library(f"tensorboard.{name}", "tensorboard", "--log.to tensorboard")


class Tracker:
    """The event file of a run that is being followed."""

    def __init__(self, job: Job, say: Say) -> None:
        folder = job.run / "tensorboard"
        self._old = sorted(folder.glob("events.out.tfevents.*"))[:-1]
        for file in self._old:
            if file.name >= FIRST:  # of an attempt that failed, and not the last one, which may be read
                file.unlink(missing_ok=True)
        self._began = (job.run / "data.json").stat().st_mtime  # which is written once, when the run is made
        self._event, self._summary = (_library(f"compat.proto.{name}_pb2") for name in ("event", "summary"))
        writer = _library("summary.writer.event_file_writer")
        self._writer = writer.EventFileWriter(str(folder), flush_secs=FLUSH_SECONDS)
        start = self._event.SessionLog(status=self._event.SessionLog.START)
        self._writer.add_event(self._event.Event(step=0, wall_time=self._began, session_log=start))
        config = (job.run / "config.toml").read_text(encoding="utf-8")
        text = _library("plugins.text.summary_v2").text_pb("config", f"```toml\n{config}\n```")
        self._writer.add_event(self._event.Event(step=0, wall_time=self._began, summary=text))

    def add(self, row: Row) -> None:
        """Add a row; its time is that of the run's beginning and the seconds of training since."""
        values = [self._summary.Summary.Value(tag=name, simple_value=value) for name, value in row.scalars.items()]
        for name, file in row.pictures.items():
            values.append(self._summary.Summary.Value(tag=name, image=self._image(file.read_bytes())))
        summary = self._summary.Summary(value=values)
        self._writer.add_event(self._event.Event(step=row.step, wall_time=self._began + row.seconds, summary=summary))

    def _image(self, png: bytes) -> Any:
        width, height, _, kind = struct.unpack(">IIBB", png[16:26])
        return self._summary.Summary.Image(
            width=width, height=height, colorspace=COLOURS.get(kind, 3), encoded_image_string=png
        )

    def caught_up(self) -> None:
        """All that was there is written: remove the old files."""
        self._writer.flush()
        for file in self._old:
            file.unlink(missing_ok=True)

    def close(self) -> None:
        """Write what is left."""
        self._writer.flush()
        self._writer.close()
