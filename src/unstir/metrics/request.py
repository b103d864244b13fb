"""What can be asked of an evaluation: each option once, for Python and for `unstir evaluate`; it needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SEEDS = 3
OF_RUNS = "chain", "guide", "checkpoint", "seed", "batch_size", "dtype", "compile", "ema", "ema_width"
"""What says how the images of a run are drawn, and nothing about images that are there."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What of a run is to be evaluated, and how."""

    num: int = 0
    """Images per seed; 0: as many as --against has, else 300, or as many as are held out where these are 100 to 300;
    with --images all of them."""
    seeds: int | None = None
    """Sets of images for error bars, by default 3, each with its own seed. With --images each folder is a set; one
    alone is divided into so many at random, by default as --against was, else not at all."""
    chain: Mapping[str, Any] = field(default_factory=dict)
    """The settings of the chain that differ from those of `usual_chain`."""
    guide: str | None = None
    """What guidance leads away from, as `Run.model` takes it."""
    checkpoint: str = "newest"
    """The saved step whose weights are evaluated, "newest", or "all": each saved step, for a curve."""
    fid: bool = False
    """Also measure FID and its company by the Inception network; needs torch-fidelity (pip install '.[fid]'), and a
    file of 96 MB, downloaded once."""
    features: Path | None = None
    """The file of that network, where it is already there; implies --fid."""
    split: Literal["train", "held_out"] = "train"
    """The images to compare with; published figures take those trained on."""
    reference: int = 0
    """How many of them; 0: all, but with --fid on a CPU 2000, or --num."""
    memorisation: bool = True
    """Look for copies of training images."""
    against: Path | None = None
    """Another run or folder of images to compare with, evaluated before by the same protocol."""
    seed: int = 0
    """Seed of the first set, any whole number; the others follow it, +1 each."""
    label: str | None = None
    """Class, by name or number, for a network with classes; by default each as often as the data has it. With --images
    the class that all of them show; else the names of their subfolders say it."""
    store: Path | None = None
    """Folder of the packed data, where it has moved; with --images always."""
    flip: bool = False
    """With --images: mirror images of training images count as copies too. A run says itself what it trained on."""
    batch_size: int = 64
    """Images computed at once."""
    dtype: Literal["float32", "bfloat16", "auto"] = "auto"
    """Arithmetic inside the denoising network."""
    compile: Literal["no", "yes", "graphs"] = "no"
    """Compile it: yes, or graphs, which also records CUDA graphs on a GPU."""
    device: str = "auto"
    """"auto", "cpu", "cuda", "cuda:1" or "mps"."""
    ema: bool = True
    """Use the averaged weights where the run has them."""
    ema_width: float | None = None
    """Use an average of this width instead, a fraction of the training so far (0.05 is short, 0.2 long); needs a run
    trained with train.power_ema."""

    @property
    def inception(self) -> bool:
        """Whether figures of the Inception network are asked for."""
        return self.fid or self.features is not None
