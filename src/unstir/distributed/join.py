"""How a job's processes become a group, and how they end: all well together, or all because of one."""

import atexit
import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # not in __all__
from torch.distributed.rendezvous import rendezvous

from unstir.distributed import place as places
from unstir.distributed import processes
from unstir.distributed.place import AGAIN, LostError, Place, named
from unstir.distributed.processes import Group, wait_for_all
from unstir.distributed.watch import ASKED, BEAT, FAILED, NOTHING, SUSPECTED, Watch, alive, announce, gone
from unstir.errors import UserError

GATHERING = timedelta(minutes=5)  # how long the first process waits for the last one to start
PATIENCE = timedelta(hours=24)  # how long one waits for another in an exchange: `watch` notices sooner what is wrong

_stores: list[Store] = []  # the first process may hold the others' store, which lasts as long as the process
_joined = 0  # groups so far; each has keys of its own in the store


@contextmanager
def joined(device: str = "auto") -> Iterator[None]:
    """Be one of the processes that the launcher started, until all of them leave this block; within another, nothing.

    Each takes the CUDA device of its number on its machine, unless ``device`` is "cpu". Raises UserError where there is
    none or one of the others does not come, LostError where one has ended or does not answer. An exception here ends
    the others too: within some 25 seconds no process is left.
    """
    here = places.checked_place()
    if here.size == 1 or processes.present is not None:
        yield
        return
    group = processes.present = _join(here, device)
    previous = _end_by_exception(signal.SIGTERM)
    failed = True
    try:
        yield
        group.watch.leaving = True
        wait_for_all()
        failed = False
    except BaseException as error:
        if (lost := _tell(group, error)) is None:
            raise
        raise lost from error
    finally:
        processes.present = None
        _leave(group, failed)
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _join(here: Place, device: str) -> Group:
    """Wait for all processes, make the group, and begin to watch."""
    global _joined
    _take_device(here, device)
    _joined += 1
    name = f"unstir/{_attempt()}/{_joined}"
    try:
        if not _stores:
            _stores.append(next(iter(rendezvous("env://", timeout=GATHERING)))[0])
        store = PrefixStore(name, _stores[0])
        if here.rank == 0:
            for key in (FAILED, ASKED):
                store.set(key, NOTHING)
        store.set(alive(here.rank), "0")
        _wait_for_others(store, here)
        if not dist.is_initialized():
            import torch.distributed.nn  # loaded later, its defaults would hold the group for ever

            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=store, rank=here.rank, world_size=here.size, timeout=PATIENCE)
            atexit.register(_end_group)
    except (RuntimeError, ValueError) as error:
        at, why = (os.environ.get(key) for key in ("MASTER_ADDR", "MASTER_PORT")), " ".join(str(error).split())
        raise UserError(f"{here} cannot reach the others by {':'.join(map(str, at))}: {why[:200]}") from None
    watch = Watch(here, lambda: PrefixStore(name, _connection()))
    watch.start()
    return Group(here, store, watch)


def said_before(message: str) -> bool:
    """Whether another process has written down this message, as the reason why it ends."""
    try:
        store = PrefixStore(f"unstir/{_attempt()}/said", _connection())
        return int(store.add(message, 1)) > 1
    except RuntimeError:
        return False


def _attempt() -> str:
    """The number of times that torchrun has started the processes again: its store stays, with all that is in it."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def _take_device(here: Place, device: str) -> None:
    """Make the CUDA device of this process the present one, where it computes on one."""
    if device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        raise UserError(f"{here.size} processes cannot share one Apple GPU; give device cpu, or start one process")
    if device == "cpu" or not torch.cuda.is_available():
        return
    if ":" in device:
        raise UserError(f"device={device} is one device for {here.size} processes; give cuda, and each takes its own")
    if here.local >= (count := torch.cuda.device_count()):
        few = f"{here} is number {here.local} on its machine, which has {count} CUDA devices, counted from 0"
        raise UserError(f"{few}; start one process for each (torchrun --nproc-per-node {count})")
    torch.cuda.set_device(here.local)


def _wait_for_others(store: Store, here: Place) -> None:
    """Raise UserError where one of them does not come."""
    keys = {r: alive(r) for r in range(here.size)}
    try:
        store.wait([*keys.values()], GATHERING)
    except RuntimeError:
        missing = [named(r, here.size) for r, key in keys.items() if not store.check([key])]
        waited = f"{', '.join(missing)} did not come within {GATHERING.seconds // 60} minutes"
        raise UserError(f"{waited}; look whether it was started, and reaches MASTER_ADDR") from None


def _connection() -> Store:
    """A connection to the job's store that is the watch's own: one waits while the other is waited for."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, is_master=False, timeout=timedelta(seconds=10))


def _end_by_exception(number: int) -> Any:
    """Let a signal that would end the process be an exception; what handled it before, None where something does.

    torchrun sends SIGTERM where another process has ended, and there is something to be said of that.
    """

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(number) != signal.SIG_DFL:
        return None
    return signal.signal(number, end)


def _tell(group: Group, error: BaseException) -> LostError | None:
    """Tell the others that this process ends, and why; a LostError where it is because of another one.

    Whoever tells it first says it, the others are silent.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which torchrun sends meanwhile
    lost = _is_loss(error)
    verdict = group.watch.suspect() if lost else None
    if verdict is None:
        if isinstance(error, SystemExit):
            return None
        why = " ".join(str(error).split())[:500] or type(error).__name__
        text = f"the exchange of {group.place} broke ({why}); {AGAIN}" if lost else f"{group.place}: {why}"
        with suppress(RuntimeError):  # the store may have gone too
            verdict = announce(group.store, group.place.rank, text)
    if verdict is not None and verdict.rank != group.place.rank:
        places.be_silent()
    return LostError(verdict.text if verdict is not None else text) if lost else None


def _is_loss(error: BaseException) -> bool:
    """Whether the exchange itself failed, or torchrun ends this process, as it does where another one has ended."""
    words = ("gloo", "NCCL", "Connection ")
    failed = isinstance(error, dist.DistError) or any(word in str(error) for word in words)
    return isinstance(error, SystemExit) or (isinstance(error, RuntimeError) and failed)


def _leave(group: Group, failed: bool) -> None:
    """Stop watching; after a failure the others get the time to read why, else until they have stopped too.

    torch's own group stays until the process ends (`_end_group`): what refers to it may last longer than ours.
    """
    holds_store = group.place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if failed and holds_store:
        time.sleep(3 * BEAT)
    if failed and torch.cuda.is_available():
        return  # NCCL may wait for the others for ever: the watch ends this process
    group.watch.end()
    if failed:
        atexit.unregister(_end_group)  # which would wait for what the others no longer send
        return
    with suppress(RuntimeError):  # one was ended meanwhile, or the store has gone
        if holds_store:
            group.store.wait([gone(rank) for rank in range(1, group.place.size)], timedelta(seconds=SUSPECTED))
        else:
            group.store.set(gone(group.place.rank), "")


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
