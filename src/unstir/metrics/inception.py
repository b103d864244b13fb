"""The Inception network of published FIDs, through torch-fidelity: features and logits of images.

The network is the TensorFlow graph of 2015 that Heusel et al. 2017 took features from, as converted for torch-fidelity
(its "inception-v3-compat"). Images are uint8, resized to 299 x 299 as TensorFlow 1 did, in float32: distances of these
features are FIDs, and agree with those of `torch_fidelity.calculate_metrics`.

The published weights are a pickle, which can run anything, and torch-fidelity reads whatever file it is given so
(``weights_only=False``). Therefore its bytes are hashed before they are read, and no others reach it. Weights of one's
own go in as safetensors, which holds arrays alone; figures from them compare with no published FID.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from unstir.data.download import fetch
from unstir.errors import UserError
from unstir.metrics.learning import Progress
from unstir.runs import build

NAME = "inception-v3-compat"
URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
FEATURES, LOGITS = 2048, 1008

_LAYERS = ("2048", "logits_unbiased")
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Looked:
    """What one pass found in N images: ``features`` float64 [N, 2048] and ``logits`` float64 [N, 1008].

    The logits leave out the last layer's bias, as Inception Scores have since OpenAI's own code.
    """

    features: Tensor
    logits: Tensor


@dataclass(frozen=True, eq=False)
class Inception:
    """The network, in evaluation mode on ``device``; ``hash`` is the SHA-256 (hex) of the file of its weights."""

    net: nn.Module
    hash: str
    device: torch.device

    @property
    def name(self) -> str:
        """What its features are called, as torch-fidelity does."""
        return NAME

    def features(self, images: Tensor, batch_size: int = _BATCH, progress: Progress | None = None) -> Tensor:
        """The features of ``images``, uint8 [N, 1 or 3, H, W] in 0..255: float64 [N, 2048], as `look` finds them."""
        return self.look(images, batch_size, progress).features

    @torch.inference_mode()
    def look(self, images: Tensor, batch_size: int = _BATCH, progress: Progress | None = None) -> Looked:
        """The features and logits of ``images``, uint8 [N, C, H, W] in 0..255, computed in float32, kept in float64.

        Grey images (C = 1) are repeated in three channels, as reading them as RGB does. On a GPU convolutions may be
        in TF32, as torch's settings say, and features then differ in the fourth digit. Raises UserError for images of
        another type or number of channels.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            given = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
            raise UserError(f"images are {given}; Inception judges uint8 [N, 3, H, W], or [N, 1, H, W] for grey ones")
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be at least 1")
        features, logits = (torch.zeros(len(images), width, dtype=torch.float64) for width in (FEATURES, LOGITS))
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size].to(self.device).expand(-1, 3, -1, -1)
            part = slice(start, start + len(batch))
            features[part], logits[part] = self.net(batch)
            if progress is not None:
                progress(part.stop, len(images))
        return Looked(features, logits)


def check_installed() -> None:
    """Raise UserError where torch-fidelity, an extra of this package, is missing."""
    _extractor()


def inception(file: Path | None, say: Callable[[str], None], *, device: str = "cpu") -> Inception:
    """The network with the weights of ``file``, else of torch's hub cache, downloaded into it where they are not there.

    The cache is where torch-fidelity looks, too. ``say`` is called with a sentence on a download, and on weights that
    are not the published ones. Raises UserError where the file cannot be read or is neither the published one nor a
    safetensors file of the same tensors, offline, naming the file, its address and where to put it, and as
    `check_installed` does.
    """
    check_installed()
    on = build.device(device)
    path = _downloaded(say) if file is None else file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; name the file of Inception's weights") from None
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != SHA256:
        data = _converted(path, data, sha256)
        say(f"{path} does not hold the published Inception weights: its figures compare with no published FID")
    return Inception(_network(path, data).to(on), sha256, on)


def _downloaded(say: Callable[[str], None]) -> Path:
    """The published file in torch's hub cache, fetched if need be."""
    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(URL).path).name
    if not target.exists():
        say(f"downloading Inception's weights (96 MB) to {target}")
        try:
            fetch(URL, target, SHA256)
        except OSError as error:
            raise UserError(
                f"cannot write {target}: {error.strerror}; set TORCH_HOME, or use --features FILE"
            ) from None
        except UserError as error:
            raise UserError(f"{error}, or name it with --features FILE") from None
    return target


def _converted(path: Path, data: bytes, sha256: str) -> bytes:
    """The tensors of a safetensors file in the form that torch-fidelity reads, written here and so safe to read."""
    try:
        tensors = load_safetensors(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError):
        raise UserError(
            f"{path} is not the file of Inception's weights: its SHA-256 is {sha256}, not {SHA256}; "
            f"replace it by {URL}, or name a safetensors file of the same tensors with --features"
        ) from None
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def _extractor() -> Any:
    """The class of torch-fidelity's network."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise UserError(
            "Inception (--fid) needs torch-fidelity, which is not there: pip install 'unstir[fid]'"
        ) from None
    return FeatureExtractorInceptionV3


def _network(path: Path, data: bytes) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # the constructor draws weights before it loads these
        try:
            net: nn.Module = _extractor()(NAME, list(_LAYERS), feature_extractor_weights_path=io.BytesIO(data))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{path} holds other tensors than Inception's weights ({reason}); use {URL}") from None
    return net
