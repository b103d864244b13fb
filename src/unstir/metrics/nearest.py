"""The nearest training images of each of many images, by brute force at the speed of a matrix product.

|a - b|^2 = |a|^2 + |b|^2 - 2 a.b needs one product for all pairs, but in float32 it loses what matters here: between
near copies the three terms cancel and leave rounding errors. So it only proposes: the few best of every image are
measured anew as differences in float64, in which a copy is at the distance 0 exactly. It can be missed only among more
than SPARE others that are as near as float32 can tell: about a thousandth of the distance from the mean image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SPARE = 8  # more candidates than asked for, since rounding may put the best few in the wrong order
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


def nearest(queries: Tensor, train: Tensor, *, k: int = 1, flip: bool = False) -> Nearest:
    """By pixels: ``queries`` uint8 [N, C, H, W] and ``train`` uint8 [M, C, H, W] in 0..255, k <= M.

    With ``flip`` a training image also counts mirrored left to right, as a run that trained on both has seen it.
    """
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
    each = [(rows - queries.double()[:, None]).square_().mean(2).sqrt_() for rows in seen]
    distance, view = torch.stack(each).min(0)
    distance, order = distance.sort(dim=1, stable=True)
    order = order[:, :k]
    return candidates.gather(1, order), distance[:, :k], view.gather(1, order) > 0
