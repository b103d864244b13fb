"""What is known of a run, gathered from its folder into one value that pages and sentences are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any, Protocol

from unstir.doctor import Finding
from unstir.doctor.numbers import is_number
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.figures import Figure
from unstir.metrics.likelihood import terms_of
from unstir.report.wording import passes
from unstir.runs.card import DataCard
from unstir.runs.config import Config
from unstir.runs.model import weights_in_words
from unstir.significance import Estimate
from unstir.theory.loss_floor import LossFloor


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The losses at one step, mean squared errors of what the network predicts: a line of held_out.jsonl.

    ``held_out`` and ``train`` are those of each image, averaged over times, of images never and often trained on
    (``train`` is empty where it was not measured). ``by_time`` has rows (t, held-out loss, its standard error, training
    loss, its standard error), the last two None where ``train`` is empty. ``bits`` are bits per dimension of held-out
    and of training images, None where they were not computed.
    """

    step: int
    images: int
    held_out: tuple[float, ...]
    train: tuple[float, ...]
    by_time: tuple[tuple[int, float, float, float | None, float | None], ...]
    bits: tuple[Estimate, Estimate] | None

    @property
    def loss(self) -> float:
        """The mean loss of held-out images."""
        return fmean(self.held_out)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds per image by chain name (`chain_key`), on ``machine``, ``num`` images at once; ``date`` is ISO 8601."""

    seconds: dict[str, float]
    num: int
    machine: dict[str, Any]
    date: str


def chain_key(sampler: str, spacing: str, calls: int) -> str:
    """What a chain is called in `Speed.seconds`: what decides its time."""
    return f"{sampler} {spacing} {calls}"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What training took: parameters, training images seen, seconds, and floating-point operations.

    ``forward_flops`` are those of one image's forward pass, a multiplication and an addition counted as two; training
    takes as many as ``passes`` of them, for the backward pass costs two, and the teacher of a distilled run takes two.
    """

    parameters: int
    images: int
    seconds: float
    forward_flops: float
    passes: int = 3

    @property
    def training_flops(self) -> float:
        """Floating-point operations of the whole training."""
        return self.passes * self.forward_flops * self.images


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A run in figures.

    ``step`` of ``length`` optimiser steps are taken. ``metrics`` are the lines of metrics.jsonl, ``held_out`` those of
    held_out.jsonl. ``by_step`` are evaluations of several saved steps by one protocol, by rising step; ``by_chain``
    evaluations of the last of these steps by several samplers and calls, alike in everything else. ``likelihoods``
    are what `unstir likelihood` wrote, by split. ``findings`` are the doctor's, ``checked`` the names of its checks,
    ``skipped`` why others were not made, by name. ``speed`` is how long samplers take, ``trained_on`` the machines that
    it was trained on, with torch. ``floor`` is that of the training loss.
    """

    name: str
    config: Config
    data: DataCard
    step: int
    length: int
    cost: Cost
    metrics: tuple[dict[str, Any], ...]
    held_out: tuple[dict[str, Any], ...] = ()
    by_step: tuple[Evaluation, ...] = ()
    by_chain: tuple[Evaluation, ...] = ()
    likelihoods: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    checked: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    speed: Speed | None = None
    trained_on: tuple[str, ...] = ()
    floor: LossFloor | None = None

    @property
    def last(self) -> Evaluation | None:
        """The evaluation of the newest step evaluated."""
        return self.by_step[-1] if self.by_step else None

    @property
    def older(self) -> str:
        """Where the newest evaluation is of an older step than the run's: which, in words; else ""."""
        if self.last is None or self.last.step >= self.step:
            return ""
        return f"of step {self.last.step:,}, while the run is at step {self.step:,}"

    def noted(self, note: str, step: int) -> str:
        """A note to a figure of a step, with the step where it is older than the run's."""
        return "; ".join(filter(None, (note, f"of step {step:,}" if step < self.step else "")))

    @property
    def images_seen(self) -> tuple[str, str, str]:
        """How many images training took: a name, the number, how often each; a distilled run sees none of the data."""
        num = f"{self.cost.images:,}"
        if self.config.distilled:
            return "images in its batches", num, "on paths of its teacher"
        return "training images seen", num, passes(self.cost.images, self.data.counts["train"])

    @cached_property
    def measured(self) -> list[Measurement]:
        """The held-out losses that can be compared, by rising step: of the last one's times, and images, for pairs."""
        lines = [line for line in self.held_out if not _is_broken(line) and len(line.get("of_held_out") or ()) > 1]
        found = [_measurement(line) for line in lines]
        of = [(len(each.held_out), len(each.train), [t for t, *_ in each.by_time]) for each in found]
        return [each for each, one in zip(found, of, strict=True) if one == of[-1]]

    @property
    def broken(self) -> list[int]:
        """The steps at which a held-out loss was not a finite number."""
        return [int(line["step"]) for line in self.held_out if _is_broken(line)]


