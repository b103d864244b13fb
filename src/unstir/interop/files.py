"""Single files of weights: whose they are, by the names of their tensors."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from unstir.errors import UserError
from unstir.interop import report_code
from unstir.interop.foreign import Asked, Foreign
from unstir.interop.weights import read_weights
from unstir.runs import checkpoint

LUCIDRAINS = "init_conv.weight"
"""The tensor by which a checkpoint of denoising-diffusion-pytorch is known (seen in its version 2.3).

Its U-Net begins with a 7x7 convolution, and its norms divide by the length of all channels at a place. No weights of
the network of Ho et al. 2020 compute the same, so that its checkpoints cannot be imported.
"""
SHOWN = 3


def read_file(file: Path, asked: Asked) -> tuple[Foreign, str]:
    """The model in a file, and the SHA-256 (hex) of the file. UserError where it is of no program known here."""
    tensors, sha256 = read_weights(file)
    if not _has(tensors, report_code.MARK):
        raise UserError("", file, *_refusal(tensors, file))
    foreign = _read(tensors, asked, file)
    return replace(foreign, notes=(*foreign.notes, *_unnamed(tensors))), sha256


def _has(tensors: Mapping[str, Tensor], mark: str) -> bool:
    """Whether there is a tensor of this name, under whatever prefix."""
    return any(name == mark or name.endswith(f".{mark}") for name in tensors)


def _refusal(tensors: Mapping[str, Tensor], file: Path) -> tuple[str, str]:
    """Why a file cannot be imported, and what to do."""
    if _has(tensors, LUCIDRAINS):
        layer = f"{LUCIDRAINS} is a 7x7 convolution, where ours is 3x3"
        return f"is of denoising-diffusion-pytorch, whose network has no equal here: {layer}", "see docs/interop.md"
    if "conv_in.weight" in tensors:
        return "is of diffusers, whose settings lie beside it", "name the folder that has its config.json"
    if file.suffix == ".safetensors" and checkpoint.is_ours(file):
        return "is unstir's own and needs no import", "name the run that it was saved by"
    some = ", ".join(sorted(tensors)[:SHOWN])
    return f"holds {len(tensors)} tensors ({some}, ...) of no program known here", "docs/interop.md lists them"


def _unnamed(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """A note on lists of tensors beside the weights, such as those in which torch_ema keeps the average of them."""
    parts = (name.rpartition(".") for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim)
    lists = ", ".join(sorted({table for table, _, last in parts if last.isdecimal()})[:SHOWN])
    average = "if they are an average of the weights, put it into the network and save its state_dict"
    return (f"tensors without names were left out, in {lists}; {average}",) if lists else ()


def _read(tensors: Mapping[str, Tensor], asked: Asked, file: Path) -> Foreign:
    """The model of the tensors, those that lack one or have it in another shape refused."""
    try:
        return report_code.read_report(tensors, asked, str(file))
    except UserError:
        raise
    except KeyError as error:
        raise UserError("", file, f"lacks {error.args[0]}, without which it is no whole checkpoint") from None
    except (IndexError, RuntimeError, TypeError, ValueError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError("", file, f"has tensors of other shapes than such a network ({reason})") from None
