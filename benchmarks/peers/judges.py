"""The judges of a trained network, ours or a peer's: its images in two kinds of features, its bound, and its copies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import torch
from torch import Tensor

from unstir import Job, Model, Run, sample_batches
from unstir.data import Store
from unstir.metrics.classifier import classifier_for
from unstir.metrics.likelihood import Protocol, split_likelihood
from unstir.metrics.measure import measure
from unstir.metrics.memorisation import memorisation
from unstir.pixels import to_uint8

Draw = Callable[[int, int], Tensor]  # (images, calls) to uint8 [N, C, H, W]
BATCH = 250  # images that are drawn at once
BOUNDED, CALLS = 256, 50  # held-out images whose bound is estimated, at most, and the network calls for each
TITLES = {"svm": "SVM", "fd": "FD-classifier", "swd": "sliced Wasserstein"}


@dataclass(frozen=True)
class Trained:
    """What training left: functions that draw, by sampler, and the optimiser's steps; its model if we can read it."""

    draws: dict[str, Draw]
    parameters: int
    steps: int
    model: Model | None = None


class Judges:
    """Distances to the training images of a store, bits per dimension of its held-out ones, and copies.

    The distances are of Frechet in a classifier of the store's labels, and of Wasserstein between patches, sliced. The
    floors are those of held-out images.
    """

    def __init__(self, store: Store, flip: bool = False) -> None:
        self._store, self._flip, self._classifier = store, flip, classifier_for(store)

    def images(self, images: Tensor) -> dict[str, float]:
        """Of images, uint8 [N, C, H, W]."""
        figures = measure(self._store, [images], [self._classifier]) | measure(self._store, [images], [])
        fd, swd = figures["classifier/fd"], figures["patches/swd"]
        return {"fd": fd.by_seed[0], "fd_floor": fd.floor, "swd": swd.by_seed[0], "swd_floor": swd.floor}

    def bits(self, model: Model) -> dict[str, float]:
        """The estimated bound of at most `BOUNDED` images and its error; all models share images, times and noise."""
        num = min(BOUNDED, self._store.count("held_out"))
        found = split_likelihood(model, self._store, Protocol(num=num, calls=min(CALLS, model.process.T)))
        return {"bits": found.bits_per_dim, "bits_error": found.standard_error}

    def copies(self, images: Tensor) -> dict[str, object]:
        """How often an image, of 20 at least, is nearer to its nearest training image, in pixels, than a held-out one
        is (0.5 is chance), and the verdict on copies.
        """
        train, held_out = self._store.images("train"), self._store.images("held_out")
        found = memorisation(images, train, held_out, flip=self._flip, features=self._classifier.features)
        return {"nearer": found.spaces[0].distance.probability, "copies": found.verdict}


def drawing(run: Run, model: Model, sampler: str, seed: int = 0) -> Draw:
    """Draws by a sampler, without guidance."""

    def draw(num: int, calls: int) -> Tensor:
        chain = run.chain().changed(sampler=sampler, steps=calls, seed=seed, guidance=1.0)
        return images_of(model, Job(num=num, batch_size=BATCH, chain=chain))

    return draw


def images_of(model: Model, job: Job) -> Tensor:
    """The images of a job, uint8 [N, C, H, W]."""
    return torch.cat([to_uint8(images) for _, images in sample_batches(model, job)])


def in_parts(part: Draw) -> Draw:
    """Draws `BATCH` images at once by a function that gives images in 0..1."""

    def as_bytes(num: int, calls: int) -> Tensor:
        return (part(num, calls).clamp(0, 1) * 255).round().to(torch.uint8).cpu()

    return lambda num, calls: torch.cat([as_bytes(min(BATCH, num - done), calls) for done in range(0, num, BATCH)])


def count(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def spread(values: Sequence[float]) -> str:
    """Their mean, with the standard deviation where there are several."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
