"""Images of a run's data that a chapter shows: held out, and one of each class first."""

from typing import NamedTuple

import torch
from torch import Tensor

from unstir.data.embedded import EMBEDDED, held_out
from unstir.data.store import Store, is_store
from unstir.pixels import from_uint8, known
from unstir.runs.run import Run


class Examples(NamedTuple):
    """Images ``x_0``, float32 [n, C, H, W] about [-1, 1], with 0 for what is missing.

    ``told`` is what the network is told of each, as `Model.condition` has it. ``present``, bool like x_0, says which
    values are known; None: all.
    """

    x_0: Tensor
    told: Tensor | None = None
    present: Tensor | None = None

    def to(self, device: torch.device) -> "Examples":
        """The same on a device."""
        return Examples(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


def examples(run: Run, num: int) -> Examples | None:
    """Up to ``num`` held-out images of a run's data, one of each class first; None where the data are not at hand.

    Of data of which nothing was held out they are training images.
    """
    store, told = run.config.data.store, None
    if run.shipped and run.config.data.source in EMBEDDED:
        pixels, labels = map(torch.from_numpy, held_out(run.config.data.source))
        index = _one_of_each(labels, len(pixels))[:num]
        return Examples(from_uint8(pixels[index]), labels[index] if run.config.model.num_classes else None)
    if not is_store(store):
        return None
    opened = Store.open(store)
    split = "held_out" if opened.count("held_out") else "train"
    classes = opened.labels(split)
    index = _one_of_each(classes, opened.count(split))[:num]
    x_0, present = known(opened.scale.to_model(opened.images(split)[index]), opened.scale)
    if run.conditions is not None:
        told = run.conditions.of_store(opened, split, index, x_0)
    elif classes is not None and run.config.model.num_classes:
        told = classes[index]
    return Examples(x_0, told, present)


def _one_of_each(labels: Tensor | None, count: int) -> Tensor:
    """The places 0..count-1, int64, the first of each class before all others."""
    if labels is None:
        return torch.arange(count)
    first = dict(reversed([(label, place) for place, label in enumerate(labels.tolist())]))
    return torch.tensor(list(dict.fromkeys([first[label] for label in sorted(first)] + list(range(count)))))
