"""Whether a model copies its training images, measured against new images of the same kind.

A sample near to a training image proves nothing, for new images have near neighbours too, and a data set may hold the
same picture twice. So held-out images are the yardstick: of a model as good as the data's own source, samples and
held-out images are alike before the training images, and every rank between them is equally likely. Both tests below
rest on that alone, by pixels and, where a function for them is given, by features.

*Distance* d_1 is that to the nearest training image. *Relative distance* is d_1 over the mean of d_1..d_K, K = 50
(after Carlini et al. 2023, "Extracting training data from diffusion models", section 5): a flat or blurred image is
near to everything and a copy to one image alone. The ratio d_1 / d_2 (Yoon et al. 2023) would miss copies of pictures
that the data holds a few times, which are copied first.

*Nearer* (`mann_whitney`), on either distance: do samples as a whole lie nearer than new images? (The C_T of Meehan et
al. 2020, "A non-parametric test to detect data-copying", is this statistic, cell by cell.) Smoother, fainter or more
alike samples do too: this alone accuses of nothing.

*Copies* (`precedence`): of the relative distance, the number of samples below 999 in 1000 held-out images and
below 1/2 (the factor of Carlini et al.; without it a sample a little nearer than any held-out image would count among
images that are all far apart). A few copies among many originals raise it, and it alone is evidence of copies.

The verdict is a suspicion: it divides ``SUSPICION`` among all tests (Bonferroni), so that new images raise it in one
run of 100 at most. Copies are *decided* at the level of every other statement (`significance.LEVEL`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from unstir.errors import UserError
from unstir.metrics.nearest import Nearest, nearest, nearest_features
from unstir.pictures.pairs import Block, Row, pairs
from unstir.significance import Precedence, Shift, exact, mann_whitney, precedence

SUSPICION, NEIGHBOURS = 0.01, 50
NEAR = 0.5  # the relative distance that no copy reaches
FEWEST = 20  # samples and held-out images that a test needs of each; below, the normal approximation is rough
SHOWN = 3  # training images kept for each of the closest images


@dataclass(frozen=True)
class Match:
    """The nearest training images of an image in a space, by rising ``distance``; ``mirrored`` as in `Nearest`."""

    index: tuple[int, ...]
    distance: tuple[float, ...]
    mirrored: tuple[bool, ...]
    relative: float


@dataclass(frozen=True)
class Pair:
    """The ``image`` of that number, and what it is near to in every space."""

    image: int
    matches: tuple[Match, ...]


@dataclass(frozen=True)
class Space:
    """What was found in a space: "pixels" (distances in grey levels 0..255) or "features" (in their own unit).

    Distances are root mean square differences; ``median`` and ``median_held_out`` are those to the nearest training
    image. The tests are None of too few images. ``closest`` and ``closest_held_out`` are by rising relative distance.
    """

    name: str
    median: float
    median_held_out: float | None
    distance: Shift | None
    relative: Shift | None
    copies: Precedence | None
    closest: tuple[Pair, ...]
    closest_held_out: tuple[Pair, ...]


@dataclass(frozen=True)
class Memorisation:
    """Both spaces and the ``verdict``: "copies", "nearer", "none" (found, which proves none), or None: undecided.

    Undecided are fewer than FEWEST samples or held-out images. ``flip``: mirror images counted; ``says``: it in words.
    """

    spaces: tuple[Space, ...]
    verdict: str | None
    num: int
    num_train: int
    num_held_out: int
    flip: bool
    says: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "says", _describe(self))


def memorisation(
    samples: Tensor,
    train: Tensor,
    held_out: Tensor,
    *,
    flip: bool = False,
    features: Callable[[Tensor], Tensor] | None = None,
    closest: int = 6,
) -> Memorisation:
    """Compare ``samples`` with the images a model learned from, all uint8 [N, C, H, W] in 0..255.

    ``flip``: the model also learned from mirror images. ``features`` maps such images to [N, F]. ``closest`` images of
    each kind are named. The more held-out images per sample, the fewer copies show. UserError for images of other types
    or shapes, no samples, or fewer than 2 training images.
    """
    for name, images, least in (("samples", samples, 1), ("train", train, 2)):
        if len(images) < least:
            raise UserError(name, list(images.shape), f"must be at least {least}")
    k = min(NEIGHBOURS, len(train))
    names, sets = ["pixels"], [[nearest(x, train, k=k, flip=flip) for x in (samples, held_out)]]
    if features is not None:
        names.append("features")
        known, mirrored = features(train), features(train.flip(-1)) if flip else None
        own = [features(images) if len(images) else known[:0] for images in (samples, held_out)]
        sets.append([nearest_features(each, known, k=k, mirrored=mirrored) for each in own])
    level = SUSPICION / (3 * len(names))
    enough, spaces = min(len(samples), len(held_out)) >= FEWEST, []
    for name, (found, new) in zip(names, sets, strict=True):
        distance, relative, copies = _tests(found, new, level) if enough else (None, None, None)
        near, near_new = (_closest(each, [both[i] for both in sets], closest) for i, each in enumerate((found, new)))
        median, median_new = (each.distance[:, 0].median().item() for each in (found, new))  # of none, NaN
        known_new = median_new if len(held_out) else None
        spaces.append(Space(name, median, known_new, distance, relative, copies, near, near_new))
    tests = [test for space in spaces for test in (space.copies, space.distance, space.relative) if test is not None]
    decided = {type(test) for test in tests if test.p <= level}
    verdict = "copies" if Precedence in decided else "nearer" if decided else "none"
    sizes = len(samples), len(train), len(held_out)
    return Memorisation(tuple(spaces), verdict if tests else None, *sizes, flip)


def picture(result: Memorisation, samples: Tensor, train: Tensor, held_out: Tensor) -> Image.Image:
    """The closest images with their nearest training images, samples left and held-out images right, one row per space.

    The tensors are those that ``result`` came from. Below an image stands its relative distance, below a training image
    the distance to it; one that is near as its mirror image is shown so.
    """
    heads = ("sample", *(f"nearest by {space.name}" for space in result.spaces))
    lines: list[list[Block]] = [[] for _ in result.spaces]
    for number, space in enumerate(result.spaces):
        sides = (("samples", samples, space.closest), ("new images", held_out, space.closest_held_out))
        for kind, images, found in sides:
            if found:
                rows = tuple(_row(pair, images, train, number) for pair in found)
                lines[number].append(Block(f"{kind} closest by {space.name}", heads, rows))
    return pairs(lines)


def _row(pair: Pair, images: Tensor, train: Tensor, number: int) -> Row:
    shown, notes = [], []
    for match in pair.matches:
        turned = zip(match.index, match.mirrored, strict=True)
        shown.append(torch.stack([train[i].flip(-1) if mirrored else train[i] for i, mirrored in turned]))
        notes.append(tuple(f"{d:.3g}{' flip' * f}" for d, f in zip(match.distance, match.mirrored, strict=True)))
    return Row(images[pair.image], f"{pair.matches[number].relative:.2f}", tuple(shown), tuple(notes))


def _describe(result: Memorisation) -> str:
    """A result in two lines."""
    tested = [each.copies for each in result.spaces if each.copies is not None]
    copied = any(exact(test.count - test.expected, test.p, "precedence test", len(tested)).positive for test in tested)
    said = {
        "copies": "training images are copied"
        if copied
        else "some samples may be copies of training images; undecided, for chance makes as many in one run of 100",
        "nearer": "samples lie nearer to training images than new images do (smoother, fainter, alike?), none a copy",
        "none": "no sign of copied training images",
        None: f"undecided whether training images are copied: that takes {FEWEST} samples and {FEWEST} held-out images",
    }[result.verdict]
    turned = ", mirrored too" if result.flip else ""
    sets = f"{result.num} samples, {result.num_train} training{turned}, {result.num_held_out} held out"
    return f"{said} ({sets})\n" + "; ".join(_said(space, result.num) for space in result.spaces)


def _said(space: Space, num: int) -> str:
    if space.copies is None or space.distance is None or space.relative is None:
        return f"{space.name}: median distance {space.median:.3g}"
    least = "no number" if space.copies.least is None else f"{space.copies.least}"
    return (
        f"{space.name}: {space.copies.count} as near as copies (new images {space.copies.expected:.2g}, {least} would "
        f"show), nearer than new images in {space.distance.probability:.0%} +- {space.distance.standard_error:.0%} of "
        f"comparisons ({space.relative.probability:.0%} by relative distance; 50% is chance)"
    )


def _relative(found: Nearest) -> Tensor:
    """d_1 over the mean of d_1..d_K, in 0..1: float64 [N]; 0 where all K are copies."""
    return torch.nan_to_num(found.distance[:, 0] / found.distance.mean(1), nan=0.0)


def _tests(found: Nearest, new: Nearest, level: float) -> tuple[Shift, Shift, Precedence]:
    distance = mann_whitney(found.distance[:, 0].contiguous(), new.distance[:, 0].contiguous())
    relative = _relative(found), _relative(new)
    return distance, mann_whitney(*relative), precedence(*relative, level, NEAR)


def _closest(found: Nearest, spaces: list[Nearest], most: int) -> tuple[Pair, ...]:
    """The images of the smallest relative distance in ``found``, with their matches in every space."""
    relative = [_relative(space) for space in spaces]

    def match(image: int, near: Nearest, relative: Tensor) -> Match:
        parts = (near.index, near.distance, near.mirrored)
        index, distance, mirrored = (tuple(part[image, :SHOWN].tolist()) for part in parts)
        return Match(index, distance, mirrored, relative[image].item())

    chosen = _relative(found).argsort(stable=True)[:most].tolist()
    return tuple(Pair(i, tuple(match(i, *each) for each in zip(spaces, relative, strict=True))) for i in chosen)
