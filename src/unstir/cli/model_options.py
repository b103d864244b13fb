"""The options of every command that computes with the weights of a run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cyclopts import Parameter

from unstir.cli.app import say

if TYPE_CHECKING:
    from unstir.runs.model import Model
    from unstir.runs.run import Run


@Parameter(name="*", name_transform=lambda name: name.replace("_", "-"))
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which weights, where, and in which arithmetic."""

    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    """Arithmetic inside the network."""
    device: str = "auto"
    """"auto", "cpu", "cuda", "cuda:1" or "mps"."""
    checkpoint: int | None = None
    """The saved step whose weights are used; by default the newest."""
    ema: bool = True
    """Use the averaged weights where the run has them."""

    def model(self, run: "Run", guide: str | None = None) -> "Model":
        """The model of the run that these options name; errors as `Run.model`."""
        return run.model(self.checkpoint, ema=self.ema, device=self.device, dtype=self.dtype, guide=guide, say=say)


USUAL = ModelOptions()
