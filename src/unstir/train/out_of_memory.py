"""Memory that runs out for a grid, a held-out loss or a full checkpoint: what it was for, what is saved, what helps.

Of the rest of a training (slim weights, charts) nothing is known but the forecast of the whole,
which is what is said there (`unstir.runs.memory.within_memory`).

A step is repeated with a smaller part of its batch (`micro_batch`), and a run remembers that. Grids and held-out losses
are made as they were asked for, or not at all: in other batches they have other last bits, and would depend on what
memory there was.
"""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from unstir.errors import OutOfMemoryError, asked_for, is_out_of_memory
from unstir.progress import counted
from unstir.runs import checkpoint, resources
from unstir.runs.memory import gigabytes, grid_that_fits, on
from unstir.runs.run import Run

HOST = torch.device("cpu")  # where a checkpoint is written from, whatever the run is trained on


@contextmanager
def for_grid(run: Run, step: int, device: torch.device) -> Iterator[None]:
    """Where the memory runs out in this block, raise OutOfMemoryError with how many images of a grid would fit."""
    num, before = run.config.grids.num, resources.taken(device)
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fits = grid_that_fits(run.config, run.data.shape, device, before, resources.reachable(device))
        what = f"the grid of step {step}, whose {_images(num)} drawn at once"
        raise _refusal(run, device, error, what, *([f"--grids.num {fits}"] if fits else [])) from None


@contextmanager
def for_held_out(run: Run, step: int, device: torch.device, num: int, size: int) -> Iterator[None]:
    """Where the memory runs out in this block, raise OutOfMemoryError; the held-out loss of ``num`` images of each
    split is measured in it, ``size`` at once.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        at_once = min(num, size)
        what = f"the held-out loss of step {step}, of {counted(num, 'image')}, {at_once} at once"
        fewer = f"--log.held_out_images {num // 2}" if num > 3 else "--log.held_out_images 0"
        smaller = [f"--train.micro_batch {at_once // 2}"] if at_once > 1 else []
        raise _refusal(run, device, error, what, *smaller, fewer) from None


@contextmanager
def for_checkpoint(run: Run, step: int) -> Iterator[None]:
    """Where the memory runs out in this block, which writes the checkpoint of a step, raise OutOfMemoryError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise _refusal(run, HOST, error, f"the checkpoint of step {step}") from None


def _refusal(run: Run, device: torch.device, error: BaseException, what: str, *less: str) -> OutOfMemoryError:
    """What ran out, what is saved, and the remedies: commands that take ``less``, by an option each; more memory.

    They are commands of `unstir train`, which continues a distilled run too and changes the settings of a finished one.
    """
    there = f"this process can have {gigabytes(resources.reachable(device))} of {on(device)}"
    saved = checkpoint.listed(run.checkpoints)
    kept = f"{saved[-1][1]} is whole" if saved else "nothing was trained yet"
    commands = [f"unstir train --out {shlex.quote(str(run.path))} {option}" for option in less]
    more = f"{resources.more(device)}, then give the same command again"
    remedies = "; or ".join([*commands, more])
    return OutOfMemoryError(f"out of memory{asked_for(error)}, for {what}, and {there}; {kept}; to go on: {remedies}")


def _images(num: int) -> str:
    return "one image is" if num == 1 else f"{num} images are"
