"""Which logs a run has, and what each of their lines must hold."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unstir.runs import lines
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.kinds import Kind, check, is_count, is_figure, is_figures, is_number, is_text
from unstir.runs.lines import Log


def _are_times(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(is_count(t) and t > 0 for t in value)


METRICS: Mapping[str, Kind] = {
    **dict.fromkeys(("step", "epoch", "images", "steps", "skipped"), is_count),
    **dict.fromkeys(("loss", "grad_norm", "clipped"), is_figure),
    **dict.fromkeys(("lr", "ema_decay", "images_per_second", "seconds"), is_number),
}
HELD_OUT: Mapping[str, Kind] = {
    **dict.fromkeys(
        ("step", "epoch", "images", "num_train", "num_held_out", "bits_num", "bits_train_num", "bits_calls"), is_count
    ),
    "times": _are_times,
    **{f"{split}{end}": is_figures for split in ("train", "held_out") for end in ("", "_error")},
    **{f"of_{split}": is_figures for split in ("train", "held_out")},
    **dict.fromkeys(("bits", "bits_error", "bits_train", "bits_train_error"), is_figure),
}


def _check_metrics(line: dict[str, Any]) -> None:
    check(line, METRICS, {"mse": is_figure, "bits": is_figure})


def _check_held_out(line: dict[str, Any]) -> None:
    check(line, HELD_OUT)
    for split in ("train", "held_out"):
        by_time = [line[split], line[f"{split}_error"]]
        if len({each is None for each in (*by_time, line[f"of_{split}"])}) > 1:
            raise ValueError(f"its {split}, {split}_error and of_{split} were not measured together")
        if any(each is not None and len(each) != len(line["times"]) for each in by_time):
            raise ValueError(f"its {split} are not one for each of its times")


def _check_event(line: dict[str, Any]) -> None:
    check(line, {"event": is_text}, {"step": is_count})


NAMES: Mapping[str, Callable[[dict[str, Any]], None]] = {
    "metrics": _check_metrics,
    "held_out": _check_held_out,
    "events": _check_event,
}
"""The logs by name, each with what raises ValueError for a line that it cannot have."""


def read(folder: Path, name: str) -> Log:
    """A log of the run in ``folder``. Raises UserError where the file cannot be read."""
    return lines.read(folder / f"{name}.jsonl", NAMES[name])


def cut_short(log: Log, due: Any) -> str:
    """How a log lacks the line of step ``due``, the last before a checkpoint, in words; empty where it does not.

    A log with damaged lines, of which this may be one, is spoken of elsewhere.
    """
    last = max((line["step"] for line in log.lines), default=0)
    if log.damaged or not is_count(due) or last >= due:
        return ""
    return f"{log.file} ends at step {last}, though its checkpoint counts on lines up to {due}: it was cut"


def cut(of_run: Mapping[str, Log], found: Checkpoint) -> list[str]:
    """How the logs of a run, by name, lack lines that were there when ``found`` was saved, a sentence each."""
    due = {"metrics": found.state.get("logged", 0), "held_out": found.state.get("measured", 0)}
    return [said for name, step in due.items() if (said := cut_short(of_run[name], step))]
