"""The lines of held_out.jsonl as values: the loss of the same images under the same noise at several steps of a run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from unstir.doctor.numbers import is_number
from unstir.significance import Estimate


@dataclass(frozen=True, kw_only=True)
class Measurement:
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


def read(lines: Sequence[dict[str, Any]]) -> tuple[list[Measurement], list[int]]:
    """The measurements that can be compared, by rising step, and the steps at which a loss was not a finite number.

    Only those of as many images as the last one are kept, since pairs need the same images.
    """
    found, broken = [], []
    for line in lines:
        held_out, train = line.get("of_held_out") or [], line.get("of_train") or []
        known = all(map(is_number, (*held_out, *train))) and (train or line.get("train") is None)
        if not known or (line.get("held_out") is None and line.get("num_held_out")):
            broken.append(int(line["step"]))
        elif len(held_out) > 1:
            found.append(_measurement(line))
    sizes = [(len(each.held_out), len(each.train)) for each in found]
    return [each for each, size in zip(found, sizes, strict=True) if size == sizes[-1]], broken


def half_way(measured: Sequence[Measurement]) -> Measurement | None:
    """The measurement after the start from which the images seen grow most nearly twofold to the last; or None."""
    last = measured[-1]
    earlier = [each for each in measured[:-1] if each.step > 0 and last.images >= 1.3 * each.images]
    return min(earlier, key=lambda each: abs(math.log2(last.images / each.images) - 1), default=None)


def before_repeats(measured: Sequence[Measurement], num_train: int) -> Measurement | None:
    """The measurement to compare later gaps with: the last of the first epoch, when no image had been seen twice.

    Where the first epoch had none, the first after the start; None where that is the last one.
    """
    trained = [each for each in measured[:-1] if each.step > 0]
    early = [each for each in trained if each.images <= num_train]
    return early[-1] if early else trained[0] if trained else None


def _measurement(line: dict[str, Any]) -> Measurement:
    times = line["times"]
    of_train = [line["train"], line["train_error"]] if line.get("of_train") else [[None] * len(times)] * 2
    return Measurement(
        step=int(line["step"]),
        images=int(line["images"]),
        held_out=tuple(line["of_held_out"]),
        train=tuple(line.get("of_train") or ()),
        by_time=tuple(zip(times, line["held_out"], line["held_out_error"], *of_train, strict=True)),
        bits=_bits(line, "bits"),
        bits_train=_bits(line, "bits_train"),
    )


def _bits(line: dict[str, Any], key: str) -> Estimate | None:
    value, error = line.get(key), line.get(f"{key}_error")
    return Estimate(value, error, line[f"{key}_num"] - 1.0) if is_number(value) and is_number(error) else None
