"""Which of a job's processes this one is, by the environment that torchrun sets, and their group; torch comes later."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from unstir.errors import UserError
from unstir.group import Alone

LOST = 75
"""The exit status of processes that end because another one did: the same command continues (EX_TEMPFAIL)."""
TIMEOUT = timedelta(minutes=30)


@contextmanager
def torchrun_group(device: str = "auto", timeout: timedelta = TIMEOUT) -> Iterator[Alone]:
    """The group of the processes that torchrun started, all of which leave this block together; else `Alone`.

    Each takes the CUDA device of its number on its machine, unless ``device`` is "cpu". ``timeout`` is how long they
    wait for each other where they meet and where they exchange tensors. Raises UserError where the environment names no
    process of a job, the device is missing or another process does not come, LostError where one has ended or does not
    answer.
    """
    here = checked_place()
    if here.size == 1:
        yield here
        return
    from unstir.jobs.torchrun import joined  # which needs torch's distributed part

    with joined(here, device, timeout) as group:
        yield group


def place() -> Alone:
    """This process's place, by RANK, WORLD_SIZE and LOCAL_RANK as torchrun sets them; 0 of 1 without these."""
    try:
        return checked_place()
    except UserError:
        return Alone()


def checked_place() -> Alone:
    """As `place`; UserError where the environment names no process of a job."""
    given = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    if given["WORLD_SIZE"] is None:
        return Alone()
    try:
        rank, size, local = (int(text or "0") for text in given.values())
    except ValueError:
        rank = size = local = -1
    if not (0 <= rank < size and 0 <= local <= rank):
        said = ", ".join(f"{name}={text}" for name, text in given.items())
        raise UserError("", said, "name no process of a job", "start it by torchrun, or without these variables")
    return Alone(rank, size, local)


def may_speak(lost: bool) -> bool:
    """Whether this process says how the job ended: all end for one reason, which the first to end says.

    ``lost``: it ends because another one has ended.
    """
    here = place()
    if here.size == 1:
        return True
    from unstir.jobs.torchrun import is_first_to_end  # which imports torch

    return is_first_to_end(str(here.rank), if_gone=lost)
