"""The Inception of published FIDs, through torch-fidelity.

It is the TensorFlow graph of 2015 that Heusel et al. 2017 took features from, as converted for torch-fidelity
(its "inception-v3-compat"). Images are resized to 299 x 299 as TensorFlow 1 did: distances of these features are FIDs.

The published weights are a pickle, which can run anything: their bytes are hashed before torch-fidelity reads them.
Weights of one's own go in as safetensors; figures from them compare with no published FID.
"""

import hashlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from unstir.data.disk import fetch
from unstir.errors import UserError, missing
from unstir.metrics.features import NEAR, Extractor, Outputs, wrong_images
from unstir.parts import features
from unstir.runs import build

logger = logging.getLogger(__name__)

NAME = "inception-v3-compat"
URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class Inception(Extractor):
    """Inception, in evaluation mode on its device; ``hash`` is the SHA-256 (hex) of the file of its weights.

    Computed in float32, kept in float64: features [N, 2048] and logits [N, 1008], which leave out the last layer's bias
    as Inception Scores have since OpenAI's own code. On a GPU, convolutions in TF32 change the features' fourth digit.
    """

    titles: ClassVar[Mapping[str, str]] = {"fd": "FID", "kid": "KID"} | {key: key for key in NEAR}

    def _batch(self, images: Tensor) -> Outputs:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise wrong_images(images, "uint8 [N, 3, H, W], or [N, 1, H, W] for grey ones")
        features, logits = self.net(images.to(self.device).expand(-1, 3, -1, -1))  # as reading grey ones as RGB does
        return Outputs(features, logits)


def installed() -> Any:
    """The class of torch-fidelity's network. Raises UserError where that extra of this package is missing."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise missing("torch-fidelity", "fid", "Inception") from None
    return FeatureExtractorInceptionV3


@features
def inception(file: str = "", *, device: str = "cpu") -> Inception:
    """The network with the weights of ``file``, else of torch's hub cache, downloaded into it where they are not there.

    Raises UserError offline, as `installed`, and where the file is neither the published one nor safetensors of the
    same tensors; OSError where it cannot be read.
    """
    network, on = installed(), build.device(device)
    path = Path(file or f"{torch.hub.get_dir()}/checkpoints/{Path(urlsplit(URL).path).name}")
    if not file and not path.exists():
        logger.info(f"downloading Inception's weights (96 MB) to {path}")
        fetch(URL, path, SHA256)
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != SHA256:
        data = _converted(path, data)
        logger.warning(f"{path} does not hold the published weights: its figures compare with no published FID")
    with torch.random.fork_rng(devices=[]):  # the constructor draws weights before it loads these
        try:
            net = network(NAME, ["2048", "logits_unbiased"], feature_extractor_weights_path=io.BytesIO(data))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError("", path, f"holds other tensors than Inception's ({reason})", f"use {URL}") from None
    return Inception(NAME, net.to(on), sha256)


def _converted(path: Path, data: bytes) -> bytes:
    """The tensors of a safetensors file in the form that torch-fidelity reads, written here and so safe to read."""
    try:
        tensors = load_safetensors(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError):
        raise UserError("", path, "holds neither the published weights nor safetensors", f"use {URL}") from None
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()
