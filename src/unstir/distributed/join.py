"""How a job's processes become a group, and how they end: all well together, or because one of them has ended."""

import atexit
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # it is not in __all__

from unstir.distributed import processes
from unstir.distributed.place import LostError, Place, checked_place
from unstir.distributed.processes import Group
from unstir.distributed.store import job_store
from unstir.errors import UserError

TIMEOUT = timedelta(minutes=30)
"""How long the processes wait for each other, where they meet and where they exchange tensors."""

_joined = 0  # groups so far; each has keys of its own in the store


@contextmanager
def joined(device: str = "auto") -> Iterator[None]:
    """Be one of the processes that the launcher started, until all of them leave this block; within another, nothing.

    Each takes the CUDA device of its number on its machine, unless ``device`` is "cpu". Raises UserError where there is
    none or one of the others does not come, LostError where one has ended or does not answer.
    """
    here = checked_place()
    if here.size == 1 or processes.present is not None:
        yield
        return
    processes.present = _join(here, device)
    try:
        yield
        processes.wait_for_all()
    except BaseException as error:
        atexit.unregister(_end_group)  # which would wait for what the others no longer send
        if not _is_loss(error):
            raise
        lost = f"another process was lost ({' '.join(str(error).split())[:500]})"
        raise LostError(f"{lost}; all processes end, and the same command goes on from what is saved") from error
    finally:
        processes.present = None


def _join(here: Place, device: str) -> Group:
    """Wait for all processes, and make the group."""
    global _joined
    _take_device(here, device)
    _joined += 1
    try:
        store = PrefixStore(str(_joined), job_store(TIMEOUT))
        if not dist.is_initialized():
            import torch.distributed.nn  # loaded later, its defaults would hold the group for ever

            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=store, rank=here.rank, world_size=here.size, timeout=TIMEOUT)
            atexit.register(_end_group)
    except (RuntimeError, ValueError) as error:
        at, why = (os.environ.get(key) for key in ("MASTER_ADDR", "MASTER_PORT")), " ".join(str(error).split())
        raise UserError("", here, f"cannot reach the others by {':'.join(map(str, at))}: {why[:200]}") from None
    return Group(here, store)


def _take_device(here: Place, device: str) -> None:
    """Make the CUDA device of this process the present one, where it computes on one."""
    if device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        raise UserError(f"{here.size} processes cannot share one Apple GPU; give device cpu, or start one process")
    if device == "cpu" or not torch.cuda.is_available():
        return
    if ":" in device:
        raise UserError(
            "device", device, f"is one device for {here.size} processes", "give cuda, and each takes its own"
        )
    if here.local >= (count := torch.cuda.device_count()):
        few = f"{here} is number {here.local} on its machine, which has {count} CUDA devices, counted from 0"
        raise UserError(f"{few}; start one process for each (torchrun --nproc-per-node {count})")
    torch.cuda.set_device(here.local)


def _is_loss(error: BaseException) -> bool:
    """Whether the exchange with the others failed."""
    words = ("gloo", "NCCL", "Connection ")
    return isinstance(error, RuntimeError) and (
        isinstance(error, dist.DistError) or any(word in str(error) for word in words)
    )


def _end_group() -> None:
    """Destroy torch's group while Python still works, and wait for gloo's threads.

    A thread that has carried an exchange gives its tensors back afterwards, for which it needs Python's lock. It ends
    the process by SIGABRT where Python has begun to end by then (pytorch/pytorch#190489). The threads end with the last
    reference to the group. That must be torch's own, which lets go of Python's lock: a DistributedDataParallel, whose
    references go round in circles, would keep the lock and wait for ever, so it is collected before.
    """
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()
