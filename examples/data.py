"""Data of your own: any torch Dataset, packed once into a store that `unstir train` takes too.

Then: unstir train digits --data.source data/discs
"""

import torch
from torch.utils.data import Dataset

from unstir import pack


class Discs(Dataset):
    """Grey images of one disc each, [1, size, size] in 0..1, and whether it is large. Item i is always the same."""

    classes = ("small", "large")

    def __init__(self, num, size=8):
        self.num, self.size = num, size

    def __len__(self):
        return self.num

    def __getitem__(self, index):
        large = index % 2
        radius = self.size * (0.35 if large else 0.2)
        centre = torch.rand(2, generator=torch.Generator().manual_seed(index)) * (self.size - 2 * radius) + radius
        y, x = torch.meshgrid(*[torch.arange(self.size) + 0.5] * 2, indexing="ij")
        distance = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2).sqrt()
        return (radius - distance + 0.5).clamp(0, 1)[None], large


if __name__ == "__main__":
    store = pack(Discs(2000), "data/discs", channels=1, license="CC0")
    print(store.count("train"), "images to train on,", store.count("held_out"), "held out, classes", store.classes)
