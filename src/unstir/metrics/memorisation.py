"""Whether a model copies its training images, measured against new images of the same kind.

Of a model as good as the data's own source, every rank between held-out images and samples is equally likely. Two
tests rest on that alone, by pixels and by features if there are any. `mann_whitney`, of the distance d_1 to the nearest
training image and of d_1 over the mean of d_1..d_K: do samples as a whole lie nearer? `precedence`, of the second: is
one training image much nearer than others? The verdict divides ``SUSPICION`` among all tests (Bonferroni).
docs/evaluation.md ("Copies of training images") has the reasons.

*The nearest training images* are proposed by a matrix product in float32, |a - b|^2 = |a|^2 + |b|^2 - 2 a.b, whose
terms cancel between near copies. So the few best of every image are measured anew as differences in float64, in which a
copy is at the distance 0 exactly. It can be missed only among more than SPARE others that are as near as float32 can
tell: about a thousandth of the distance from the mean image.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from unstir.errors import UserError
from unstir.pictures.grid import contact_sheet
from unstir.significance import Precedence, Shift, exact, mann_whitney, precedence

SUSPICION, NEIGHBOURS = 0.01, 50
NEAR = 0.5  # the relative distance that no copy reaches
FEWEST = 20  # samples and held-out images, below which Mann & Whitney's normal approximation is rough
SHOWN = 3  # training images kept for each of the closest images
SPARE = 8  # more candidates than asked for, for rounding may change the order
WIDEST = 400  # of a line beside an image, in pixels
_QUERIES, _TRAIN = 1024, 8192  # rows of one product: 32 MiB of distances
_EXACT_BYTES = 1 << 26
Rows = Callable[[slice | Tensor], Tensor]  # rows(index) -> the vectors [n, D] of some training images


@dataclass(frozen=True, eq=False)
class Nearest:
    """The k nearest training images of each of N images, by rising ``distance``.

    ``index`` int64 [N, k] into the training images; ``distance`` float64 [N, k], the root mean square difference of
    values (grey levels 0..255, or the features' own unit); ``mirrored`` bool [N, k]: it is the mirror image's.
    """

    index: Tensor
    distance: Tensor
    mirrored: Tensor


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

    Tests of fewer than FEWEST images are None, but ``copies``, which is exact, only where none is held out.
    ``closest`` and ``closest_held_out`` are by rising relative distance.
    """

    name: str
    distance: Shift | None
    relative: Shift | None
    copies: Precedence | None
    closest: tuple[Pair, ...]
    closest_held_out: tuple[Pair, ...]


@dataclass(frozen=True)
class Memorisation:
    """Both spaces and the ``verdict``: "copies", "nearer", "none" (found, which proves none), or None: undecided.

    Undecided are no copies among fewer than FEWEST samples or held-out images. ``flip``: mirror images counted;
    ``says``: it in words.
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
    each kind are named. The more held-out images per sample, the fewer copies show. UserError for fewer than 2 training
    images.
    """
    if len(train) < 2:
        raise UserError("train", list(train.shape), "must be at least 2")
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
        values = _relative(found), _relative(new)
        relative = mann_whitney(*values) if enough else None
        distance = mann_whitney(*(each.distance[:, 0].contiguous() for each in (found, new))) if enough else None
        copies = precedence(*values, level, NEAR) if len(held_out) else None
        near, near_new = (_closest(each, [both[i] for both in sets], closest) for i, each in enumerate((found, new)))
        spaces.append(Space(name, distance, relative, copies, near, near_new))
    tests = [test for space in spaces for test in (space.copies, space.distance, space.relative) if test is not None]
    decided = {type(test) for test in tests if test.p <= level}
    without = ("nearer" if decided else "none") if enough else None
    verdict = "copies" if Precedence in decided else without
    return Memorisation(tuple(spaces), verdict, len(samples), len(train), len(held_out), flip)


def picture(result: Memorisation, samples: Tensor, train: Tensor, held_out: Tensor) -> Image.Image:
    """The closest images, a row for each with its nearest training images in every space; mirrored as they are near.

    The tensors are those that ``result`` came from. Beside an image stand its relative distance in the space by which
    it is among the closest, and its distances there.
    """
    rows = []
    for number, space in enumerate(result.spaces):
        for kind, images, closest in (("sample", samples, space.closest), ("new", held_out, space.closest_held_out)):
            for pair in closest:
                of_space = pair.matches[number]
                distances = ", ".join(f"{distance:.3g}" for distance in of_space.distance)
                shown = [zip(match.index, match.mirrored, strict=True) for match in pair.matches]
                near = [train[i].flip(-1) if mirrored else train[i] for i, mirrored in itertools.chain(*shown)]
                title = f"{kind}, {of_space.relative:.2f} by {space.name}: {distances}"
                rows.append((title, torch.stack([images[pair.image], *near])))
    return contact_sheet(rows, widest=WIDEST)


def _describe(result: Memorisation) -> str:
    tested = [each.copies for each in result.spaces if each.copies is not None]
    copied = any(exact(test.count - test.expected, test.p, len(tested)).positive for test in tested)
    sentence = {
        "copies": "training images are copied"
        if copied
        else "some samples may be copies of training images; undecided, for chance makes as many in one run of 100",
        "nearer": "samples lie nearer to training images than new images do (smoother, fainter, alike?), none a copy",
        "none": "no sign of copied training images",
        None: f"undecided whether training images are copied: that takes {FEWEST} samples and {FEWEST} held-out images",
    }[result.verdict]
    turned = ", mirrored too" if result.flip else ""
    sets = f"{result.num} samples, {result.num_train} training{turned}, {result.num_held_out} held out"
    return f"{sentence} ({sets})\n" + "; ".join(_said(space) for space in result.spaces)


def _said(space: Space) -> str:
    if space.copies is None:
        return f"{space.name}: no image is held out to compare with"
    least = "no number" if space.copies.least is None else f"{space.copies.least}"
    near = f"{space.copies.count} as near as copies (new images {space.copies.expected:.2g}, {least} would show)"
    if space.distance is None or space.relative is None:
        return f"{space.name}: {near}"
    return (
        f"{space.name}: {near}, nearer than new images in {space.distance.probability:.0%} ± "
        f"{space.distance.standard_error:.0%} of comparisons ({space.relative.probability:.0%} by relative distance; "
        "50% is chance)"
    )


def _relative(found: Nearest) -> Tensor:
    """d_1 over the mean of d_1..d_K, in 0..1: float64 [N]; 0 where all K are copies."""
    return torch.nan_to_num(found.distance[:, 0] / found.distance.mean(1), nan=0.0)


def _closest(found: Nearest, spaces: list[Nearest], most: int) -> tuple[Pair, ...]:
    """The images of the smallest relative distance in ``found``, with their matches in every space."""
    relative = [_relative(space) for space in spaces]

    def match(image: int, near: Nearest, relative: Tensor) -> Match:
        parts = (near.index, near.distance, near.mirrored)
        index, distance, mirrored = (tuple(part[image, :SHOWN].tolist()) for part in parts)
        return Match(index, distance, mirrored, relative[image].item())

    chosen = _relative(found).argsort(stable=True)[:most].tolist()
    return tuple(Pair(i, tuple(match(i, *each) for each in zip(spaces, relative, strict=True))) for i in chosen)


def nearest(queries: Tensor, train: Tensor, *, k: int = 1, flip: bool = False) -> Nearest:
    """By pixels: ``queries`` uint8 [N, C, H, W], ``train`` uint8 [M, C, H, W], k <= M; with ``flip`` mirrored too."""
    views: list[Rows] = [lambda rows: train[rows].flatten(1)]
    if flip:
        views.append(lambda rows: train[rows].flip(-1).flatten(1))
    return _search(queries.flatten(1), len(train), views, k)


def nearest_features(queries: Tensor, train: Tensor, *, k: int = 1, mirrored: Tensor | None = None) -> Nearest:
    """By features: ``queries`` float [N, F], ``train`` float [M, F] and, optionally, those of the mirror images."""
    sets = [train] if mirrored is None else [train, mirrored]
    views: list[Rows] = [lambda rows, part=part: part[rows] for part in sets]  # type: ignore[misc]
    return _search(queries, len(train), views, k)


def _search(queries: Tensor, num_train: int, views: Sequence[Rows], k: int) -> Nearest:
    if len(queries) == 0:
        nothing = torch.zeros(0, k)
        return Nearest(nothing.long(), nothing.double(), nothing.bool())
    candidates = _candidates(queries, num_train, views, min(k + SPARE, num_train))
    size = candidates.shape[1] * queries.shape[1] * 8
    parts = torch.split(torch.arange(len(queries)), max(1, _EXACT_BYTES // size))
    found = [_measured(queries[part], candidates[part], views, k) for part in parts]
    return Nearest(*(torch.cat(part) for part in zip(*found, strict=True)))


def _candidates(queries: Tensor, num_train: int, views: Sequence[Rows], k: int) -> Tensor:
    """The k likeliest nearest training images of each query, by float32 products: int64 [N, k], in no exact order."""
    some = views[0](slice(0, _TRAIN))
    centre = (some if some.is_floating_point() else some.float()).mean(0)  # shorter vectors round less
    best = torch.full((len(queries), k), torch.inf)
    index = torch.zeros(len(queries), k, dtype=torch.int64)
    for first in range(0, num_train, _TRAIN):
        block = [(view(slice(first, first + _TRAIN)) - centre).float() for view in views]
        lengths = [part.square().sum(1) for part in block]
        for start in range(0, len(queries), _QUERIES):
            rows = slice(start, start + _QUERIES)
            query = (queries[rows] - centre).float()
            distances = torch.addmm(lengths[0], query, block[0].T, alpha=-2)  # less |query|^2, alike in its row
            for part, length in zip(block[1:], lengths[1:], strict=True):
                torch.minimum(distances, torch.addmm(length, query, part.T, alpha=-2), out=distances)
            near, where = distances.topk(min(k, distances.shape[1]), dim=1, largest=False)
            both, order = torch.cat((best[rows], near), 1).topk(k, dim=1, largest=False)
            best[rows], index[rows] = both, torch.cat((index[rows], where + first), 1).gather(1, order)
    return index


def _measured(queries: Tensor, candidates: Tensor, views: Sequence[Rows], k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k nearest of the candidates [N, K], measured in float64; of equals the first training image."""
    candidates = candidates.sort(dim=1).values
    seen = (view(candidates.flatten()).view(*candidates.shape, -1).double() for view in views)
    distances = [(rows - queries.double()[:, None]).square_().mean(2).sqrt_() for rows in seen]
    distance, view = torch.stack(distances).min(0)
    distance, order = distance.sort(dim=1, stable=True)
    order = order[:, :k]
    return candidates.gather(1, order), distance[:, :k], view.gather(1, order) > 0
