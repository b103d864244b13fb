"""Which of a job's processes this one is, by the environment that torchrun sets, and which of them speaks; no torch."""

import os
from dataclasses import dataclass

from unstir.errors import UserError

LOST = 75
"""The exit status of processes that end because another one did: the same command continues (EX_TEMPFAIL)."""
AGAIN = "all processes end, and the same command goes on from what is saved"


class LostError(Exception):
    """The job ends here, and the same command goes on: others are gone or do not answer, or this one cannot follow."""


@dataclass(frozen=True)
class Place:
    """Process number ``rank`` of ``size``, counted from 0, and number ``local`` of those on its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    def __str__(self) -> str:
        return named(self.rank, self.size)


def named(rank: int, size: int) -> str:
    """A process as messages name it."""
    return f"process {rank} of {size} (counted from 0)"


def place() -> Place:
    """This process's place, by RANK, WORLD_SIZE and LOCAL_RANK as torchrun sets them; 0 of 1 without these."""
    try:
        return checked_place()
    except UserError:
        return Place()


def checked_place() -> Place:
    """As `place`; UserError where the environment names no process of a job."""
    given = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    if given["WORLD_SIZE"] is None:
        return Place()
    try:
        rank, size, local = (int(text or "0") for text in given.values())
    except ValueError:
        rank = size = local = -1
    if not (0 <= rank < size and 0 <= local <= rank):
        said = ", ".join(f"{name}={text}" for name, text in given.items())
        raise UserError(f"{said} name no process of a job; start it by torchrun, or without these variables")
    return Place(rank, size, local)


_silent = False


def be_silent() -> None:
    """Let another process say how the job ended."""
    global _silent
    _silent = True


def may_speak(message: str) -> bool:
    """Whether this process says how the job ended, with a ``message``: all end for one reason, which is said once.

    Before they have met (`distributed.join`) the first to write it into torchrun's store is the one.
    """
    if _silent or place().size == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return not _silent
    from unstir.distributed.join import said_before  # which imports torch

    return not said_before(message)
