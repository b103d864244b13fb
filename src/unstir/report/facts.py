"""The facts about a run, gathered from its folder into one value that pages and sentences are made of."""

from dataclasses import dataclass
from typing import Any

from unstir.doctor import Finding
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.figures import Figure
from unstir.report.speed import Speed
from unstir.runs.card import DataCard
from unstir.runs.config import Config


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What training took: parameters, training images seen, seconds, and floating-point operations.

    ``forward_flops`` are those of one image's forward pass, a multiplication and an addition counted as two; training
    takes three times as many, for the backward pass costs two forwards.
    """

    parameters: int
    images: int
    seconds: float
    forward_flops: float

    @property
    def training_flops(self) -> float:
        """Floating-point operations of the whole training."""
        return 3 * self.forward_flops * self.images


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A run in figures.

    ``step`` of ``length`` optimiser steps are taken. ``metrics`` are the lines of metrics.jsonl, ``held_out`` those of
    held_out.jsonl. ``by_step`` are evaluations of several saved steps by one protocol, by rising step; ``by_chain``
    evaluations of the last of these steps by several samplers and calls, alike in everything else. ``likelihoods``
    are what `unstir likelihood` wrote, by split. ``findings`` are the doctor's, ``checked`` the names of its checks.
    ``speed`` is how long samplers take, ``trained_on`` the machines and versions of torch that it was trained with.
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
    likelihoods: dict[str, dict[str, Any]] | None = None
    findings: tuple[Finding, ...] = ()
    checked: tuple[str, ...] = ()
    speed: Speed | None = None
    trained_on: tuple[str, ...] = ()

    @property
    def last(self) -> Evaluation | None:
        """The evaluation of the newest step evaluated."""
        return self.by_step[-1] if self.by_step else None


def same_features(evaluation: Evaluation, figure: str) -> Figure | None:
    """The figure of this name ("coverage") in the features of the main one; None where it is not there."""
    return evaluation.figures.get(f"{evaluation.main_key.split('/')[0]}/{figure}")
