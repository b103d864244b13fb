"""Whether a batch of samples fits into memory, before and while it is drawn, and the largest that would fit.

``guidance`` is the scale at which a batch is led away from the network without its label, in one batch with it; where
the model has a guide, that is led away from, and each of the two networks computes a batch of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from unstir.errors import OutOfMemoryError, UserError, asked_for, is_out_of_memory
from unstir.nn.config import ModelConfig
from unstir.nn.unet import UNet
from unstir.progress import counted
from unstir.runs import build, resources
from unstir.runs.memory import FLOAT, SAFE, SPARE, SURE, gigabytes, on, sampled
from unstir.runs.model import Model

PIECES = 0.35  # what the CPU's allocator may keep in pieces while images are sampled, in parts of theirs: 0.16 to 0.34


def check_batch(model: Model, num: int, guidance: float) -> None:
    """Raise UserError where ``num`` images that are sampled at once exceed the memory of the device for certain."""
    there = resources.memory(model.device)
    if SURE * num * _each(model, guidance) > there:
        raise UserError(_what_fits(model, num, guidance, resources.taken(model.device), there))


@contextmanager
def within_memory(model: Model, num: int, guidance: float) -> Iterator[None]:
    """Where the memory runs out for ``num`` images that are sampled at once, raise OutOfMemoryError with what fits."""
    before = resources.taken(model.device)
    if each := _each(model, guidance):
        resources.keep_blocks(before + num * each, model.device)
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fits = _what_fits(model, num, guidance, before, resources.reachable(model.device))
        raise OutOfMemoryError(f"out of memory{asked_for(error)}: {fits}") from None


def _each(model: Model, guidance: float) -> int:
    """Bytes that an image takes in a batch; 0 where the model's network, or its guide's, is not of ours."""
    models = [model] if model.guide is None else [model, model.guide]
    networks = [ModelConfig(**each.settings["model"]) for each in models if "model" in each.settings]
    if len(networks) < len(models) or not all(network.is_unet for network in networks):
        return 0
    dtype, scale = build.dtype(model.dtype, model.device), guidance if model.guide is None else 1.0
    return max(sampled(network, model.shape, dtype, scale) for network in networks)


def _weights(model: Model) -> int:
    """The number of weights of a U-Net, which may not be loaded yet, and of its guide."""
    with torch.device("meta"):
        own = sum(p.numel() for p in UNet(ModelConfig(**model.settings["model"])).parameters())
    return own if model.guide is None else own + _weights(model.guide)


def _what_fits(model: Model, num: int, guidance: float, before: int, there: int) -> str:
    """What ``num`` images at once take beside what the process had ``before``, and how many fewer would fit.

    Where they should have fitted the forecast is not to be trusted, and at most half of them are advised.
    """
    if not (each := _each(model, guidance)):
        return f"compute fewer images at once with --batch-size, or {resources.more(model.device)}"
    usual, most = (0.0, 0.0) if model.device.type == "cuda" else (SPARE, PIECES)
    rest = before + FLOAT * _weights(model)
    takes = num * round((1 + usual) * each) + rest
    fits = min((round(SAFE * there) - rest) // round((1 + most) * each), num - 1 if takes > there else num // 2)
    remedy = f"what fits: --batch-size {fits}" if fits > 0 else f"not one image fits: {resources.more(model.device)}"
    at_once = f"{counted(num, 'image')} at once take{'s' * (num == 1)}"
    return (
        f"batch_size={at_once} about {gigabytes(takes)}, and this process can have "
        f"{gigabytes(there)} of {on(model.device)}; {remedy}"
    )
