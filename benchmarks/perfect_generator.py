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
import functools
import sys
from pathlib import Path

import torch

from degradations import blurred
from unstir.metrics.memorisation import memorisation

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/metrics"))
from perfect import SEEDS, simulated

FLAWS = ("5% copies", "one class missing", "blur 0.5")


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


def table(pages, splits, flaw, **options):
    """Print how many pages made a claim, by figure and number of seeds."""
    seeds, found, done = options.get("seeds", SEEDS), collections.Counter(), 0
    deviates = collections.defaultdict(list)
    for by_seeds, sets, store, network in simulated(pages, splits, draw=functools.partial(spoilt, flaw), **options):
        done += 1
        if done % 5 == 0:
            counts = {k: found[k, "any figure"] for k in seeds}
            print(f"{flaw or 'perfect'}: claims of the first {done - 1} pages: {counts}", file=sys.stderr, flush=True)
        for k, effects in by_seeds.items():
            decided = [key for key, effect in effects.items() if effect.decided]
            found.update((k, key) for key in decided)
            found[k, "any figure"] += bool(decided)
            if flaw == "5% copies" and network is not None:
                both = store.images("train"), store.images("held_out")
                copies = memorisation(torch.cat(sets[:k]), *both, features=network.features)
                found[k, "copies by memorisation"] += copies.verdict == "copies"
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
