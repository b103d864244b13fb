"""The logs of a run, a JSON object a line: what a line holds, and which step is best.

What a kill leaves is a last line without its end: it is no damage and is dropped. Any other line that does not parse,
or lacks a value, is *damaged*: readers pass over it and say so; whoever writes the file anew keeps a copy of it first.
"""

import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from statistics import fmean, median_low, stdev
from typing import IO, Any

from unstir.data.disk import read_bytes, sync_folder
from unstir.errors import UnwrittenError, UserError
from unstir.progress import counted
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.files import Kind, check, is_count, is_figure, is_figures, is_number, is_text, parsed, write_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Log:
    """The good lines of a file, in its order, and for each damaged one, by its number (1 is the first), the reason."""

    file: Path
    lines: tuple[dict[str, Any], ...] = ()
    damaged: tuple[tuple[int, str], ...] = ()

    @property
    def problem(self) -> str:
        """What is damaged, in words; empty where nothing is."""
        if not self.damaged:
            return ""
        number, reason = self.damaged[0]
        more = f", and {others} more" if (others := len(self.damaged) - 1) else ""
        return f"{self.file}: line {number} is damaged ({reason}){more}"


def read(file: Path, check_line: Callable[[dict[str, Any]], None], run: str | None = None) -> Log:
    """Lines of a file that parse, pass ``check_line`` and name the ``run`` by its id, if one is given; OSError."""
    lines, damaged, texts = [], [], [b""]
    with suppress(FileNotFoundError):
        texts = read_bytes(file).split(b"\n")
    for number, text in enumerate(texts, start=1):
        try:
            values = parsed(text)
            check_line(values)
            if run is not None and values.get("run") != run:
                raise ValueError("it is of another run")
        except ValueError as error:
            if number < len(texts):  # else it is a last line that a kill has cut short, or nothing
                damaged.append((number, str(error)))
        else:
            lines.append(values)
    return Log(file, tuple(lines), tuple(damaged))


def append(file: Path, values: Mapping[str, Any], durable: bool = False) -> None:
    """Add a line in place of one cut short by a kill; if ``durable`` it survives a power cut. Errors as `sync`."""
    with _written(file) as stream:
        _end_last_line(stream)
        stream.write(json.dumps(values).encode() + b"\n")
        if durable:
            stream.flush()
            os.fsync(stream.fileno())


def sync(file: Path) -> None:
    """Make the lines written so far survive a power cut; UnwrittenError where that fails."""
    with _written(file) as stream:
        os.fsync(stream.fileno())


@contextmanager
def _written(file: Path) -> Iterator[IO[bytes]]:
    try:
        begun = not file.exists()
        not_through_links = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag
        with open(file, "a+b", opener=lambda path, flags: os.open(path, flags | not_through_links, 0o666)) as stream:
            yield stream
        if begun:
            sync_folder(file.parent)
    except OSError as error:
        raise UnwrittenError(error.errno, error.strerror, str(file)) from None


