"""Augmented training images, and the numbers that describe to the network how each was augmented.

A network that is given these numbers can learn from augmented images without drawing such images itself: sampling gives
it zeros, the numbers of an image that was not augmented (Karras et al. 2022, app. F.2, who take a probability of 0.12
on CIFAR-10). Here are their mirrorings, scaling, rotation and translation; stretching is left out, and between pixels
is interpolated linearly, where they filter. What moves in at an edge is the image's own reflection.

    mirrored left to right    half of all images             upside down    half of the chosen
    scaled by 2^(0.2 w)       w ~ N(0, 1)                     rotated        by any angle
    moved by w / 8            of the width and the height, w ~ N(0, 1) each

Each but the first happens to an image with the probability given, all independently and in this order.
"""

import math

import torch
from torch import Tensor, nn

from unstir import randomness
from unstir.nn.config import AUGMENTATION
from unstir.randomness import Key

SCALE, SHIFT = 0.2, 0.125  # std of the scale's binary logarithm, and of a translation in parts of the side


def augmentation(seed: int, step: int, slots: Tensor, probability: float) -> Tensor:
    """How each image is augmented, float32 [B, 7] (`AUGMENTATION`): by the seed, the step and its slot, int64 [B]."""

    def key(name: str) -> Key:
        return Key(seed, f"augment {name}", step, slots)

    def chosen(name: str, share: float = 1.0) -> Tensor:
        return randomness.coin(key(f"{name}?"), share * probability).float()

    mirrored, upside_down = randomness.coin(key("mirror?"), 0.5).float(), chosen("upside down", 0.5)
    scale, right, down = randomness.normal(key("scale and shift"), (3,)).unbind(1)
    shifted, turned = chosen("shift"), chosen("rotation")
    angle = math.pi * (2 * randomness.uniform(key("rotation")) - 1) * turned
    moves = (chosen("scale") * scale, angle.cos() - 1, angle.sin(), shifted * right, shifted * down)
    return torch.stack((mirrored, upside_down, *moves), 1)


def unaugmented(num: int, device: torch.device) -> Tensor:
    """The numbers of so many images that were not augmented: zeros, float32 [num, 7]."""
    return torch.zeros(num, len(AUGMENTATION), device=device)


def transformed(images: Tensor, numbers: Tensor) -> Tensor:
    """Images [B, C, H, W] augmented as their ``numbers``, float [B, 7], say; one without augmentation as it is."""
    mirrored, upside_down, scale, cos_less_1, sin, right, down = (_each(column) for column in numbers.unbind(1))
    images = torch.where(mirrored > 0, images.flip(3), images)
    images = torch.where(upside_down > 0, images.flip(2), images)
    height, width = images.shape[2:]
    # Where each pixel comes from, in half sides from the middle: the inverse of scaling, turning and moving. No matrix
    # product and no exp2, whose rounding depends on the number of images.
    x = _middles(width, images)[None, None, None] - 2 * SHIFT * right
    y = _middles(height, images)[None, None, :, None] - 2 * SHIFT * down
    smaller, cos, aspect = (-SCALE * math.log(2) * scale).exp(), cos_less_1 + 1, height / width
    grid = torch.stack((smaller * (cos * x + sin * aspect * y), smaller * (cos * y - sin / aspect * x)), 4)[:, 0]
    moved = nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return torch.where(_each((numbers[:, 2:] != 0).any(1)), moved, images)


def _middles(pixels: int, like: Tensor) -> Tensor:
    """The middles of the pixels of a side that reaches from -1 to 1: [pixels]."""
    return (2 * torch.arange(pixels, device=like.device, dtype=like.dtype) + 1) / pixels - 1


def _each(values: Tensor) -> Tensor:
    """One value per image, [B] to [B, 1, 1, 1]."""
    return values[:, None, None, None]
