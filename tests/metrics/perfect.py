"""New images of a known distribution made of the digits, and how often pages tell them from real ones.

An image is one of a class, moved at most half way to one of the five of its class that are nearest to it, under noise
of 4 grey levels. `benchmarks/perfect_generator.py` runs the simulation at length.
"""

import dataclasses
import tempfile
from pathlib import Path

import torch

from unstir.data import Store
from unstir.data.embedded import EMBEDDED, load_embedded
from unstir.data.source import hold_out
from unstir.metrics.classifier import train_classifier
from unstir.metrics.features import Trust
from unstir.metrics.figures import above_floor
from unstir.metrics.measure import measure
from unstir.significance import Estimate, difference

SEEDS = (3, 6, 10)
NETWORKS = {}  # by (seed, number of the page) of the training split, which is the same whatever is asked


class Source:
    """The distribution: new images, uint8 [N, 1, 8, 8], of given classes."""

    def __init__(self):
        pixels, labels = load_embedded("digits")
        self.images, self.labels = torch.from_numpy(pixels).flatten(1).float(), torch.from_numpy(labels)
        names = [f"{i:04d}" for i in range(len(pixels))]
        held = torch.zeros(len(pixels), dtype=torch.bool)
        held[list(hold_out(names, labels.tolist(), EMBEDDED["digits"].held_out, 0))] = True
        self.numbers = {"train": self.labels[~held].bincount(), "held_out": self.labels[held].bincount()}
        self.members = [(self.labels == k).nonzero()[:, 0] for k in range(10)]
        self.near = torch.empty(len(pixels), 5, dtype=torch.int64)
        for index in self.members:
            distance = torch.cdist(self.images[index], self.images[index])
            self.near[index] = index[distance.topk(6, largest=False).indices[:, 1:]]

    def draw(self, classes, generator):
        """One new image of each of the ``classes``, int64 [N]."""
        uniform = torch.rand(3, len(classes), generator=generator)
        sizes = torch.tensor([len(index) for index in self.members])[classes]
        first = torch.nn.utils.rnn.pad_sequence(self.members, batch_first=True)[classes, (uniform[0] * sizes).long()]
        second = self.near[first, (uniform[1] * 5).long()]
        mixed = self.images[first].lerp(self.images[second], uniform[2][:, None] / 2)
        mixed += 4 * torch.randn(mixed.shape, generator=generator)
        return mixed.round().clamp(0, 255).byte().view(-1, 1, 8, 8)

    def split(self, part, generator, labelled=True):
        """As many images of each class as a split of the digits has, and their labels; or as many of any class."""
        labels = torch.arange(10).repeat_interleave(self.numbers[part])
        if not labelled:
            labels = self.classes(len(labels), False, generator)
            return self.draw(labels, generator), None
        return self.draw(labels, generator), labels

    def classes(self, num, asked, generator):
        """The classes of a set of samples: at random by the shares of the training split, or in fixed shares."""
        if asked:
            order = torch.randperm(299, generator=torch.Generator().manual_seed(0))
            return torch.arange(10).repeat_interleave(self.numbers["held_out"])[order[:num]]
        shares = self.numbers["train"].double()
        return torch.multinomial(shares, num, replacement=True, generator=generator)


@dataclasses.dataclass(frozen=True)
class Drawn(Store):
    """A store in memory; ``parts`` has images and labels."""

    parts: dict

    def images(self, split):
        """See Store."""
        return self.parts[split][0]

    def labels(self, split):
        """See Store."""
        return self.parts[split][1]


def store_of(parts, folder, name):
    """A store of images and labels by split, whose statistics are kept in ``folder``."""
    (folder / name).mkdir()
    manifest = {
        "counts": {part: len(images) for part, (images, _) in parts.items()},
        "classes": [str(k) for k in range(10)] if parts["train"][1] is not None else [],
        "shape": [1, 8, 8],
        "scale": [],
        "content_hash": name,
        "labelled": parts["train"][1] is not None,
    }
    return Drawn(folder / name, manifest, parts)


def claims(figures, num, seeds, num_held_out):
    """The z of every figure that a page of so many seeds tests against its floor, by key."""
    found = {}
    for key, figure in figures.items():
        some = dataclasses.replace(figure, by_seed=figure.by_seed[:seeds])
        if key == "classifier/accuracy":
            of_real = (figure.floor * (1 - figure.floor) / num_held_out) ** 0.5
            found[key] = difference(Estimate(figure.floor, of_real, num_held_out - 1.0), some.estimate)
        elif (effect := above_floor(some, num)) is not None:
            found[key] = effect
    return found


def page(source, network, train, folder, name, generator, *, num, draw, asked, seeds):
    """The figures of a page, by key, and the sets and the store that they are of; patches where there is no network."""
    held_out = source.split("held_out", generator, labelled=network is not None)
    store = store_of({"train": train, "held_out": held_out}, folder, name)
    classes = [source.classes(num, asked, generator) for _ in range(seeds)]
    sets = [draw(source, store, labels, generator) for labels in classes]
    networks = []
    if network is not None:
        right = network.classes_of(held_out[0]) == held_out[1]
        trust = Trust(int(right.sum()), len(right), int(held_out[1].bincount().max()))
        networks = [dataclasses.replace(network, trust=trust)]
    return measure(store, sets, networks, labels=classes if asked else None), sets, store


def faithful(source, store, classes, generator):
    """A set of samples of a perfect generator."""
    return source.draw(classes, generator)


def simulated(pages, splits, *, num, seed, draw=faithful, asked=False, patches=False, seeds=SEEDS):
    """Fresh pages: yields the effects of each number of seeds by key, the sets, their store and the network."""
    source = Source()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(pages):
            generator = torch.Generator().manual_seed(seed * 100_000 + number)
            if number % -(-pages // splits) == 0:
                train = source.split("train", generator, labelled=not patches)
                store = store_of({"train": train, "held_out": train}, Path(folder), f"train{number}")
                if not patches and (seed, number) not in NETWORKS:
                    NETWORKS[seed, number] = train_classifier(store, seed=number)
                network = None if patches else NETWORKS[seed, number]
            figures, sets, store = page(
                source, network, train, Path(folder), str(number), generator,
                num=num, draw=draw, asked=asked, seeds=max(seeds),
            )  # fmt: skip
            yield {k: claims(figures, num, k, store.count("held_out")) for k in seeds}, sets, store, network
