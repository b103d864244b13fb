"""Checkpoints of denoising-diffusion-pytorch (lucidrains): recognised, and refused by the layer that has no equal here.

Its U-Net begins with a 7x7 convolution, and its norms divide by the length of all channels at a place. No weights of
the network of Ho et al. 2020 compute the same, so that its checkpoints cannot be read (seen in its version 2.3).
"""

import re
from collections.abc import Mapping

from torch import Tensor

from unstir.errors import UserError
from unstir.interop.foreign import Asked, Foreign, without_prefix

MARK = "init_conv.weight"
"""The tensor by which such a checkpoint is known."""
_FOREIGN = (
    (r"init_conv\.weight", "a {side}x{side} convolution, where ours is 3x3"),
    (r"time_mlp\.0\.weights", "a time whose frequencies are random or learned"),
    (r"time_mlp\.1\.weight", "a perceptron with GELU, where ours has SiLU"),
    (r"downs\.0\.0\.block1\.norm\.g", "a norm over all channels at a place, where ours is over groups of them"),
    (r"downs\.\d+\.2\.mem_kv", "an attention with keys and values of its own"),
    (r"downs\.\d+\.2\.to_out\.0\.weight", "a linear attention"),
    (r"downs\.\d+\.3\.1\.weight", "a resizing that puts 2x2 places into channels"),
    (r"final_res_block\.block1\.proj\.weight", "a residual block behind the last level"),
)
"""Layers that have no equal here, in the order in which an image passes them, and what they are."""
SHOWN = 3


def read_lucidrains(tensors: Mapping[str, Tensor], asked: Asked, source: str) -> Foreign:
    """Raises UserError, naming the first layers that have no equal here."""
    state, _ = without_prefix(tensors, MARK)
    found = []
    for pattern, why in _FOREIGN:
        name = next((name for name in sorted(state) if re.fullmatch(pattern, name)), None)
        if name is not None and not (name == MARK and state[name].shape[-1] == 3):
            found.append(f"{name} is {why.format(side=state[name].shape[-1])}")
    first = "; ".join(found[:SHOWN]) or f"{sorted(state)[0]} is not known"
    raise UserError("", source, f"is of denoising-diffusion-pytorch, whose network has no equal here: {first}")
