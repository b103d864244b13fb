"""How far a job has come, told to the one display of the context, and times, counts and sizes in words.

The command line enters its bars with `shown_by`, a library user a display of his own; without one nothing is shown.
What a person should know goes to the loggers of the modules, children of ``logging.getLogger("unstir")``.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from unstir.errors import UserError

Count = Callable[..., None]
"""count(done, total) or count(done, total, note) is called as a job goes on."""

Display = Callable[[str, str], AbstractContextManager[Count]]
"""display(what, unit) shows a job for as long as its context is entered: "sampling", counted in "steps"."""

MAX_SIDE = 4096

_display: ContextVar[Display] = ContextVar("display", default=lambda what, unit: nullcontext(lambda *_: None))


@contextmanager
def shown_by(display: Display) -> Iterator[None]:
    """In this block the jobs of this thread are shown by ``display``."""
    before = _display.set(display)
    try:
        yield
    finally:
        _display.reset(before)


def counting(what: str, unit: str) -> AbstractContextManager[Count]:
    """Show a job: ``with counting("sampling", "steps") as count: ... count(done, total)``. It may have jobs within."""
    return _display.get()(what, unit)


def counter(count: Count, total: int) -> Callable[[], None]:
    """What is called once for each of ``total`` parts of a job that is done, and tells ``count``."""
    done = itertools.count(1)
    return lambda: count(next(done), total)


def counted(number: int, one: str, several: str = "") -> str:
    """A number of things in words, "1 image" or "2000 images"; ``several`` where it is not ``one`` with an s."""
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def sized(shape: Iterable[int]) -> str:
    """The sides of an image, the height first, "24x40", or with its channels before them, "5x24x40"."""
    return "x".join(map(str, shape))


def sides(size: Any) -> tuple[int, int] | None:
    """(height, width) of 32, "24x40" or a pair, each in 1..4096; None for None, 0 or "". UserError for all else."""
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", size) if isinstance(size, str) else None
    pair = (match[1], match[2] or match[1]) if match else size if isinstance(size, tuple | list) else (size, size)
    try:
        height, width = (int(side) if isinstance(side, str) else side.__index__() for side in pair)
    except (AttributeError, ValueError):
        height = width = 0 if size is None or size == "" else -1
    fits = height == width == 0 or (min(height, width) > 0 and max(height, width) <= MAX_SIDE)
    if isinstance(size, bool) or not fits:
        raise UserError("", size, f"must be 1..{MAX_SIDE}, or a height and a width as 24x40")
    return (height, width) if height else None


def written(pair: tuple[int, int]) -> int | str:
    """The sides as settings have them: a whole number for squares, else a text."""
    return pair[0] if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it: "less than a second", "20 seconds", "3.3 minutes", "80 minutes", "231 days"."""
    for size, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds")):
        if seconds >= 2 * size:
            number = seconds / size
            return f"{number:.2g} {name}" if number < 99.5 and (size > 1 or number < 9.95) else f"{number:,.0f} {name}"
    rounded = f"{seconds:.2g}"
    return f"{rounded} second{'s' * (rounded != '1')}" if seconds >= 1 else "less than a second"


def waiting(seconds: float) -> str:
    """A forecast in words: "about 3.3 minutes", "less than a second"."""
    text = duration(seconds)
    return text if text.startswith("less") else f"about {text}"


def is_numeral(text: str) -> bool:
    """Whether a word is a number to `float`."""
    try:
        float(text)
    except ValueError:
        return False
    return True
