"""The processes that do one job, as a value: `Alone`, or what `unstir.torchrun_group` makes of several.

One process alone exchanges nothing, and each method says what is true of it, so that one code serves both. Processes of
a group call the same methods in the same order: what depends on files, clocks or signals is asked of the first
(`of_first`) or of all (`vote`), never decided by each for itself. What is no tensor travels as JSON.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from unstir.errors import UserError, short

if TYPE_CHECKING:
    from torch import Tensor, nn

Value = TypeVar("Value")


class LostError(Exception):
    """The job ends here, and the same command goes on: another process has ended or does not answer."""


@dataclass(frozen=True)
class Alone:
    """A group of one, number ``rank`` of ``size``, ``local`` on its machine; `jobs.torchrun.Group` is a larger one."""

    rank: int = 0
    size: int = 1
    local: int = 0

    def __str__(self) -> str:
        return f"process {self.rank} of {self.size} (counted from 0)"

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def share(self, total: int) -> slice:
        """The part of ``total`` slots that is this process's: parts differ by one slot at most, and cover all."""
        return slice(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def of_first(self, value: Value) -> Value:
        """The first process's ``value``, as JSON has it, in all of them, which wait for it without a limit."""
        return value

    def of_all(self, value: Value) -> list[Value]:
        """Every process's ``value``, as JSON has it, by their numbers; each waits for all, however long it takes."""
        return [value]

    def agree(self, values: Mapping[str, Any], remedy: str) -> None:
        """Raise UserError, in all processes, with the ``remedy``, where one's JSON ``values`` are not the first's."""
        first, *others = self.of_all(dict(values))
        for number, theirs in enumerate(others, start=1):
            keys = [key for key in {**first, **theirs} if theirs.get(key) != first.get(key)]
            if keys:
                pairs = ((key, _apart(theirs.get(key), first.get(key))) for key in keys[:8])
                said = ", ".join(f"{key} is {its}, not {due}" for key, (its, due) in pairs)
                raise UserError("", Alone(number, self.size), f"differs from the first: {said}", remedy)

    def rows_of_all(self, columns: "tuple[Tensor, ...]", part: slice, total: int) -> "tuple[Tensor, ...]":
        """Tensors [total, ...] of which each process has the rows of its ``part``: whole, in all of them, exactly."""
        return columns

    def tensors_of_first(self, tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
        """The first process's tensors by name, on the CPU, in all of them; the others' are not looked at."""
        return dict(tensors)

    def check_alike(self, tensors: "Mapping[str, Tensor]", remedy: str) -> None:
        """Raise UserError, in all processes, where one's float tensors are not the first one's, bit for bit."""

    def vote(self, signal: int | None) -> int | None:
        """Say whether this process was asked to stop, by the number of a signal; hear, in all alike, whether one was.

        Between several processes the exchange goes on while a step is computed: each call answers what was asked at the
        call before, so that nothing waits for it.
        """
        return signal

    def voted(self) -> int | None:
        """What the last `vote` asked of a group, which has no answer yet."""
        return None

    def learner(self, net: "nn.Module") -> "nn.Module":
        """What is called in place of a network that several processes train: it adds up their gradients."""
        return net

    def exchanging(self, learner: "nn.Module", last: bool) -> AbstractContextManager[None]:
        """Where a part of a batch goes forward and back: with a process's ``last`` one gradients are exchanged."""
        return nullcontext()


def _apart(ours: Any, theirs: Any) -> tuple[str, str]:
    """Two values that differ, in few letters: of long texts that begin alike the ends."""
    said = short(ours), short(theirs)
    return said if said[0] != said[1] else (f"...{str(ours)[-37:]!a}", f"...{str(theirs)[-37:]!a}")
