"""The lines of held_out.jsonl as values: the loss of the same images with the same noise at several steps of a run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from unstir.doctor.finding import is_number
from unstir.significance import Estimate


@dataclass(frozen=True, kw_only=True)
class Look:
    """The losses at one step, mean squared errors of what the network predicts.

    ``held_out`` and ``train`` are those of each image, averaged over times, of images never and often trained on
    (``train`` is empty where it was not measured). ``by_time`` has rows (t, held-out loss, its standard error, training
    loss, its standard error), the last two None where ``train`` is empty. ``bits`` and ``bits_train`` are bits per
    dimension, None where they were not computed.
    """

    step: int
    images: int
    held_out: tuple[float, ...]
    train: tuple[float, ...]
    by_time: tuple[tuple[int, float, float, float | None, float | None], ...]
    bits: Estimate | None = None
    bits_train: Estimate | None = None

    @property
    def loss(self) -> float:
        """The mean loss of held-out images."""
        return fmean(self.held_out)


def read(lines: Sequence[dict[str, Any]]) -> tuple[list[Look], list[int]]:
    """The looks that can be compared, by rising step, and the steps at which a loss was no finite number.

    Looks at other numbers of images than the last one's are left out, since pairs need the same images.
    """
    found, broken = [], []
    for line in lines:
        held_out, train = line.get("of_held_out") or [], line.get("of_train") or []
        known = _finite(held_out) and _finite(train) and (train or line.get("train") is None)
        if not known or (line.get("held_out") is None and line.get("num_held_out")):
            broken.append(int(line["step"]))
        elif len(held_out) > 1:
            found.append(_look(line))
    sizes = [(len(look.held_out), len(look.train)) for look in found]
    return [look for look, size in zip(found, sizes, strict=True) if size == sizes[-1]], broken


def half_way(looks: Sequence[Look]) -> Look | None:
    """The look after training began from which the images seen grow most nearly twofold to the last; None if none."""
    last = looks[-1]
    earlier = [look for look in looks[:-1] if look.step > 0 and last.images >= 1.3 * look.images]
    return min(earlier, key=lambda look: abs(math.log2(last.images / look.images) - 1), default=None)


def before_repeats(looks: Sequence[Look], num_train: int) -> Look | None:
    """The look to compare later gaps with: the last of the first epoch, when no image had been seen twice.

    Where the first epoch had none, the first after training began; None where that is the last look.
    """
    trained = [look for look in looks[:-1] if look.step > 0]
    early = [look for look in trained if look.images <= num_train]
    return early[-1] if early else trained[0] if trained else None


def _look(line: dict[str, Any]) -> Look:
    times = line["times"]
    absent = [None] * len(times)
    has_train = bool(line.get("of_train"))
    rows = zip(
        times,
        line["held_out"],
        line["held_out_error"],
        line["train"] if has_train else absent,
        line["train_error"] if has_train else absent,
        strict=True,
    )
    return Look(
        step=int(line["step"]),
        images=int(line["images"]),
        held_out=tuple(line["of_held_out"]),
        train=tuple(line.get("of_train") or ()),
        by_time=tuple(rows),
        bits=_estimate(line, "bits"),
        bits_train=_estimate(line, "bits_train"),
    )


def _estimate(line: dict[str, Any], key: str) -> Estimate | None:
    value, error = line.get(key), line.get(f"{key}_error")
    return Estimate(value, error, line[f"{key}_num"] - 1.0) if is_number(value) and is_number(error) else None


def _finite(values: Sequence[Any]) -> bool:
    return all(map(is_number, values))
