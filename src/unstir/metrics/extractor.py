"""Any feature extractor of torch-fidelity's as a `Network`: CLIP, DINOv2, VGG, or one's own."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from unstir.errors import UserError
from unstir.runs.checkpoint import content_hash


@dataclass(frozen=True, eq=False)
class Extractor:
    """A module that maps images, uint8 [N, 3, H, W] in 0..255, to a tuple of features, the first of which are used.

    That is torch-fidelity's interface (`FeatureExtractorBase`): ``Extractor("dinov2", FeatureExtractorDinoV2(...))``.
    Its features are the figures' own ("FD-dinov2"), and none of them is called FID. ``name`` goes into file names and
    into the identity of its features: another layer or another arithmetic of the same weights needs another name.
    """

    name: str
    net: nn.Module

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("-", "").isalnum():
            raise UserError(f"an extractor's name, {self.name!r}, goes into file names: letters, digits and - alone")
        self.net.eval()

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) over name, class, weights and buffers."""
        return content_hash(self.net.state_dict(), f"{self.name} {type(self.net).__qualname__}")

    @torch.inference_mode()
    def features(self, images: Tensor, batch_size: int = 64) -> Tensor:
        """The features of ``images``, uint8 [N, 1 or 3, H, W]: float64 [N, F]; grey ones are repeated in 3 channels.

        Raises UserError for images of another type or a module that does not answer with features [N, F].
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            given = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
            raise UserError(f"images are {given}; {self.name} judges uint8 [N, 3, H, W], or [N, 1, H, W] for grey ones")
        where = next(iter(self.net.state_dict().values()), torch.empty(0)).device
        parts = []
        for batch in torch.split(images, batch_size):
            answer = self.net(batch.to(where).expand(-1, 3, -1, -1))
            first = answer[0] if isinstance(answer, tuple) else answer
            if first.ndim != 2 or len(first) != len(batch):
                raise UserError(f"{self.name} answers {list(first.shape)} for {len(batch)} images; give [N, F]")
            parts.append(first.double().cpu())
        return torch.cat(parts)
