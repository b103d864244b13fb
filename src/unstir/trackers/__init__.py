"""Trackers: a training as it goes on, shown by TensorBoard or Weights & Biases; an `Observer` in a file each."""

from typing import Any

from unstir.runs.files import is_figure
from unstir.train.observer import Observer

BITS = "bits", "bits_error", "bits_train", "bits_train_error"


class Scalars(Observer):
    """A tracker that is given the numbers of each log line by one method."""

    def add(self, step: int, row: dict[str, Any]) -> None:
        """Add values to what is shown of a step."""
        raise NotImplementedError

    def metrics(self, line: dict[str, Any]) -> None:
        """Add all numbers of a line of metrics.jsonl, as metrics/KEY."""
        self.add(line["step"], {f"metrics/{key}": line[key] for key in line if key != "step" and _shown(line[key])})

    def held_out(self, line: dict[str, Any]) -> None:
        """Add the losses of a line of held_out.jsonl, means over its times, and its bounds in bits per dimension."""
        losses = {"held_out/loss": line["held_out"], "held_out/loss_train": line["train"]}
        means = {name: sum(values) / len(values) for name, values in losses.items() if values}
        self.add(line["step"], means | {f"held_out/{name}": line[name] for name in BITS if _shown(line[name])})


def _shown(value: Any) -> bool:
    return value is not None and is_figure(value)
