"""Numbers as a careful person writes them: as many digits as their error allows, with their unit."""

import math

TIMES = 10.0
"""A share of so much is no percentage any more."""


def with_error(value: float, error: float | None, sign: bool = False) -> str:
    """A value and its standard error, as "0.0212 +- 0.0003": one digit of the error, two where it begins with 1.

    Without an error, four digits.
    """
    plus = "+" if sign else ""
    if error is None or not math.isfinite(error) or error <= 0:
        return f"{value:{plus}.4g}"
    decimals = -math.floor(math.log10(error))
    leading = round(error * 10**decimals, 1)
    decimals += 1 if leading < 2 else 0
    if decimals > 6 or max(abs(value), error) >= 1e7:
        return f"{value:{plus}.3g} +- {error:.1g}"
    shown, bar = round(value, decimals) or 0.0, round(error, decimals)  # or: no "-0.00"
    return f"{shown:{plus},.{max(decimals, 0)}f} +- {bar:,.{max(decimals, 0)}f}"


def count(number: int, noun: str) -> str:
    """A number of things: "1 image", "1,280 images", "1.2 million images"."""
    plural = noun if number == 1 else f"{noun}s"
    for size, name in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number / size:.3g} {name} {plural}"
    return f"{number:,} {plural}"


def percent(share: float) -> str:
    """A share as a percentage: "0.04%", "2.6%", "93%", "99.4%", never rounded to 0 or 100; from 10 on "48 times"."""
    if not share < TIMES:
        from unstir.doctor.finding import times  # the command line, which reads this module, starts without torch

        return times(share)
    size = abs(100 * share)
    if 99 < size < 100:
        return f"{size:.1f}%" if size < 99.95 else f"{min(size, 99.99):.2f}%"
    return f"{100 * share:.2g}%" if size < 99 else f"{100 * share:,.0f}%"


def passes(images: int, num_train: int) -> str:
    """How often a training image was seen, when so many were: "128 times each image"; the one way to say it."""
    mean = images / max(num_train, 1)
    return f"{mean:,.{1 if mean < 100 else 0}f} times each image"


def duration(seconds: float) -> str:
    """A time in the unit that suits it: "less than a second", "20 seconds", "3.3 minutes", "80 minutes", "231 days"."""
    for size, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds")):
        if seconds >= 2 * size:
            number = seconds / size
            return f"{number:.2g} {name}" if number < 99.5 and (size > 1 or number < 9.95) else f"{number:,.0f} {name}"
    return f"{seconds:.2g} seconds" if seconds >= 1 else "less than a second"


def operations(number: float) -> str:
    """Floating-point operations, as "3.1 PFLOP"."""
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {prefix}FLOP"
    return f"{number / 1e6:.3g} MFLOP"


def listed(words: list[str], last: str = "and") -> str:
    """Words joined as in a sentence: "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
