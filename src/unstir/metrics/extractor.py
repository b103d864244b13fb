"""Any feature extractor of torch-fidelity's as a `Network`: CLIP, DINOv2, VGG, or one's own."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unstir.errors import UserError
from unstir.metrics.features import Network, Outputs, given
from unstir.runs.checkpoint import content_hash


@dataclass(frozen=True, eq=False)
class Extractor(Network):
    """A module that maps images, uint8 [N, 3, H, W] in 0..255, to a tuple of features, the first of which are used.

    That is torch-fidelity's interface (`FeatureExtractorBase`): ``Extractor("dinov2", FeatureExtractorDinoV2(...))``.
    Its features are the figures' own ("FD-dinov2"), and none of them is called FID. ``name`` goes into file names and
    into the identity of its features: another layer or another arithmetic of the same weights needs another name.
    ``hash`` is by default that over name, class, weights and buffers. Grey images [N, 1, H, W] are repeated in three
    channels, as reading them as RGB does.
    """

    name: str
    net: nn.Module
    hash: str = ""
    trust = None

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("-", "").isalnum():
            raise UserError(f"an extractor's name, {self.name!r}, goes into file names: letters, digits and - alone")
        self.net.eval()
        if not self.hash:
            kind = f"{self.name} {type(self.net).__qualname__}"
            object.__setattr__(self, "hash", content_hash(self.net.state_dict(), kind))

    def _check(self, images: Tensor) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise UserError(f"{given(images)}; {self.name} takes uint8 [N, 3, H, W], or [N, 1, H, W] for grey ones")

    def _batch(self, images: Tensor) -> Outputs:
        answer = self._answer(images)
        features = answer[0] if isinstance(answer, tuple) else answer
        if features.ndim != 2 or len(features) != len(images):
            raise UserError(f"{self.name} answers {list(features.shape)} for {len(images)} images; give [N, F]")
        return Outputs(features)

    def _answer(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the module says of a batch, on its own device."""
        where = next(iter(self.net.state_dict().values()), torch.empty(0)).device
        answer: Tensor | tuple[Tensor, ...] = self.net(images.to(where).expand(-1, 3, -1, -1))
        return answer
