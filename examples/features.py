"""Features of your own to judge images by: DINOv2, any network of torchvision, or a few numbers.

In the folder above this one: `PYTHONPATH=examples unstir evaluate runs/mnist --features features:dinov2`. The figures
are called by the function, FD-dinov2 and so on. Weights are downloaded once by torch.hub or torchvision.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import unstir

MEAN, DEVIATION = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


class OfImageNet(nn.Module):
    """A network that knows ImageNet, for pixels of any size: uint8 [B, 1 or 3, H, W] to features, float [B, F]."""

    def __init__(self, net: nn.Module, side: int = 224) -> None:
        super().__init__()
        self.net, self.side = net, side

    def forward(self, pixels: Tensor) -> Tensor:
        """The features of pixels, which are resized and scaled as the network was trained."""
        x = pixels.expand(-1, 3, -1, -1).float() / 255
        x = interpolate(x, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
        features: Tensor = self.net((x - MEAN.to(x)) / DEVIATION.to(x))
        return features.flatten(1)


@unstir.features
def dinov2() -> nn.Module:
    """The features of FD-DINOv2 (Stein et al. 2023): ViT-L/14, 1.2 GB."""
    return OfImageNet(torch.hub.load("facebookresearch/dinov2", "dinov2_vitl14"))


@unstir.features
def resnet18() -> nn.Module:
    """Those before the last layer of a ResNet-18: any network of torchvision will do, 45 MB."""
    from torchvision.models import ResNet18_Weights
    from torchvision.models import resnet18 as network

    net = network(weights=ResNet18_Weights.DEFAULT)
    net.fc = nn.Identity()
    return OfImageNet(net)


@unstir.features
def blocks(side: int = 4) -> Callable[[Tensor], Tensor]:
    """Sixteen numbers and no download: the mean brightness of each of ``side`` x ``side`` blocks of the image."""
    return lambda images: nn.functional.adaptive_avg_pool2d(images.float().mean(1, keepdim=True), side).flatten(1)
