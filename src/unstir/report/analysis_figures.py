"""Figures of an evaluation as numbers with errors that a test can take."""

import dataclasses
import math

from unstir.metrics.evaluation import Evaluation, Figure
from unstir.report.statistics import Effect, difference
from unstir.report.wording import with_error

BOOTSTRAP_REPEATS = 20
"""What the error of a floor is known by: splits into halves, or sets drawn with replacement."""

TRUST = 5.0
"""Degrees of freedom that a bootstrap adds to those of the seeds: it sees the choice of images and nothing else.

With three seeds chance then decides as seldom as `LEVEL` says even where the bootstrap is 0.7 of the true spread.
"""

Known = tuple[float, float, float]
"""A value, its standard error, and the degrees of freedom of that."""


def same_features(evaluation: Evaluation, figure: str) -> Figure | None:
    """The figure of this name ("coverage") in the features of the main one; None where it is not there."""
    return evaluation.figures.get(f"{evaluation.main_key.split('/')[0]}/{figure}")


def known(figure: Figure) -> Known:
    """The mean over seeds as a test takes it; without any error (one seed, nothing resampled) the error is nan.

    The reference is taken as exact, for all that is compared shares it. The error is the larger of what the seeds and
    the bootstrap say, so where the bootstrap says too little it is often that of few seeds: the degrees of freedom are
    those of the seeds and of `TRUST` in the bootstrap.
    """
    df = len(figure.by_seed) - 1.0 + (0 if figure.bootstrap is None else TRUST)
    return figure.value, math.nan if figure.own_error is None else figure.own_error, max(df, 1.0)


def floor(figure: Figure, num: int) -> Known | None:
    """The floor as a test takes it; None where there is none. ``num`` is the images of a set.

    Where its error was not measured it is that of one set of as many images, for a set of real images varies about as
    much as one of generated ones.
    """
    if figure.floor is None:
        return None
    _, error, df = known(figure)
    if figure.floor_error is None:
        scale = math.sqrt(len(figure.by_seed) * num / figure.num_floor) if figure.num_floor else math.sqrt(2)
        return figure.floor, error * scale, df
    return figure.floor, figure.floor_error, BOOTSTRAP_REPEATS - 1.0


def as_share(figure: Figure, num: int) -> Figure:
    """A figure that is a share of ``num`` images, or a distance between shares: a set's error is at most 1/sqrt(4 n).

    For such a figure moves by 1/n at most when an image is exchanged (Efron & Stein 1981).
    """
    if figure.bootstrap is not None:
        return figure
    return dataclasses.replace(figure, bootstrap=0.5 / math.sqrt(num))


def figure_effect(a: Figure, b: Figure) -> Effect:
    """How much figure ``b`` is above ``a``, of other images: Welch's t."""
    return difference(known(a), known(b))


def above_floor(figure: Figure, num: int) -> Effect | None:
    """How much a figure is above that of as many real images; None where there is no such floor.

    Of fewer or more images, a distance has another bias, and what is counted by neighbours another scale.
    """
    least = floor(figure, num)
    return None if least is None or figure.num_floor != num else difference(least, known(figure))


def shown(figure: Figure) -> str:
    """Its value with the error."""
    return with_error(figure.value, figure.error)
