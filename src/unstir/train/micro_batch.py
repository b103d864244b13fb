"""How many images are computed at once: train.micro_batch, and less from the step on that ran out of memory.

A gradient is added up over the micro-batches of a batch, and sums over other parts have other last bits. Each halving
is therefore an event of the run, and the size a function of the step: a run that goes back to a checkpoint from before
a halving halves at the same step again, whatever memory there is.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from unstir.distributed import processes
from unstir.errors import OutOfMemoryError, asked_for, is_out_of_memory
from unstir.runs import resources
from unstir.runs.config import Config
from unstir.runs.memory import OneImageError, at_once
from unstir.runs.run import Run

OF_MEMORY = ("train.micro_batch", "train.activation_checkpointing", "train.compile", "train.device")
"""The settings that decide how much memory a step takes. A run that changes one of them starts from its
train.micro_batch again."""

NO_KERNEL = "could not create a primitive"
"""What oneDNN says where there is no memory for a compiled kernel. Some processes can make no further one afterwards,
however much memory comes free."""

Result = TypeVar("Result")


def halvings(run: Run) -> list[tuple[int, int]]:
    """The halvings (step, size) in a run's events: from this step on, 1 is the first, so many images at once."""
    found = list[tuple[int, int]]()
    for event in run.log("events").lines:
        if event["event"] == "changed" and any(key in event for key in OF_MEMORY):
            found.clear()
        elif event["event"] == "halved":
            found.append((event["step"], event["micro_batch"]))
    return found


def in_effect(run: Run, changed: Collection[str] = ()) -> Config:
    """The run's config with the micro-batch at which it has arrived; events do not tell yet of keys ``changed`` now."""
    train, begins = run.config.train, any(key in changed for key in OF_MEMORY)
    sizes = [] if begins else [size for _, size in halvings(run)]
    least = min([train.batch_size, *sizes]) if sizes else train.micro_batch
    return replace(run.config, train=replace(train, micro_batch=least))


class MicroBatch:
    """The size of the micro-batch at every step of a training with ``config``, with its `halvings` so far.

    A process that can make no kernel calls ``record(step=, micro_batch=)`` and ends.
    """

    def __init__(
        self, config: Config, halved: Sequence[tuple[int, int]] = (), record: Callable[..., None] = lambda **_: None
    ) -> None:
        train, self._record = config.train, record
        self._share = at_once(replace(train, micro_batch=0))  # more is not there to be computed
        self._compiled = train.compile in ("yes", "graphs")
        self._first, self._halved = train.micro_batch or train.batch_size, [(step, size) for step, size in halved]

    @classmethod
    def of(cls, run: Run) -> "MicroBatch":
        """That of a ``run``, whose halvings the first process alone reads."""
        return cls(run.config, processes.of_first(halvings(run)), partial(run.record, "halved"))

    def at(self, step: int) -> int:
        """How many images are computed at once for step number ``step``, of which 1 is the first."""
        return min([self._first, *(size for since, size in self._halved if since <= step)])

    def fitting(self, gradient: Callable[[int], Result], step: int, net: nn.Module) -> tuple[Result, str]:
        """What ``gradient(size)`` of ``net`` gives for a step, and in words by which size; "" where it is that of `at`.

        Where the memory runs out it is computed again, with half the size. It must change nothing but gradients, which
        it begins at zero, and buffers, which are set back. Raises OneImageError at size 1, and the error itself in one
        of several processes: the others wait for its gradients, so that it cannot repeat the step.
        Raises OutOfMemoryError where no size helps because this process can make no kernel (`NO_KERNEL`): the halving
        is recorded, to half of the size at which that began, and the same command takes that step so.
        """
        buffers = [buffer.clone() for buffer in net.buffers()]
        first = size = min(self.at(step), self._share)
        asked, after_kernel = "", 0
        while True:
            try:
                result = gradient(size)
                break
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or processes.size() > 1:
                    raise
                half, no_kernel = -(-size // 2), NO_KERNEL in str(error)
                after_kernel = after_kernel or (half if no_kernel else 0)
                if size == 1 and no_kernel and first > 1:
                    self._record(step=step, micro_batch=after_kernel)
                    again = "run the same command again, which goes on so"
                    raise OutOfMemoryError(f"{_said(step, asked, after_kernel, first)}; {again}") from None
                if size == 1:
                    raise OneImageError(str(error)) from error
                size, asked = half, asked_for(error)
            self._undo(net, buffers)  # out here, for the error holds all that was computed
        if size == first:
            return result, ""
        self._halved.append((step, size))
        return result, _said(step, asked, size, first)

    @torch.no_grad()
    def _undo(self, net: nn.Module, buffers: list[Tensor]) -> None:
        for buffer, before in zip(net.buffers(), buffers, strict=True):
            buffer.copy_(before)
        if self._compiled:
            torch.compiler.reset()  # as in a process that goes on from here
        device = next(net.parameters()).device
        if device.type == "cpu":
            resources.return_blocks_at_once()
        resources.release(device)


def _said(step: int, asked: str, size: int, first: int) -> str:
    less = f"from there on train.micro_batch is {size} in place of {first}"
    return f"out of memory at step {step}{asked}: {less}, which changes the memory and not the batch"