def write(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file by these lines, whole or not at all; errors as `write_text`."""
    write_text(file, "".join(json.dumps(line) + "\n" for line in lines))


def copy_aside(file: Path) -> Path:
    """Keep a copy of a damaged file as NAME.damaged, or NAME.damaged-2, ...: no earlier copy is replaced."""
    copies = (file.with_name(f"{file.name}.damaged{f'-{number}' if number > 1 else ''}") for number in count(1))
    copy = next(path for path in copies if not path.exists())
    shutil.copy2(file, copy)
    sync_folder(copy.parent)
    return copy


def _end_last_line(stream: Any) -> None:
    """Cut off what a kill left of a last line; the end of line alone is added where the line is whole."""
    stream.seek(max(stream.seek(0, os.SEEK_END) - 1, 0))
    if stream.read(1) in (b"", b"\n"):
        return
    stream.seek(0)
    last = stream.read().rpartition(b"\n")[2]
    try:
        parsed(last)
        stream.write(b"\n")
    except ValueError:
        stream.truncate(stream.tell() - len(last))


def _are_times(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(is_count(t) and t > 0 for t in value)


def seconds_left(lines: Sequence[Mapping[str, Any]], steps: int, batch_size: int) -> float | None:
    """The seconds of so many more ``steps``, at the speed of the last lines of metrics; None where it is unknown."""
    speeds = [line["images_per_second"] for line in lines[-5:] if line["images_per_second"] > 0]
    return steps * batch_size / median_low(speeds) if speeds else None


METRICS: Mapping[str, Kind] = {
    **dict.fromkeys(("step", "epoch", "images", "steps", "skipped"), is_count),
    **dict.fromkeys(("loss", "grad_norm", "clipped"), is_figure),
    **dict.fromkeys(("lr", "ema_decay", "images_per_second", "seconds"), is_number),
}
OF_SOME_METRICS: Mapping[str, Kind] = {"mse": is_figure, "bits": is_figure, "peak_memory_bytes": is_count}
HELD_OUT: Mapping[str, Kind] = {
    **dict.fromkeys(("step", "epoch", "images", "num_train", "num_held_out"), is_count),
    **dict.fromkeys(("bits_num", "bits_train_num", "bits_calls"), is_count),
    "times": _are_times,
    **{f"{split}{end}": is_figures for split in ("train", "held_out") for end in ("", "_error")},
    **{f"of_{split}": is_figures for split in ("train", "held_out")},
    **dict.fromkeys(("bits", "bits_error", "bits_train", "bits_train_error"), is_figure),
}


def _check_held_out(line: dict[str, Any]) -> None:
    check(line, HELD_OUT)
    for split in ("train", "held_out"):
        by_time = [line[split], line[f"{split}_error"]]
        if len({values is None for values in (*by_time, line[f"of_{split}"])}) > 1:
            raise ValueError(f"its {split}, {split}_error and of_{split} were not measured together")
        if any(values is not None and len(values) != len(line["times"]) for values in by_time):
            raise ValueError(f"its {split} are not one for each of its times")
    of_splits = (line[f"{split}_error"] or () for split in ("train", "held_out"))
    errors = (*chain(*of_splits), line["bits_error"], line["bits_train_error"])
    if any(error is not None and error < 0 for error in errors):
        raise ValueError("it has a standard error below 0")


def _check_errors(line: dict[str, Any]) -> None:
    check(line, {"weights": is_text, "times": _are_times, "errors": lambda errors: isinstance(errors, list)})
    if len(line["errors"]) != len(line["times"]) or not all(is_number(error) and error > 0 for error in line["errors"]):
        raise ValueError("its errors are not one above 0 for each of its times")


NAMES: Mapping[str, Callable[[dict[str, Any]], None]] = {
    "metrics": lambda line: check(line, METRICS, OF_SOME_METRICS),
    "held_out": _check_held_out,
    "events": lambda line: check(line, {"event": is_text}, {"step": is_count}),
    "errors": _check_errors,
}
"""The logs by name, each with what raises ValueError for a line that it cannot have."""


def cut_short(log: Log, due: Any) -> str:
    """How a log lacks the line of step ``due``, the last before a checkpoint, in words; "" where one may be damaged."""
    last = max((line["step"] for line in log.lines), default=0)
    if log.damaged or not is_count(due) or last >= due:
        return ""
    return f"{log.file} ends at step {last}, though its checkpoint counts on lines up to {due}: it was cut"


def cut(of_run: Mapping[str, Log], found: Checkpoint) -> list[str]:
    """How the logs of a run, by name, lack lines that were there when ``found`` was saved, a sentence each."""
    due = {"metrics": found.state.get("logged", 0), "held_out": found.state.get("measured", 0)}
    return [problem for name, step in due.items() if (problem := cut_short(of_run[name], step))]


def best_step(folder: Path, saved: Collection[int], held_out: Sequence[dict[str, Any]]) -> int:
    """The ``saved`` step of the run in ``folder`` of the least mean loss in its lines of ``held_out``, which is logged.

    Lines of other times or images than those last measured do not count. UserError where no saved step was measured.
    """
    lines = [line for line in held_out if line["of_held_out"]]
    alike = {
        line["step"]: line["of_held_out"]
        for line in lines
        if (line["times"], line["num_held_out"]) == (lines[-1]["times"], lines[-1]["num_held_out"])
    }
    losses = {step: fmean(of_images) for step, of_images in alike.items() if step in saved}
    losses = {step: loss for step, loss in losses.items() if math.isfinite(loss)}
    if not losses:
        raise UserError("step", "best", f"needs held-out losses, of which {folder} has none", {"step": None})
    step: int = min(losses, key=losses.__getitem__)
    error = stdev(alike[step]) / len(alike[step]) ** 0.5 if len(alike[step]) > 1 else math.nan
    of = counted(len(losses), "snapshot")
    logger.info(f"{folder}: step {step} has the least held-out loss of {of}, {losses[step]:.4g} ± {error:.1g}")
    return step
