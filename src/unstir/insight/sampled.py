"""What the doctor draws of a run: images from its weights, and real ones to compare with."""

from contextlib import suppress
from dataclasses import replace
from itertools import cycle

import torch
from torch import Tensor

from unstir import randomness
from unstir.chain import FAST
from unstir.data import Store
from unstir.errors import NotFiniteError
from unstir.generate.drawing import Job, sample_batches
from unstir.insight.facts import MISSING, Facts, Samples
from unstir.pixels import to_uint8
from unstir.progress import counted, counter, counting
from unstir.runs import build
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.run import Run

MOST_IMAGES, FEWEST_IMAGES, WORK = 64, 16, 1.5e12  # floating-point operations; some 20 s of two cores
REAL_IMAGES = 2048


def with_samples(facts: Facts) -> Facts:
    """The facts with samples, where there are weights, and data that fits them."""
    run, store, loaded = facts.run, facts.store, facts.loaded
    if store is None:
        reason = MISSING["store"]
    elif store.count("train") < 2 or store.shape != run.data.shape:
        reason = "the data does not fit the run"
    elif loaded is None:
        reason = MISSING["loaded"]
    elif run.config.model.num_classes and not store.labelled:
        reason = "the data has no labels"
    else:
        with suppress(NotFiniteError):
            return replace(facts, samples=_draw_samples(run, loaded, store))
        reason = "the network answers with NaN or an infinity"
    return replace(facts, unmeasured=reason)


def _draw_samples(run: Run, loaded: Checkpoint, store: Store) -> Samples:
    """Images from the averaged weights by a fast sampler, with real ones to compare."""
    steps = min(FAST.steps, run.config.diffusion.T)
    chain = run.chain() if run.config.kind.has_teacher else FAST.changed(steps=steps)
    of_image = build.forward_flops(run.config, *run.data.shape[1:]) * steps
    num = max(FEWEST_IMAGES, min(MOST_IMAGES, int(WORK / of_image)))
    job = Job(num=num, chain=chain, batch_size=num)
    with counting("sampling", "steps") as count:
        batches = sample_batches(run.model(loaded, dtype="auto"), job, on_step=counter(count, chain.steps))
        images = torch.cat([x for _, x in batches])
    words = f"{counted(num, 'image')} by {job.chain.sampler} in {counted(chain.steps, 'step')} from step {loaded.step}"
    labels = run.labels.of(torch.arange(num))
    asked = None if labels is None else labels.repeat(max(1, REAL_IMAGES // num))
    return Samples(to_uint8(images), real_images(store, asked, REAL_IMAGES, "doctor"), words)


def real_images(store: Store, asked: Tensor | None, num: int, name: str) -> Tensor:
    """Training images in an order drawn for ``name``: one of each class ``asked`` for, int64 [N], else ``num`` of all.

    A small class is repeated, and one without images left out.
    """
    order, labels = randomness.permutation(0, name, 0, store.count("train")), store.labels("train")
    if asked is not None and labels is not None:
        of_class = {label: cycle(order[labels[order] == label].tolist()) for label in set(asked.tolist())}
        chosen = [next(of_class[label], None) for label in asked.tolist()]
        order = torch.tensor([index for index in chosen if index is not None], dtype=torch.int64)
        num = len(order)
    return store.images("train")[order[:num]]
