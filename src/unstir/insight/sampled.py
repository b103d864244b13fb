"""What the doctor draws and measures of a run: images from its weights, and the errors of its weights."""

from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from unstir import randomness
from unstir.chain import FAST
from unstir.data import Store
from unstir.diffusion.loss import denoising_loss
from unstir.errors import NotFiniteError
from unstir.generate.drawing import Job, sample_batches
from unstir.insight.facts import MISSING, Errors, Facts, Samples
from unstir.pixels import from_uint8, to_uint8
from unstir.progress import counted, counter, counting
from unstir.randomness import Key
from unstir.runs import build
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.config import Config
from unstir.runs.run import Run

MOST_IMAGES, FEWEST_IMAGES, WORK = 64, 16, 1.5e12  # floating-point operations; some 20 s of two cores
REAL_IMAGES = 2048
ERROR_IMAGES = 256


def measured(facts: Facts) -> Facts:
    """The facts with samples drawn and losses measured, where there are weights, and data that fits them."""
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
            drawn = _draw_samples(run, loaded, store)
            return replace(facts, samples=drawn, errors=squared_errors(run, loaded, store))
        reason = "the network answers with NaN or an infinity"
    return replace(facts, unmeasured=reason)


def affordable(run: Run, calls: int, most: int) -> int:
    """How many images, FEWEST_IMAGES to ``most``, take about WORK operations at ``calls`` network calls per image."""
    of_image = build.forward_flops(run.config, *run.data.shape[1:]) * calls
    return max(FEWEST_IMAGES, min(most, int(WORK / of_image)))


def _draw_samples(run: Run, loaded: Checkpoint, store: Store) -> Samples:
    """Images from the averaged weights by a fast sampler, with real ones to compare."""
    steps = min(FAST.steps, run.config.diffusion.T)
    chain = run.chain() if run.config.kind.has_teacher else FAST.changed(steps=steps)
    num = affordable(run, steps, MOST_IMAGES)
    job = Job(num=num, chain=chain, batch_size=num)
    with counting("sampling", "steps") as count:
        batches = sample_batches(run.model(loaded, dtype="auto"), job, on_step=counter(count, chain.steps))
        images = torch.cat([x for _, x in batches])
    words = f"{counted(num, 'image')} by {job.chain.sampler} in {counted(chain.steps, 'step')} from step {loaded.step}"
    return Samples(to_uint8(images), _real(run, store, num), words)


def _real(run: Run, store: Store, num: int) -> Tensor:
    """Training images, of each class as often as among ``num`` samples where the network has labels."""
    order = randomness.permutation(0, "doctor", 0, store.count("train"))
    labels = store.labels("train") if run.config.model.num_classes else None
    drawn = run.labels.of(torch.arange(num))
    if labels is None or drawn is None:
        return store.images("train")[order[:REAL_IMAGES]]
    share = max(1, REAL_IMAGES // num)
    chosen = []
    for label, count in enumerate(torch.bincount(drawn, minlength=run.config.model.num_classes).tolist()):
        of_class = order[labels[order] == label]
        wanted = torch.arange(count * share) % max(len(of_class), 1)  # a small class is repeated
        chosen.append(of_class[wanted] if len(of_class) else of_class)
    return store.images("train")[torch.cat(chosen)]


@torch.inference_mode()
def squared_errors(run: Run, loaded: Checkpoint, store: Store) -> Errors:
    """The errors of raw and averaged weights on the same training images, times (`training_times`) and noise."""
    num = min(affordable(run, 2, ERROR_IMAGES), store.count("train"))
    index = randomness.Order(0, "doctor errors", 0, store.count("train"))[:num]
    labels = store.labels("train") if run.config.model.num_classes else None
    slots, t = torch.arange(num), training_times(run.config, num)
    result: dict[bool, Tensor] = {}
    full = loaded.kind == "full"
    averaged = run.config.train.ema_decay > 0 if full else loaded.ema
    for ema in [False, True] if full and averaged else [averaged]:
        model, errors = run.model(loaded, ema=ema), []
        for part in torch.split(slots, 64):
            x_0 = from_uint8(store.images("train")[index[part]].to(model.device))
            eps = randomness.normal(Key(0, "doctor noise", 0, part.to(model.device)), run.data.shape)
            label = None if labels is None else labels[index[part]].to(model.device)
            mse = denoising_loss(model.denoiser, x_0, t[part].to(model.device), eps, label).mse
            errors.append(mse.double().cpu())
        result[ema] = torch.cat(errors)
    return Errors(result.get(False), result.get(True))


def training_times(config: Config, num: int) -> Tensor:
    """Rising times in 1..T, int64 [num], distributed as those that training draws, or those its log is weighted to.

    Those of a density are the middles of equal shares of it; without one they are the first of equal parts of 1..T.
    """
    density = build.times(config, torch.device("cpu"))
    if density is None:
        return 1 + torch.arange(num) * config.diffusion.T // num
    return density.at((torch.arange(num, dtype=density.p.dtype) + 0.5) / num)
