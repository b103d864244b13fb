"""How a job that takes a while tells whoever waits: sentences, how far it has come, and times in words."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Say = Callable[[str], None]
"""say(sentence) receives what a person should know."""

Progress = Callable[[int, int], None]
"""progress(done, total) is called as a job goes on."""

Showing = Callable[[str, str], AbstractContextManager[Callable[..., None] | None]]
"""showing(what, unit) opens a display, which is called as `Progress`, or with a note as a third argument."""


def silently(what: str, unit: str) -> AbstractContextManager[None]:
    """No display."""
    return nullcontext()


def unsaid(sentence: str) -> None:
    """Drop a sentence."""


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    for size, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {name}" if seconds < 100 * size else f"{seconds / size:,.0f} {name}"
    return f"{seconds:.2g} seconds" if seconds < 10 else f"{seconds:.0f} seconds"
