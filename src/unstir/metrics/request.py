"""What can be asked of an evaluation: each option once, for Python and for `unstir evaluate`; it needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unstir.errors import UserError
from unstir.parts import FeaturesName, Option, names_of, options_of

SEEDS = 3
OF_RUNS = "chain", "guide", "checkpoint", "seed", "batch_size", "dtype", "compile", "ema", "ema_width"
"""What says how the images of a run are drawn, and nothing about images that are there."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What of a run is to be evaluated, and how."""

    num: int = 0
    """Images per seed. 0: as many as --against has, else as are held out if these are 100 to 300, else 300; with
    --images all of them."""
    seeds: int | None = None
    """Sets of images for error bars, each with its own seed; by default 3. With --images each folder is a set. A single
    folder is divided at random into this many, by default as many as --against has, else 1."""
    chain: Mapping[str, Any] = field(default_factory=dict)
    """The settings of the chain that differ from those of `usual_chain`."""
    guide: str | None = None
    """What guidance leads away from, as `Run.model` takes it."""
    checkpoint: str = "newest"
    """The saved step whose weights are evaluated, or "newest", or "best" (of least held-out loss), or "all" for a curve
    over the saved steps."""
    fid: bool = False
    """Also measure FID, KID, Inception Score and others by the Inception network. It needs torch-fidelity (pip install
    '.[fid]') and a file of 96 MB, downloaded once."""
    fid_weights: Path | None = None
    """The file of the Inception network, if you have it; implies --fid."""
    features: tuple[FeaturesName, ...] = ()
    """Networks that measure too: inception, which --fid names, or your own as MODULE:NAME (docs/extend.md)."""
    features_options: dict[str, dict[str, Option]] = field(default_factory=dict)
    """Arguments of these networks, by the name of each and their own: --features-options.dinov2.side 224. MODULE:NAME
    is a name too."""
    split: Literal["train", "held_out"] | None = None
    """The images to compare with, by default those of training. A run with data.condition is given the conditions of
    held-out images and compared with these."""
    reference: int = 0
    """Number of images to compare with; 0: all, but with --fid on a CPU 2000 or --num."""
    memorisation: bool = True
    """Look for copies of training images."""
    against: Path | None = None
    """Another run or folder of images to compare with, evaluated before by the same protocol."""
    seed: int = 0
    """Seed of the first set, any whole number; each further set adds 1."""
    label: str | None = None
    """Class to draw, by name or number; by default each as often as the data has it. With --images the class that all
    of them show; by default the names of subfolders."""
    store: Path | None = None
    """Folder of the packed data, if it has moved; required with --images."""
    flip: bool = False
    """With --images: count mirror images of training images as copies too. A run knows what it trained on."""
    batch_size: int = 64
    """Images computed at once."""
    dtype: Literal["float32", "bfloat16", "auto"] = "auto"
    """Arithmetic inside the denoising network."""
    compile: Literal["no", "yes", "graphs"] = "no"
    """Compile it with torch.compile; graphs also records CUDA graphs on a GPU."""
    device: str = "auto"
    """"auto", "cpu", "cuda", "cuda:1" or "mps"."""
    ema: bool = True
    """Use the averaged weights where the run has them."""
    ema_width: float | None = None
    """Use an average of this width instead, a fraction of the training so far (0.05 is short, 0.2 long). The run must
    be trained with train.power_ema."""

    @property
    def inception(self) -> bool:
        """Whether figures of the Inception network are asked for."""
        return self.fid or self.fid_weights is not None or "inception" in self.features

    @property
    def networks(self) -> dict[str, dict[str, Option]]:
        """The options of each network that is asked for. Raises UserError for options of another one."""
        names = dict.fromkeys((*["inception"] * self.inception, *self.features))
        if others := self.features_options.keys() - names_of(names):
            raise UserError("features_options", min(others), "is the name of no network that measures")
        options = {name: options_of(name, self.features_options) for name in names}
        return options | ({"inception": {"file": str(self.fid_weights)}} if self.fid_weights else {})
