"""The group of the processes that torchrun started: what they exchange, how they meet, and how they end.

torch.distributed carries tensors, by gloo between CPUs and by NCCL between CUDA devices, within the group's timeout.
What is no tensor travels as JSON by the job's store, where a process waits without a limit for work that another one
does alone.

torch's DistributedDataParallel adds gradients up, bucket by bucket, while the backward pass goes on. It takes their
sum, not their mean: each process's loss is a sum over its slots divided by the size of the whole batch, so that the sum
is the gradient whatever sizes the parts have.
"""

import atexit
import gc
import itertools
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.distributed.nn  # loaded later, its defaults would hold the group for ever
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store, Work  # type: ignore[attr-defined]  # they are not in __all__
from torch.distributed.rendezvous import rendezvous
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from unstir.errors import UserError
from unstir.group import Alone, LostError, Value
from unstir.progress import counted, duration

logger = logging.getLogger(__name__)

_stores: list[Store] = []  # the first process may keep the others' store, which lasts as long as the process
_groups = itertools.count(1)  # each has keys of its own in the store


class Group(Alone):
    """One of several processes, which exchange values by the ``store`` of their job."""

    def __init__(self, here: Alone, store: Store) -> None:
        super().__init__(here.rank, here.size, here.local)
        self._store, self._keys = store, itertools.count()
        self._asked: tuple[Tensor, Work] | None = None

    def of_first(self, value: Value) -> Value:
        """As `Alone.of_first`."""
        key = str(next(self._keys))
        if self.is_first:
            self._store.set(key, json.dumps(value))
        chosen: Value = self._awaited(key)
        return chosen

    def of_all(self, value: Value) -> list[Value]:
        """As `Alone.of_all`."""
        number = next(self._keys)
        self._store.set(f"{number}/{self.rank}", json.dumps(value))
        values = [self._awaited(f"{number}/{rank}") for rank in range(self.size)]
        dist.all_reduce(torch.zeros(1))  # the first process may keep the store, and end next: all have read it
        return values

    def _awaited(self, key: str) -> Any:
        """The value of a key, however long it takes until another process sets it."""
        while not self._store.check([key]):  # the store's own wait would put off signals
            time.sleep(0.02)
        return json.loads(bytes(self._store.get(key)))

    def rows_of_all(self, columns: tuple[Tensor, ...], part: slice, total: int) -> tuple[Tensor, ...]:
        """As `Alone.rows_of_all`."""
        widths = [column[0].numel() for column in columns]
        packed = torch.zeros(total, sum(widths), dtype=torch.float64, device=columns[0].device)
        packed[part] = torch.cat([column.reshape(len(column), -1).double() for column in columns], 1)
        dist.all_reduce(packed)  # of each number one process has the value and the others 0
        whole = zip(columns, torch.split(packed, widths, 1), strict=True)
        return tuple(rows.to(column.dtype).view(total, *column.shape[1:]) for column, rows in whole)

    def tensors_of_first(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `Alone.tensors_of_first`."""
        kinds = {name: (str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in tensors.items()}
        received = {}
        for name, (kind, shape) in self.of_first(kinds).items():
            dtype = cast("torch.dtype", getattr(torch, kind))
            received[name] = tensors[name].cpu().contiguous() if self.is_first else torch.empty(shape, dtype=dtype)
            dist.broadcast(received[name], 0)
        return received

    def check_alike(self, tensors: Mapping[str, Tensor], remedy: str) -> None:
        """As `Alone.check_alike`."""
        sums = torch.stack([t.detach().view(torch.int32).sum(dtype=torch.int64) for t in tensors.values()]).cpu()
        sums_of_all = [torch.empty_like(sums) for _ in range(self.size)]
        dist.all_gather(sums_of_all, sums)
        first, *others = (sums.tolist() for sums in sums_of_all)
        for number, theirs in enumerate(others, start=1):
            unlike = [name for name, mine, its in zip(tensors, first, theirs, strict=True) if mine != its]
            if unlike:
                of = f"{len(unlike)} of {len(sums)} tensors, such as {unlike[0]}"
                raise UserError("", Alone(number, self.size), f"differs from the first in {of}", remedy)

    def vote(self, signal: int | None) -> int | None:
        """As `Alone.vote`."""
        heard, asked = self.voted(), torch.tensor([-1 if signal is None else signal])
        self._asked = asked, dist.all_reduce(asked, dist.ReduceOp.MAX, async_op=True)
        return heard

    def voted(self) -> int | None:
        """As `Alone.voted`."""
        if self._asked is None:
            return None
        (asked, work), self._asked = self._asked, None
        work.wait()
        return None if asked < 0 else int(asked)

    def learner(self, net: nn.Module) -> nn.Module:
        """As `Alone.learner`, by DistributedDataParallel."""
        wrapped = DistributedDataParallel(net, gradient_as_bucket_view=True)
        wrapped.register_comm_hook(None, lambda _, bucket: _sum(bucket.buffer()))
        return wrapped

    def exchanging(self, learner: nn.Module, last: bool) -> AbstractContextManager[None]:
        """As `Alone.exchanging`."""
        return nullcontext() if last else learner.no_sync()  # type: ignore[operator]


def _sum(gradients: Tensor) -> Future[Tensor]:
    """The exchange of a bucket of gradients: their sum over the processes, in their place."""
    added: Future[list[Tensor]] = dist.all_reduce(gradients, async_op=True).get_future()
    return added.then(lambda done: done.value()[0])


@contextmanager
def joined(here: Alone, device: str, timeout: timedelta) -> Iterator[Group]:
    """The group of all processes, as `torchrun_group`."""
    group = _join(here, device, timeout)
    try:
        yield group
        group.of_all(None)
    except BaseException as error:
        atexit.unregister(_end_group)  # which would wait for what the others no longer send
        if not _is_loss(error):
            raise
        lost = f"another process was lost ({' '.join(str(error).split())[:500]})"
        raise LostError(f"{lost}; all processes end, and the same command goes on from what is saved") from error


def _join(here: Alone, device: str, timeout: timedelta) -> Group:
    _take_device(here, device)
    address = ":".join(str(os.environ.get(key)) for key in ("MASTER_ADDR", "MASTER_PORT"))
    limit = f"{duration(timeout.total_seconds())} at most"
    logger.info(f"waiting for {counted(here.size - 1, 'other process', 'other processes')} at {address}, {limit}")
    try:
        store = PrefixStore(str(next(_groups)), _job_store(timeout))
        if not dist.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=store, rank=here.rank, world_size=here.size, timeout=timeout)
            atexit.register(_end_group)
    except (RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError("", here, f"cannot reach the others by {address}: {why}") from None
    return Group(here, store)


def _job_store(timeout: timedelta) -> Store:
    """The store of this attempt of the job: torchrun starts the processes again, and its store stays as it is."""
    if not _stores:
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        _stores.append(PrefixStore(f"unstir/{attempt}", next(iter(rendezvous("env://", timeout=timeout)))[0]))
    return _stores[0]


def is_first_to_end(rank: str, if_gone: bool) -> bool:
    """Whether no other process has ended with a message before this one.

    It is ``if_gone`` where the first process kept the store and has ended, with a message unless it was killed.
    """
    if not _stores and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    try:
        return bytes(_job_store(timedelta(seconds=10)).compare_set("ended", "", rank)).decode() == rank
    except RuntimeError:
        return if_gone


def _take_device(here: Alone, device: str) -> None:
    """Make the CUDA device of this process the present one, where it computes on one."""
    if device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        raise UserError("device", device, f"is one Apple GPU for {here.size} processes", {"device": "cpu"})
    if device == "cpu" or not torch.cuda.is_available():
        return
    if ":" in device:
        one = f"is one device for {here.size} processes"
        raise UserError("device", device, one, "give cuda, and each takes its own")
    if here.local >= (count := torch.cuda.device_count()):
        few = f"is number {here.local} on its machine, which has {count} CUDA devices"
        raise UserError("", here, few, f"start one process for each (torchrun --nproc-per-node {count})")
    torch.cuda.set_device(here.local)


def _is_loss(error: BaseException) -> bool:
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
