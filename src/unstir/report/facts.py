"""What is known of a run, gathered from its folder into one value that pages and sentences are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from unstir.doctor import Finding
from unstir.doctor.held_out import Measurement, alike
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.figures import Figure
from unstir.metrics.likelihood import terms_of
from unstir.report.wording import passes
from unstir.runs.card import DataCard
from unstir.runs.config import Config
from unstir.runs.model import weights_in_words


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
    takes as many as ``passes`` of them, for the backward pass costs two, and a teacher takes two.
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
    it was trained on, with torch.
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
        """How many images training took: a name, the number, how often each; with a teacher it sees no data."""
        num = f"{self.cost.images:,}"
        if self.config.kind.has_teacher:
            return "images in its batches", num, "on paths of its teacher"
        return "training images seen", num, passes(self.cost.images, self.data.counts["train"])

    @cached_property
    def measured(self) -> list[Measurement]:
        """The held-out losses that can be compared with the last, by rising step."""
        return alike(self.held_out)


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


def bound_in_words(how: Mapping[str, Any]) -> str:
    """How a bound was computed, by its protocol: "all 1000 terms", and what `unstir likelihood` does if it is asked."""
    asked = ["small variance"] if how.get("variance") == "small" else []
    asked += ["estimates not clamped"] if how.get("clip") is False else []
    asked += [weights_in_words(how["ema"])] if how.get("ema", True) is not True else []
    return ", ".join((terms_of(how), *asked))
