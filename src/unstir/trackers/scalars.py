"""The numbers of a log line that a tracker shows, by their names there."""

from typing import Any

from unstir.runs.files import is_figure

BITS = "bits", "bits_error", "bits_train", "bits_train_error"


def of_metrics(line: dict[str, Any]) -> dict[str, float]:
    """All numbers of a line of metrics.jsonl, as metrics/KEY."""
    return {f"metrics/{key}": value for key, value in line.items() if key != "step" and _shown(value)}


def of_held_out(line: dict[str, Any]) -> dict[str, float]:
    """The losses of a line of held_out.jsonl, means over its times, and its bounds in bits per dimension."""
    means = {"held_out/loss": line["held_out"], "held_out/loss_train": line["train"]}
    return {name: sum(values) / len(values) for name, values in means.items() if values} | {
        f"held_out/{name}": line[name] for name in BITS if _shown(line[name])
    }


def _shown(value: Any) -> bool:
    return value is not None and is_figure(value)
