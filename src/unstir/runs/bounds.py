"""The kinds of value that settings are of, with their bounds: spans of training, fractions, counts."""

import re
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

STRICT = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)
SPAN = re.compile(r"(\d+)\s*(step|epoch|image)s?")
MOST_DIGITS = 12
MOST = 1_000_000  # the greatest of most counts: beyond what any machine holds, and far below what overflows
MOST_FLOAT = 1e12  # the greatest of most numbers: products of a few such still are finite in single precision


def _normal_span(text: str) -> str:
    match = SPAN.fullmatch(text.strip())
    if match is None and re.fullmatch(r"\d{1,12}", number := text.strip()):
        raise ValueError(f'must have a unit: "{number} steps", "{number} epochs" or "{number} images"')
    if match is None and text.strip().startswith("-"):
        raise ValueError('must not be negative, but a whole number and a unit, such as "5000 steps" or "20 epochs"')
    if match is None:
        raise ValueError('must be a whole number and a unit, such as "5000 steps", "20 epochs" or "1000000 images"')
    if len(match[1].lstrip("0")) > MOST_DIGITS:
        raise ValueError(f"is beyond 10^{MOST_DIGITS}: the longest trainings saw some 10^10 images; give a shorter one")
    count, unit = int(match[1]), match[2] if int(match[1]) else "step"
    return f"{count} {unit}" + ("" if count == 1 else "s")


def _positive_span(text: str) -> str:
    if text == "0 steps":
        raise ValueError('must be more than nothing, such as "1 epoch"')
    return text


def _grey_or_rgb(channels: int) -> int:
    if channels not in (1, 3):
        raise ValueError("must be 1 (grey) or 3 (RGB)")
    return channels


Span = Annotated[str, AfterValidator(_normal_span)]
PositiveSpan = Annotated[Span, AfterValidator(_positive_span)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=MOST_FLOAT, allow_inf_nan=False)]
Epsilon = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=MOST)]
Channels = Annotated[int, AfterValidator(_grey_or_rgb)]
Ints = tuple[Annotated[int, Field(ge=0, le=MOST)], ...]
