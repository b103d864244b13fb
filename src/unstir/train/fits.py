"""How many images a step computes at once: as many as fit, tried before a new run's first step.

The trial takes steps of trainers that are thrown away, so that nothing of the run changes. On a GPU these are of
the run's size, and an error says that the memory is used up. On a CPU the system ends a process instead of refusing:
there the bytes of all tensors are counted after every operation of a step of 2 and of one of 3 images, extended
linearly to more images, and compared with the free memory. (Of 1 image torch leaves out copies that it makes of more.)
"""

import gc
import logging
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unstir.data.store import Store
from unstir.errors import OutOfMemoryError, is_out_of_memory
from unstir.group import Alone
from unstir.progress import counted, counting
from unstir.runs import build, checkpoint, resources
from unstir.runs.run import Run
from unstir.train.trainer import Trainer

logger = logging.getLogger(__name__)

SPARE = 1.25
"""Bytes that a process on a CPU takes for each byte of its tensors: kernels and the allocator need some."""
BESIDES = 200_000_000  # bytes that it takes later for charts and the code of kernels


def fitting(run: Run, store: Store, group: Alone = Alone()) -> Run:
    """The run, with a train.micro_batch that fits where it is new; its settings keep that.

    Half as many images are tried until they fit, of several processes in each. A train.micro_batch that was given is
    tried as it is. Raises OutOfMemoryError where that, or a single image, does not fit.
    """
    if not group.of_first(not checkpoint.listed(run.checkpoints, run.data.run)):
        return run
    train, share = run.config.train, -(-run.config.train.batch_size // group.size)
    most = min(train.micro_batch or share, share)
    on_cpu = build.device(train.device).type == "cpu"
    size, fits = most, extended(run, store, most, group.size) if on_cpu else taken(run, store, most)
    while size and not fits(size):
        size = -(-size // 2) if size > 1 else 0
    size = min(group.of_all(size))
    if size < most and (size == 0 or train.micro_batch):
        smaller = "train.micro_batch" if size else "model.channels"
        images = counted(most if size else 1, "image")
        raise OutOfMemoryError((smaller,), f"a step with {images} at once does not fit into memory")
    if size == most:
        return run
    run = replace(run, config=replace(run.config, train=replace(train, micro_batch=size)))
    if group.is_first:
        run.save_config()
    logger.warning(f"{most} images at once do not fit into memory: train.micro_batch is {size}")
    return run


def taken(run: Run, store: Store, share: int) -> Callable[[int], bool]:
    """What says whether steps can be taken with so many images at once on a GPU, by taking them."""

    def fits(size: int) -> bool:
        answer = _can_be_taken(run, store, share, size)
        gc.collect()
        torch.cuda.empty_cache()
        return answer

    return fits


def _can_be_taken(run: Run, store: Store, share: int, size: int) -> bool:
    try:
        trainer = trial(run, store, share, size)
        trainer.take_step()
        trainer.take_step()  # which has the optimiser's moments besides
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def extended(run: Run, store: Store, most: int, num_processes: int) -> Callable[[int], bool]:
    """What says whether a step with so many images fits into this process's share of the machine's free memory."""
    free = resources.free() / num_processes
    if 12 * build.num_parameters(run.config) > free:  # weights, gradients and a moment: trying takes them
        return lambda size: False
    tried = list[list[int]]()
    with counting("trying what fits into memory", "trials") as count:
        for done, num in enumerate((2, 3), start=1):
            tried.append(_counted(run, store, min(num, most)))
            count(done, 2)
    gc.collect()

    def fits(size: int) -> bool:
        tensors = max(two + (size - 2) * (three - two) for two, three in zip(tried[0], tried[1], strict=False))
        return SPARE * tensors + BESIDES <= free

    return fits


def _counted(run: Run, store: Store, num: int) -> list[int]:
    """The bytes of tensors after each operation of a second step of ``num`` images, while a checkpoint is copied."""
    tensors = _Tensors()
    with tensors:
        trainer = trial(run, store, num, num)
        trainer.take_step()
        saved = trainer.state.copied(run)
        tensors.bytes.clear()
        trainer.take_step()
        del saved
    return tensors.bytes


def trial(run: Run, store: Store, batch_size: int, micro_batch: int) -> Trainer:
    """A trainer of the run's settings with a batch of its own, and random weights."""
    train = replace(run.config.train, batch_size=batch_size, micro_batch=micro_batch, compile="no", init="")
    return Trainer(replace(run, config=replace(run.config, train=train)), store)


class _Tensors(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its base has no types
    """In this block ``bytes`` gets those of all tensors that were made in it and live, after each operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: list[int] = []
        self._now, self._living = 0, dict[int, weakref.ref[Any]]()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch imports its compiler, which takes seconds and nothing here needs

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device.type == "cpu":
                self._add(tensor.untyped_storage())
        self.bytes.append(self._now)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._living:
            return

        def ended(_: object) -> None:
            del self._living[key]
            self._now -= size

        self._living[key] = weakref.ref(storage, ended)
        self._now += size
