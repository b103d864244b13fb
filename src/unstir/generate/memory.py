"""Whether a batch of samples fits into memory, before and while it is drawn, and the largest that would fit."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from unstir.errors import OutOfMemoryError, UserError, asked_for, is_out_of_memory
from unstir.nn.config import ModelConfig
from unstir.nn.unet import UNet
from unstir.runs import build, resources
from unstir.runs.memory import FLOAT, SAFE, SPARE, SURE, gigabytes, on, sampled
from unstir.runs.model import Model


def check_batch(model: Model, num: int) -> None:
    """Raise UserError where ``num`` images that are sampled at once exceed the memory of the device for certain."""
    there = resources.memory(model.device)
    if SURE * num * _each(model) > there:
        raise UserError(_what_fits(model, num, resources.taken(model.device), there))


@contextmanager
def within_memory(model: Model, num: int) -> Iterator[None]:
    """Where the memory runs out for ``num`` images that are sampled at once, raise OutOfMemoryError with what fits."""
    before = resources.taken(model.device)
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fits = _what_fits(model, num, before, resources.reachable(model.device))
        raise OutOfMemoryError(f"out of memory{asked_for(error)}: {fits}") from None


def _each(model: Model) -> int:
    """Bytes that an image takes in a batch; 0 where the model's network is not of ours."""
    if "model" not in model.settings:
        return 0
    network = ModelConfig(**model.settings["model"])
    return sampled(network, model.shape, build.dtype(model.dtype, model.device)) if network.is_unet else 0


def _weights(model: Model) -> int:
    """The number of weights of a U-Net, which may not be loaded yet."""
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(ModelConfig(**model.settings["model"])).parameters())


def _what_fits(model: Model, num: int, before: int, there: int) -> str:
    """What ``num`` images at once take beside what the process had ``before``, and how many fewer would fit."""
    if not (each := _each(model)):
        return f"compute fewer images at once with --batch-size, or {resources.more(model.device)}"
    if model.device.type != "cuda":
        each += round(SPARE * each)
    rest = before + FLOAT * _weights(model)
    fits = min((round(SAFE * there) - rest) // each, num - 1)
    remedy = f"what fits: --batch-size {fits}" if fits > 0 else f"not one image fits: {resources.more(model.device)}"
    return (
        f"batch_size={num} images at once take about {gigabytes(num * each + rest)}, and this process can have "
        f"{gigabytes(there)} of {on(model.device)}; {remedy}"
    )
