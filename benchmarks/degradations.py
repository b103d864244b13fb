"""Real images degraded on purpose, more and more: how does each metric react? Prints a Markdown table.

    python benchmarks/degradations.py
    python benchmarks/degradations.py --store data/cifar10 --num 2000 --reference 10000

Without --store it is that of the digits, packed where it is missing. Images are compared in the features of the
store's own classifier (trained and kept in the store at the first call), with other real images. They are held-out
ones where these are twice as many as --num, since whole classes are to be left out; else train and held-out images are
mixed and halved. The rows of strength 0 are the images as they are: what a perfect model would reach.
"""

import argparse
import math
from pathlib import Path

import torch

from unstir import randomness
from unstir.data import Store, pack
from unstir.metrics.classifier import classifier_for
from unstir.metrics.distances import frechet_of, kid, moments, near, radii, standard_error
from unstir.randomness import Key, normal

STRENGTHS = {
    "noise": (0, 8, 16, 32, 64),
    "blur": (0, 0.5, 0.75, 1, 2),
    "dropped classes": (0, 0.1, 0.3, 0.5),
    "duplicates": (0, 0.5, 0.75, 0.9),
}
"""Deviation of the noise in bytes; that of the blur in pixels; the share of classes, and of distinct images, lost."""


def spoilt(kind, strength, images, labels, num, classes):
    """``num`` of the images uint8 [N, C, H, W] with labels int64 [N], degraded; each kind changes only one thing."""
    if kind == "dropped classes":
        kept = images[labels >= round(strength * classes)][:num]
        if len(kept) < num:
            raise SystemExit(f"only {len(kept)} images are left without {strength:.0%} of the classes; lower --num")
        return kept
    images = images[:num]
    if kind == "noise":
        drawn = normal(Key(0, "spoilt", 0, torch.arange(num)), tuple(images.shape[1:]))
        return (images + strength * drawn).round().clamp(0, 255).byte()
    if kind == "blur":
        return blurred(images, strength)
    return images[torch.arange(num) % max(round((1 - strength) * num), 1)]


def blurred(images, deviation):
    """Images under a Gaussian of this deviation in pixels, the rim repeated outwards."""
    if deviation == 0:
        return images
    reach = math.ceil(3 * deviation)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    taps = taps / taps.sum()
    planes = images.flatten(0, 1)[:, None].float()
    padded = torch.nn.functional.pad(planes, (reach,) * 4, mode="replicate")
    rows = torch.nn.functional.conv2d(padded, taps[None, None, None, :])
    both = torch.nn.functional.conv2d(rows, taps[None, None, :, None])
    return both.round().clamp(0, 255).byte().reshape(images.shape)


def two_parts(store, num, num_reference):
    """Images and labels to spoil, and other images to compare them with."""
    splits = [(store.images(split), store.labels(split)) for split in ("held_out", "train")]
    if len(splits[0][0]) < 2 * num:
        images, labels = (torch.cat(parts) for parts in zip(*splits, strict=True))
        order = randomness.permutation(0, "spoilt", 0, len(images))
        splits = [(images[part], labels[part]) for part in order.chunk(2)]
    (images, labels), (reference, _) = splits
    order = randomness.permutation(0, "spoilt order", 0, len(images))
    chosen = randomness.permutation(0, "spoilt reference", 0, len(reference))[:num_reference].sort().values
    return images[order], labels[order], reference[chosen]


def figures(features, real):
    """Every distance of features [N, F] to real ones [M, F]; neighbourhoods are those of N real images."""
    reference, equal = moments(real), real[: len(features)]
    precision, recall, density, coverage = near(equal, features, radii(equal))
    size = min(1000, len(features), len(real))
    return {
        "FD": frechet_of(features, reference),
        "error": standard_error(features, reference),
        "KID": kid(features, real, subsets=20, subset_size=size)[0],
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
    }


def measured(store, num, num_reference):
    """Yield (kind, strength, figures) for each."""
    classifier = classifier_for(store)
    images, labels, reference = two_parts(store, num, num_reference)
    real = classifier.features(reference)
    for kind, strengths in STRENGTHS.items():
        for strength in strengths:
            made = spoilt(kind, strength, images, labels, num, len(store.classes))
            yield kind, strength, figures(classifier.features(made), real)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="data/digits")
    parser.add_argument("--num", type=int, default=400)
    parser.add_argument("--reference", type=int, default=10_000)
    options = parser.parse_args()
    if not Path(options.store).exists() and options.store == "data/digits":
        pack("digits", options.store)
    print(
        f"| degradation | strength | FD ({options.num} images) | 1000 KID | precision | recall | density | coverage |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for kind, strength, found in measured(Store.open(options.store), options.num, options.reference):
        rest = " | ".join(f"{found[name]:.3f}" for name in ("precision", "recall", "density", "coverage"))
        distance = f"{found['FD']:.3f} ± {found['error']:.3f}"
        print(f"| {kind} | {strength} | {distance} | {1000 * found['KID']:.3f} | {rest} |", flush=True)


if __name__ == "__main__":
    main()
