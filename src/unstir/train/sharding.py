"""Weights, gradients, moments and averages split among processes, for networks whose training exceeds one device.

torch's fully_shard (FSDP2; Zhao et al. 2023, "PyTorch FSDP") leaves each process a part of every tensor: of n rows
along the first dimension about n / processes. A residual block or an attention is put together from all processes when
it is computed, and what its backward pass yields is added up and split again. What is kept outside of the blocks is
together from the forward pass on. A tensor that is split knows its whole shape; `local` is the part that is here.

The files are those of any other training: tensors are put together, one after another, for the first process, which
writes them, and each process takes its part of what was read.
"""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unstir.distributed import processes
from unstir.errors import UserError
from unstir.nn.blocks import Attention, ResBlock

if TYPE_CHECKING:  # importing it takes a second, and few split anything
    from torch.distributed.tensor import DTensor

TOGETHER = 2**24  # numbers that are put together at once, at least


def split(net: nn.Module, device: torch.device) -> None:
    """Leave each process its part of the parameters of a network, which are alike in all of them, on its ``device``.

    Gradients will be sums over the processes (`parallel`). The optimizer is made of the parameters that are there then.
    Raises UserError for a parameter without a dimension, of a network of the user's own, and with an older torch.
    """
    if scalars := [name for name, parameter in net.named_parameters() if not parameter.shape]:
        raise UserError(f"train.shard=true cannot split the parameter {scalars[0]}, one number; give it the shape [1]")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        older = f"train.shard=true needs torch 2.8 or newer, this is {torch.__version__}"
        raise UserError(f"{older}; upgrade torch, or leave weights whole: --train.no-shard")
    mesh = init_device_mesh(device.type, (processes.size(),))
    for module in net.modules():
        if isinstance(module, ResBlock | Attention):
            fully_shard(module, mesh=mesh)
    fully_shard(net, mesh=mesh)
    for module in net.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other


def is_split(tensor: Tensor) -> TypeGuard["DTensor"]:
    """Whether a tensor is split among the processes."""
    return hasattr(tensor, "full_tensor")


def local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Of each tensor the part that this process has, which may be empty; the whole of those that are not split."""
    return [t.to_local() if is_split(t) else t for t in tensors]


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors put together, on the CPU, in the first process, and nothing in the others: all have to call this.

    Those that are not split are as they were, in all of them.
    """
    found = {name: t for name, t in tensors.items() if not is_split(t)}
    waiting: dict[str, DTensor] = {}
    for name, t in tensors.items():
        if is_split(t):
            waiting[name] = t
        if sum(t.numel() for t in waiting.values()) > TOGETHER:
            found |= _gathered(waiting)
            waiting = {}
    found |= _gathered(waiting) if waiting else {}
    return {name: found[name] for name in tensors if name in found}


def _gathered(tensors: "Mapping[str, DTensor]") -> dict[str, Tensor]:
    """Split tensors of one type, whole in the first process, by one exchange."""
    num, parts = processes.size(), list[Tensor]()
    for t in tensors.values():
        mine, most = t.to_local().detach(), -(-t.shape[0] // num)  # the last ones have fewer rows, or none
        parts.append(nn.functional.pad(mine.flatten(), (0, (most - len(mine)) * math.prod(t.shape[1:]))))
    own = torch.cat(parts)
    rows = [torch.empty_like(own) for _ in range(num)] if processes.is_first() else None
    dist.gather(own, rows)
    if rows is None:
        return {}
    columns = torch.split(torch.stack(rows).cpu(), list(map(len, parts)), 1)
    return {
        name: torch.cat(tuple(column))[: t.numel()].view(t.shape)
        for (name, t), column in zip(tensors.items(), columns, strict=True)
    }


def clipped(parameters: Iterable[Tensor], most: float) -> Tensor:
    """The norm of all gradients before they are scaled to ``most``, where they exceed it; 0: they are not."""
    norm = nn.utils.clip_grad_norm_(parameters, most or math.inf, foreach=True)
    return norm.full_tensor() if is_split(norm) else norm


def part_of(like: Tensor, tensor: Tensor) -> Tensor:
    """This process's part of a whole ``tensor``, split as one of its shape ``like`` is, on its device.

    It lies in memory as ``like`` does: a fused optimizer takes the n-th number of each tensor, wherever that belongs.
    """
    moved = tensor.to(like.device)
    if tensor.shape != like.shape:
        return moved
    if not is_split(like):
        return moved if moved.stride() == like.stride() else torch.empty_like(like, dtype=moved.dtype).copy_(moved)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def load(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network, split or not, whole weights by their names; RuntimeError where these are not its own."""
    own: dict[str, Any] = net.state_dict()
    if not any(map(is_split, own.values())):
        net.load_state_dict(dict(weights))
        return
    for name, tensor in own.items():
        tensor.copy_(part_of(tensor, weights[name]))
