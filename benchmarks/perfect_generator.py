"""How often does a page tell a perfect generator from real images, and how often a flawed one? Prints Markdown tables.

    python benchmarks/perfect_generator.py
    python benchmarks/perfect_generator.py --pages 200 --splits 8 --flawed 20 --num 299 --seed 0
    python benchmarks/perfect_generator.py --asked           # classes asked for, in place of classes at random
    python benchmarks/perfect_generator.py --patches         # the distance between patches, of images without labels

A perfect generator draws new images from the distribution that the data came from. So that any number of them can be
drawn, the distribution is made of the digits: an image of a class, moved at most half way to one of the five of
its class that are nearest to it, under noise of 4 grey levels. From it come a training split (1,498 images), a held-out
split (299), both with the digits' own numbers of each class, and sets of --num samples, whose classes are drawn at
random by these shares. A page judges 10 sets in the features of a classifier that was trained on the training split
(`unstir.metrics.measure`), as pages of 3, 6 and 10 seeds, and each figure is tested against its floor as the page of a
run does. --splits are the training splits, each with a classifier of its own; held-out images and samples are drawn
afresh for each page. A claim is a decided difference, in whichever direction. The samples of --flawed pages are spoilt.
"""

import argparse
import collections
import dataclasses
import importlib.util
import sys
import tempfile
from pathlib import Path

import torch

from unstir.data import Store
from unstir.data.embedded import EMBEDDED, load_embedded
from unstir.data.source import hold_out
from unstir.metrics.classifier import train_classifier
from unstir.metrics.features import Trust
from unstir.metrics.figures import above_floor, as_share
from unstir.metrics.measure import measure
from unstir.metrics.memorisation import memorisation
from unstir.significance import Estimate, difference

SEEDS = (3, 6, 10)
FLAWS = ("5% copies", "one class missing", "blur 0.5")


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
        "content_hash": name,
        "labelled": parts["train"][1] is not None,
    }
    return Drawn(folder / name, manifest, parts)


def spoilt(flaw, source, store, classes, generator):
    """A set of samples with a flaw, or none for None."""
    if flaw == "one class missing":
        classes = torch.where(classes == 8, torch.randint(8, classes.shape, generator=generator), classes)
    images = source.draw(classes, generator)
    if flaw == "5% copies":
        train = store.images("train")
        copied = round(0.05 * len(images))
        images[:copied] = train[torch.randperm(len(train), generator=generator)[:copied]]
    return blurred(images, 0.5) if flaw == "blur 0.5" else images


def blurred(images, deviation):
    """As `degradations` blurs them."""
    spec = importlib.util.spec_from_file_location("degradations", Path(__file__).with_name("degradations.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.blurred(images, deviation)


def claims(figures, num, seeds, num_held_out):
    """The z of every figure that a page of so many seeds tests against its floor, by key."""
    found = {}
    for key, figure in figures.items():
        some = dataclasses.replace(figure, by_seed=figure.by_seed[:seeds])
        if key == "classifier/accuracy":
            of_real = (figure.floor * (1 - figure.floor) / num_held_out) ** 0.5
            found[key] = difference(Estimate(figure.floor, of_real, num_held_out - 1.0), as_share(some, num).estimate)
        elif (effect := above_floor(some, num)) is not None:
            found[key] = effect
    return found


def page(source, network, train, folder, name, generator, *, num, flaw, asked, seeds):
    """The figures of a page, by key, and the sets and the store that they are of; patches where there is no network."""
    held_out = source.split("held_out", generator, labelled=network is not None)
    store = store_of({"train": train, "held_out": held_out}, folder, name)
    classes = [source.classes(num, asked, generator) for _ in range(seeds)]
    sets = [spoilt(flaw, source, store, each, generator) for each in classes]
    networks = []
    if network is not None:
        right = network.probabilities(held_out[0]).argmax(1) == held_out[1]
        trust = Trust(int(right.sum()), len(right), int(held_out[1].bincount().max()))
        networks = [dataclasses.replace(network, trust=trust)]
    return measure(store, sets, networks, labels=classes if asked else None), sets, store


def simulated(pages, splits, flaw, *, num, seed, asked=False, patches=False, seeds=SEEDS):
    """Fresh pages: yields the effects of each number of seeds by key, and for which copies were found."""
    source = Source()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(pages):
            generator = torch.Generator().manual_seed(seed * 100_000 + number)
            if number % -(-pages // splits) == 0:
                train = source.split("train", generator, labelled=not patches)
                store = store_of({"train": train, "held_out": train}, Path(folder), f"train{number}")
                network = None if patches else train_classifier(store, seed=number)
            figures, sets, store = page(
                source, network, train, Path(folder), str(number), generator,
                num=num, flaw=flaw, asked=asked, seeds=max(seeds),
            )  # fmt: skip
            copies = {}
            for k in seeds if flaw == "5% copies" and network is not None else ():
                held_out = store.images("held_out")
                found = memorisation(torch.cat(sets[:k]), train[0], held_out, features=network.features)
                copies[k] = found.verdict == "copies"
            yield {k: claims(figures, num, k, store.count("held_out")) for k in seeds}, copies


def table(pages, splits, flaw, **options):
    """Print how many pages made a claim, by figure and number of seeds."""
    seeds, found, done = options.get("seeds", SEEDS), collections.Counter(), 0
    deviates = collections.defaultdict(list)
    for by_seeds, copies in simulated(pages, splits, flaw, **options):
        done += 1
        if done % 5 == 0:
            counts = {k: found[k, "any figure"] for k in seeds}
            print(f"{flaw or 'perfect'}: claims of the first {done - 1} pages: {counts}", file=sys.stderr, flush=True)
        for k, effects in by_seeds.items():
            decided = [key for key, effect in effects.items() if effect.decided]
            found.update((k, key) for key in decided)
            found[k, "any figure"] += bool(decided)
            found[k, "copies by memorisation"] += copies.get(k, False)
            for key, effect in effects.items():
                deviates[k, key].append(effect.z)
    keys = list(dict.fromkeys(key for k, key in deviates))
    print(
        f"\n| {flaw or 'perfect generator'}: claims of {done} pages | " + " | ".join(f"{k} seeds" for k in seeds) + " |"
    )
    print("|---|" + "---|" * len(seeds))
    extra = ["copies by memorisation"] * (flaw == "5% copies")
    for key in ["any figure", *extra, *keys]:
        cells = []
        for k in seeds:
            z = deviates.get((k, key))
            of_z = "" if z is None else f" (z {sum(z) / len(z):+.2f} ± {torch.tensor(z).std().item():.2f})"
            cells.append(f"{found[k, key]}{of_z}")
        print(f"| {key} | " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument("--flawed", type=int, default=20)
    parser.add_argument("--num", type=int, default=299)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--asked", action="store_true")
    parser.add_argument("--patches", action="store_true")
    options = parser.parse_args()
    shared = {"num": options.num, "seed": options.seed, "asked": options.asked, "patches": options.patches}
    table(options.pages, options.splits, None, **shared)
    for flaw in FLAWS if options.flawed else ():
        table(options.flawed, 1, flaw, **shared)


if __name__ == "__main__":
    main()
