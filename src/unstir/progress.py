"""How a job that takes a while tells whoever waits: sentences, how far it has come, and times in words."""

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Say = Callable[[str], None]  # say(sentence) receives what a person should know
Progress = Callable[[int, int], None]  # progress(done, total) is called as a job goes on

Showing = Callable[[str, str], AbstractContextManager[Callable[..., None] | None]]
"""showing(what, unit) opens a display, which is called as `Progress`, or with a note as a third argument."""


def silently(what: str, unit: str) -> AbstractContextManager[None]:
    """No display."""
    return nullcontext()


def counter(progress: Progress | None, total: int) -> Callable[[], None]:
    """What is called once for each part of a job that is done, and tells ``progress``."""
    done = itertools.count(1)
    return lambda: None if progress is None else progress(next(done), total)


def unsaid(sentence: str) -> None:
    """Drop a sentence."""


def counted(number: int, one: str, several: str = "") -> str:
    """A number of things in words, "1 image" or "2000 images"; ``several`` where it is not ``one`` with an s."""
    return f"{number} {one if number == 1 else several or f'{one}s'}"


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
