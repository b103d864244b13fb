"""The group of a job's processes: who is in it, and what they exchange.

Without a group (`join` makes it) every function says what is true of one process alone and exchanges nothing, so that
one code serves both. Otherwise torch.distributed carries the exchange, by gloo between CPUs and by NCCL between CUDA
devices. What is no tensor travels as JSON: nothing is pickled.

All processes call the same functions in the same order. What depends on files, on the clock or on signals is therefore
asked of the first process (`of_first`) or of all (`Vote`), never decided by each for itself.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from unstir.distributed.place import Place, named
from unstir.errors import UserError, short

if TYPE_CHECKING:  # builds of torch without its distributed part train alone
    from torch.distributed import Store, Work  # type: ignore[attr-defined]  # it is not in __all__

    from unstir.distributed.watch import Asked, Watch

Value = TypeVar("Value")


@dataclass(frozen=True)
class Group:
    """The group that this process is in: its ``place`` there, the ``store`` of the job, and who watches the others."""

    place: Place
    store: "Store"
    watch: "Watch"


present: Group | None = None
"""The group of this process; only `join` changes it."""


def rank() -> int:
    """The number of this process in its group, from 0."""
    return 0 if present is None else present.place.rank


def size() -> int:
    """The number of processes in the group; 1 without one."""
    return 1 if present is None else present.place.size


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return rank() == 0


def share(total: int) -> slice:
    """The part of ``total`` slots that is this process's: all parts differ by one slot at most, and cover all."""
    return slice(total * rank() // size(), total * (rank() + 1) // size())


def wait_for_all() -> None:
    """Wait until every process has come here."""
    if present is not None:
        dist.all_reduce(torch.zeros(1))


def of_first(value: Value) -> Value:
    """The first process's ``value``, as JSON has it, in all of them; the others' are not looked at."""
    if present is None:
        return value
    text = json.dumps(value).encode() if is_first() else b""
    length = torch.tensor([len(text)])
    dist.broadcast(length, 0)
    content = torch.tensor(list(text) or [0] * int(length), dtype=torch.uint8)
    dist.broadcast(content, 0)
    found: Value = json.loads(bytes(content.tolist()))
    return found


def of_all(value: Value) -> list[Value]:
    """Every process's ``value``, as JSON has it, by their numbers."""
    if present is None:
        return [value]
    text = json.dumps(value).encode()
    length = torch.tensor([len(text)])
    dist.all_reduce(length, dist.ReduceOp.MAX)
    padded = torch.tensor(list(text.ljust(int(length))), dtype=torch.uint8)
    texts = [torch.empty_like(padded) for _ in range(size())]
    dist.all_gather(texts, padded)
    return [json.loads(bytes(each.tolist())) for each in texts]


def agree(values: Mapping[str, Any], remedy: str) -> None:
    """Raise UserError, in all processes, where one has other ``values``, as JSON has them, than the first.

    The message names the process and each key with both values, and ends with the ``remedy``.
    """
    first, *others = of_all(dict(values))
    for number, theirs in enumerate(others, start=1):
        keys = [key for key in {**first, **theirs} if theirs.get(key) != first.get(key)]
        if keys:
            pairs = ((key, _apart(theirs.get(key), first.get(key))) for key in keys[:8])
            said = ", ".join(f"{key} is {its}, not {due}" for key, (its, due) in pairs)
            raise UserError(f"{named(number, size())} differs from the first: {said}; {remedy}")


def _apart(ours: Any, theirs: Any) -> tuple[str, str]:
    """Two values that differ, in few letters: of long texts that begin alike the ends."""
    said = short(ours), short(theirs)
    return said if said[0] != said[1] else (f"...{str(ours)[-37:]!a}", f"...{str(theirs)[-37:]!a}")


def rows_of_all(columns: tuple[Tensor, ...], part: slice, total: int) -> tuple[Tensor, ...]:
    """Tensors [total, ...] of which each process has the rows of its ``part``: whole, in all of them, exactly.

    Numbers must be such as float64 holds. One exchange serves all of the columns, which lie on one device.
    """
    if present is None:
        return columns
    widths = [column[0].numel() for column in columns]
    packed = torch.zeros(total, sum(widths), dtype=torch.float64, device=columns[0].device)
    packed[part] = torch.cat([column.reshape(len(column), -1).double() for column in columns], 1)
    dist.all_reduce(packed)  # of each number one process has the value and the others 0
    whole = zip(columns, torch.split(packed, widths, 1), strict=True)
    return tuple(each.to(column.dtype).view(total, *column.shape[1:]) for column, each in whole)


def tensors_of_first(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first process's tensors by name, on the CPU, in all of them; what the others give is not looked at."""
    if present is None:
        return dict(tensors)
    kinds = of_first({name: str(t.dtype).removeprefix("torch.") for name, t in tensors.items()})
    shapes = of_first({name: list(t.shape) for name, t in tensors.items()})
    found = {}
    for name, shape in shapes.items():
        dtype = cast("torch.dtype", getattr(torch, kinds[name]))
        found[name] = tensors[name].cpu().contiguous() if is_first() else torch.empty(shape, dtype=dtype)
        dist.broadcast(found[name], 0)
    return found


def rows_to_first(own: Tensor, lengths: Sequence[int]) -> Tensor:
    """Rows of all processes, one's after another's, in the first; in the others their ``own``, [n, ...] on the CPU.

    ``lengths`` are the numbers of rows by process. All rows are of one kind; the first has some.
    """
    if not is_first():
        if len(own):
            dist.send(own.contiguous(), 0)
        return own
    parts = [own]
    for number, length in list(enumerate(lengths))[1:]:
        if length:
            parts.append(torch.empty(length, *own.shape[1:], dtype=own.dtype))
            dist.recv(parts[-1], number)
    return torch.cat(parts)


def check_alike(tensors: Mapping[str, Tensor], remedy: str) -> None:
    """Raise UserError, in all processes, where one's tensors are not the first one's, by a checksum of each.

    Tensors are of float32 or float64; the sum is that of their bits, read as integers.
    """
    if present is None:
        return
    sums = [t.detach().view(torch.int32).sum(dtype=torch.int64) for t in tensors.values()]
    first, *others = of_all(torch.stack(sums).tolist())
    for number, theirs in enumerate(others, start=1):
        unlike = [name for name, mine, its in zip(tensors, first, theirs, strict=True) if mine != its]
        if unlike:
            what = f"{len(unlike)} of {len(sums)} tensors, such as {unlike[0]}"
            raise UserError(f"{named(number, size())} differs from the first in {what}; {remedy}")


@contextmanager
def first_before_others() -> Iterator[None]:
    """A block that the others begin when the first process has left it: they find what it has made or fetched."""
    if not is_first():
        wait_for_all()
    yield
    if is_first():
        wait_for_all()


@contextmanager
def alone() -> Iterator[None]:
    """A block in which this process does by itself what all would do together, without the others."""
    global present
    group, present = present, None
    try:
        yield
    finally:
        present = group


def made_by_first(make: Callable[[], Value]) -> Value | None:
    """What ``make`` gives in the first process, which does it alone; None in the others, which wait for it.

    A UserError that it raises there is raised in all, so that all end with the status of a mistake; the first says it.
    """
    return made_by_all(make if is_first() else lambda: None)


def made_by_all(make: Callable[[], Value]) -> Value:
    """What ``make`` gives in each process, which does it without the others and then waits for them.

    A UserError that one raises is raised in all, so that all end with the status of a mistake; of those that raise one
    the process with the lowest number prints it.
    """
    mistake = None
    try:
        with alone():
            made = make()
    except UserError as error:
        mistake = error
    said = of_all(None if mistake is None else str(mistake))
    for number, text in enumerate(said):
        if text is not None:
            if rank() == number:
                _announce(text)
            wait_for_all()
            raise mistake or UserError(text)
    return made


def _announce(reason: str) -> None:
    """Write down why this process ends, before another one does that ends for the same reason."""
    if present is not None:
        from unstir.distributed.watch import announce  # which needs torch's distributed part

        announce(present.store, rank(), reason)


def follow(asked: "Asked") -> None:
    """Let ``asked`` learn within seconds that another process was asked to stop, and the others that this one was."""
    if present is not None:
        present.watch.asked = asked


class Vote:
    """Whether any process was asked to stop, answered alike in all of them.

    The exchange goes on while a step is computed: each call answers what was asked at the call before, so that nothing
    waits for it. Without a group it answers at once.
    """

    def __init__(self) -> None:
        self._asked = torch.zeros(1, dtype=torch.int64)
        self._work: Work | None = None

    def __call__(self, signal: int | None) -> int | None:
        """Say whether this process was asked, by the number of a signal, and hear whether one was."""
        if present is None:
            return signal
        heard = self.result()
        self._asked = torch.tensor([signal or 0])
        self._work = dist.all_reduce(self._asked, dist.ReduceOp.MAX, async_op=True)
        return heard

    def result(self) -> int | None:
        """What the last call asked of a group."""
        if self._work is not None:
            self._work.wait()
        return int(self._asked) or None