class Evaluated(Protocol):
    """What sentences about samples need to know: figures of a run, or of images that are there."""

    @property
    def data(self) -> DataCard:
        """What they are compared with."""

    @property
    def by_step(self) -> tuple[Evaluation, ...]:
        """Evaluations by one protocol, the newest last."""

    @property
    def last(self) -> Evaluation | None:
        """The newest one."""

    @property
    def older(self) -> str:
        """Where that is of an older step than the run's: which, in words; else ""."""


@dataclass(frozen=True)
class ImagesFacts:
    """What is known of images that no run drew: their ``name``, their figures, and the ``data`` that they were held
    against."""

    name: str
    data: DataCard
    last: Evaluation

    @property
    def by_step(self) -> tuple[Evaluation, ...]:
        """The evaluation alone."""
        return (self.last,)

    by_chain = ()
    older = ""


def same_features(evaluation: Evaluation, figure: str) -> Figure | None:
    """The figure of this name ("coverage") in the features of the main one; None where it is not there."""
    return evaluation.figures.get(f"{evaluation.main_key.split('/')[0]}/{figure}")


def more_seeds(of: Evaluation) -> str:
    """The command that makes the errors of an evaluation smaller: more sets, each of as many images as now."""
    return f"`unstir report RUN --num {of.protocol['num']} --seeds {max(10, 3 * of.protocol['seeds'])}`"


def before_repeats(measured: Sequence[Measurement], num_train: int) -> Measurement | None:
    """The measurement to compare later gaps with: the last of the first epoch, when no image had been seen twice.

    Where the first epoch had none, the first after the start; None where that is the last one.
    """
    trained = [each for each in measured[:-1] if each.step > 0]
    early = [each for each in trained if each.images <= num_train]
    return early[-1] if early else trained[0] if trained else None


def bound_in_words(how: Mapping[str, Any]) -> str:
    """How a bound was computed, by its protocol: "all 1000 terms", and what `unstir likelihood` does if it is asked."""
    asked = ["small variance"] if how.get("variance") == "small" else []
    asked += ["estimates not clamped"] if how.get("clip") is False else []
    asked += [weights_in_words(how["ema"])] if how.get("ema", True) is not True else []
    return ", ".join((terms_of(how), *asked))


def _is_broken(line: dict[str, Any]) -> bool:
    held_out, train = line.get("of_held_out") or [], line.get("of_train") or []
    known = all(map(is_number, (*held_out, *train))) and (train or line.get("train") is None)
    return not known or bool(line.get("held_out") is None and line.get("num_held_out"))


def _measurement(line: dict[str, Any]) -> Measurement:
    of_train = [line["train"], line["train_error"]] if line.get("of_train") else [[None] * len(line["times"])] * 2
    held_out, train = (
        Estimate(line[key], line[f"{key}_error"], line[f"{key}_num"] - 1.0)
        if is_number(line.get(key)) and is_number(line.get(f"{key}_error"))
        else None
        for key in ("bits", "bits_train")
    )
    return Measurement(
        step=int(line["step"]),
        images=int(line["images"]),
        held_out=tuple(line["of_held_out"]),
        train=tuple(line.get("of_train") or ()),
        by_time=tuple(zip(line["times"], line["held_out"], line["held_out_error"], *of_train, strict=True)),
        bits=(held_out, train) if held_out and train else None,
    )
