"""Single files of weights: whose they are, by the names of their tensors."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from unstir.errors import UserError
from unstir.interop import lucidrains, report_code
from unstir.interop.foreign import Asked, Foreign
from unstir.interop.weights import read_weights
from unstir.runs import checkpoint, mistaken

READERS: dict[str, Callable[[Mapping[str, Tensor], Asked, str], Foreign]] = {
    report_code.MARK: report_code.read_report,
    lucidrains.MARK: lucidrains.read_lucidrains,
}
"""What reads a checkpoint that has a tensor of this name, under whatever prefix."""
SHOWN = 3


def read_file(file: Path, asked: Asked) -> tuple[Foreign, str]:
    """The model in a file, and the SHA-256 (hex) of the file. UserError where it is of no program known here."""
    tensors, sha256 = read_weights(file)
    for mark, reader in READERS.items():
        if any(name == mark or name.endswith(f".{mark}") for name in tensors):
            found = _read(reader, tensors, asked, file)
            return replace(found, notes=(*found.notes, *_unnamed(tensors))), sha256
    if "conv_in.weight" in tensors:
        raise UserError(
            "", file, "is of diffusers, whose settings lie beside it", "name the folder that has its config.json"
        )
    if file.suffix == ".safetensors" and checkpoint.is_ours(file):
        run = mistaken.around(file)
        how = f"name its run, {run}" if run else "sample from the run that it was saved by"
        raise UserError(
            "", file, "is unstir's own and needs no import", f"{how}, or train from it: --train.init {file}"
        )
    some = ", ".join(sorted(tensors)[:SHOWN])
    raise UserError(
        "", file, f"holds {len(tensors)} tensors ({some}, ...) of no program known here", "docs/interop.md lists them"
    )


def _unnamed(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """A note on lists of tensors beside the weights, such as those in which torch_ema keeps the average of them."""
    parts = (name.rpartition(".") for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim)
    lists = ", ".join(sorted({table for table, _, last in parts if last.isdecimal()})[:SHOWN])
    how = "if they are an average of the weights, put it into the network and save its state_dict"
    return (f"tensors without names were left out, in {lists}; {how}",) if lists else ()


def _read(
    reader: Callable[[Mapping[str, Tensor], Asked, str], Foreign],
    tensors: Mapping[str, Tensor],
    asked: Asked,
    file: Path,
) -> Foreign:
    """What a reader makes of tensors, those that lack one or have it in another shape refused."""
    try:
        return reader(tensors, asked, str(file))
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"{file}: {error.args[0]} is missing, without which it is no whole checkpoint") from None
    except (IndexError, RuntimeError, TypeError, ValueError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file}: its tensors have other shapes than those of such a network ({reason})") from None
