"""Which of a job's processes this one is, by the environment that torchrun sets, and which of them speaks; no torch."""

import os
from dataclasses import dataclass

from unstir.errors import UserError

LOST = 75
"""The exit status of processes that end because another one did: the same command continues (EX_TEMPFAIL)."""


class LostError(Exception):
    """The job ends here, and the same command goes on: another process has ended or does not answer."""


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


def may_speak(lost: bool) -> bool:
    """Whether this process says how the job ended: all end for one reason, which the first to end says.

    ``lost``: it ends because another one has ended.
    """
    here = place()
    if here.size == 1:
        return True
    from unstir.distributed.store import is_first_to_end  # which imports torch

    return is_first_to_end(str(here.rank), if_gone=lost)
