"""A statement of the theory, how far the package is from it, and how far it may be."""

import inspect
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Numbers = Tensor | Sequence[float] | float


@dataclass(frozen=True)
class Check:
    """One statement and the function that measures by how much it is missed.

    ``statement`` is what should hold and ``source`` where it is from; ``compared`` says what is compared with what, and
    whether the error is relative or absolute. ``run()`` returns the worst error, at most ``tolerance`` where the
    statement holds; it raises AssertionError where a number cannot say what is wrong.
    """

    name: str
    statement: str
    source: str
    compared: str
    tolerance: float
    run: Callable[[], float]


def check(tolerance: float, source: str) -> Callable[[Callable[[], Iterator[float]]], Check]:
    """Turn a generator of errors into a check named after it; the decorator of all rows.

    The function's docstring has two paragraphs: ``statement`` and ``compared``.
    """

    def checked(errors: Callable[[], Iterator[float]]) -> Check:
        name = errors.__name__.strip("_").replace("_", "-")
        statement, _, compared = (inspect.getdoc(errors) or "").partition("\n\n")
        texts = " ".join(statement.split()), source, " ".join(compared.split())
        return Check(name, *texts, tolerance, lambda: worst(*errors()))

    return checked


@dataclass(frozen=True)
class Row:
    """The result of a check: its texts, the error and its tolerance, and the seconds that it took.

    ``failure`` is why there is no error to show (it is NaN), else empty.
    """

    theme: str
    name: str
    statement: str
    source: str
    compared: str
    error: float
    tolerance: float
    seconds: float
    failure: str = ""

    @property
    def passed(self) -> bool:
        """Whether the statement holds; an error that is NaN does not."""
        return not self.failure and self.error <= self.tolerance


def measure(check: Check, theme: str) -> Row:
    """Run a check. Whatever it raises is a row that failed, with the exception's text in it."""
    began, error, failure = time.perf_counter(), math.nan, ""
    try:
        error = float(check.run())
    except Exception as raised:
        failure = str(raised) if isinstance(raised, AssertionError) else f"{type(raised).__name__}: {raised}"
    texts = check.name, check.statement, check.source, check.compared
    seconds = time.perf_counter() - began
    return Row(theme, *texts, error, check.tolerance, seconds, " ".join(failure.split()))


def require(condition: bool, otherwise: str) -> None:
    """Fail the check with this message unless ``condition`` holds; for what is right or wrong, not near or far."""
    if not condition:
        raise AssertionError(otherwise)


def worst(*errors: float) -> float:
    """The largest of the errors, NaN if any is; the builtin ``max`` passes over a NaN that comes second."""
    return torch.tensor(errors, dtype=torch.float64).max().item()


def absolute(actual: Numbers, expected: Numbers) -> float:
    """The largest | actual - expected |; both must have one shape, so that no broadcasting hides a wrong one."""
    a, b = _pair(actual, expected)
    return (a - b).abs().max().item()


def relative(actual: Numbers, expected: Numbers) -> float:
    """The largest | actual - expected | / | expected |, element by element; 0 where both are 0."""
    a, b = _pair(actual, expected)
    return torch.where(a == b, 0.0, (a - b).abs() / b.abs()).max().item()


def relative_to_size(actual: Tensor, expected: Tensor) -> float:
    """The largest | actual - expected | over the largest | expected |: for the elements of one vector or matrix."""
    return absolute(actual, expected) / expected.abs().max().item()


def _pair(actual: Numbers, expected: Numbers) -> tuple[Tensor, Tensor]:
    a, b = (torch.as_tensor(x, dtype=torch.float64).detach() for x in (actual, expected))
    require(a.shape == b.shape, f"the shape is {list(a.shape)} where {list(b.shape)} is right")
    return a, b
