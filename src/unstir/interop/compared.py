"""Whether what was written computes what the network does, on fresh inputs."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from unstir import randomness
from unstir.diffusion.denoiser import Denoiser
from unstir.errors import UserError
from unstir.randomness import Key
from unstir.runs.model import Model

_FRESH = 3  # images
_MOST_ERROR = 1e-4  # of outputs, in parts of the largest one: what float32 explains

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # (x, network time, condition or None) to its output


def network_of(denoiser: Denoiser) -> Network:
    """The network of a denoiser as sampling calls it, in float32."""
    exact = replace(denoiser, dtype=torch.float32)
    return lambda x, t, condition: exact.raw(x, t + 1, condition)


def fresh_condition(model: Model, slots: Tensor) -> Tensor | None:
    """A condition that the network of a model knows, on the CPU, for each of ``slots``, int64 [B]."""
    if model.conditions is not None:
        zeros = model.conditions.nothing(len(slots), slots.device)
        return randomness.normal(Key(0, "export condition", 0, slots), tuple(zeros.shape[1:]))
    return slots % model.labels.known if model.labels.known else None


@torch.inference_mode()
def check_equal(model: Model, written: Network) -> float:
    """The largest difference of outputs in parts of the largest; UserError where it is above `_MOST_ERROR`."""
    slots, device = torch.arange(_FRESH), model.device
    x, t = randomness.normal(Key(0, "export", 0, slots), model.shape), slots * (model.process.T - 1) // (_FRESH - 1)
    condition = fresh_condition(model, slots)
    on_device = None if condition is None else condition.to(device)
    ours = network_of(model.denoiser)(x.to(device), t.to(device), on_device).cpu()
    error = float((written(x, t, condition) - ours).abs().max() / ours.abs().max().clamp(min=1e-30))
    if not error <= _MOST_ERROR:
        differs = f"differs from what was exported by {error:.2g} of its largest output, more than {_MOST_ERROR:g}"
        raise UserError("", model.folder, differs, "nothing was kept; please report this")
    return error
