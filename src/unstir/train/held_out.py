"""The held-out loss: that of images never trained on, and that of training images, at every snapshot.

`HeldOutLoss` measures it while the network is trained, and `catch_up` afterwards where it is missing.

The sampling weights always meet the same images of each split, at the same times, under the same noise, without
dropout or mirroring: what differs between two lines of held_out.jsonl is the network alone, and where the two splits
part, it has begun to memorise its training images. The K times are the middles of K equal parts of 1..T: their mean
estimates the loss over all times, and misses some of how steeply it rises towards t = 1.

The bound is estimated without bias on a quarter of the images: of each image its own step from each part of `strata`,
the same at every snapshot and in both splits.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from unstir import randomness
from unstir.data.manifest import SPLITS
from unstir.data.store import Store
from unstir.diffusion.denoiser import Conditioned, Denoiser, clipped
from unstir.diffusion.likelihood import bound_term, strata, variational_bound
from unstir.diffusion.loss import denoising_loss, middles
from unstir.errors import UserError, within_memory
from unstir.pixels import known
from unstir.progress import counting
from unstir.randomness import Key
from unstir.runs import build
from unstir.runs.checkpoint import content_hash
from unstir.runs.lines import append, write
from unstir.runs.model import Model
from unstir.runs.run import Run
from unstir.runs.stores import check_data, compared_with
from unstir.runs.timetable import snapshots
from unstir.theory.schedule import times
from unstir.train.observer import Observer, Stop
from unstir.train.record import cut_log

BITS_CALLS = 8
"""Network calls per image for the estimate of its bound: the decoder's, and one for each of seven parts of 2..T."""

ERROR_IMAGES, ERROR_TIMES = 32, 16  # enough: a variance that is off by 10% costs a term 0.0025 nats per value
BITS_SHARE = 4  # one in so many of the images has its bound estimated; at least two of a split have


@dataclass(frozen=True)
class FixedImages:
    """The images of a split that the loss is measured on at every snapshot, all on the network's device.

    ``x_0`` float32 [n, C, H, W] in [-1, 1], ``condition`` what the network is told of each or None, ``slots`` int64
    [n], the places of the images in their ``split``, and ``present``, bool like x_0, of values that may be missing and
    are 0 then. All noise is a function of the run's ``seed``, split, time and slot.
    """

    split: str
    seed: int
    x_0: Tensor
    condition: Tensor | None
    slots: Tensor
    present: Tensor | None = None

    @classmethod
    def choose(cls, run: Run, store: Store, split: str, device: torch.device, num: int | None = None) -> "FixedImages":
        """The first ``num``, by default log.held_out_images, of a random order of the split: more begin with these."""
        order = randomness.Order(run.config.seed, f"watched {split}", 0, store.count(split))
        index = order[: run.config.log.held_out_images if num is None else num]
        x_0, present = known(store.scale.to_model(store.images(split)[index].to(device)), store.scale)
        labels = store.labels(split) if run.config.model.num_classes else None
        condition = None if labels is None else labels[index].to(device)
        if run.conditions is not None:
            condition = run.conditions.of_store(store, split, index, x_0)
        return cls(split, run.config.seed, x_0, condition, index.to(device), present)

    def __len__(self) -> int:
        return len(self.slots)

    def batches(self, num: int, size: int) -> Iterator["FixedImages"]:
        """The first ``num`` images in batches of ``size``."""
        for first in range(0, num, size):
            part = slice(first, min(first + size, num))
            condition = None if self.condition is None else self.condition[part]
            present = None if self.present is None else self.present[part]
            yield replace(self, x_0=self.x_0[part], condition=condition, slots=self.slots[part], present=present)

    def noise(self, use: str, number: int) -> Tensor:
        """Standard normal noise of a use and a time (or number of a step), shaped like x_0."""
        return randomness.normal(Key(self.seed, f"{use} {self.split}", number, self.slots), tuple(self.x_0.shape[1:]))


def squared_errors(
    denoiser: Denoiser, images: FixedImages, times: tuple[int, ...], size: int, on_call: Callable[[], None]
) -> Tensor:
    """The simple loss (Ho et al. 2020, eq. 14) of each image at each of K times: float64 [n, K] on the CPU.

    The images go through the network in batches of ``size``; ``on_call()`` is called after each.
    """
    rows = []
    for batch in images.batches(len(images), size):
        columns = []
        for t in times:
            at, eps = torch.full_like(batch.slots, t), batch.noise("watched loss", t)
            columns.append(denoising_loss(denoiser, batch.x_0, at, eps, batch.condition, present=batch.present).mse)
            on_call()
        rows.append(torch.stack(columns, 1).cpu().double())  # there is no float64 on MPS
    return torch.cat(rows)


def estimated_bits(
    denoiser: Denoiser, images: FixedImages, num: int, calls: int, size: int, on_call: Callable[[], None] = lambda: None
) -> Tensor:
    """An unbiased estimate of the bound of each of the first ``num`` images, in bits per dimension: float64 [num], CPU.

    ``calls`` network calls per image, 2 to T, the last of which is the whole sum. The variance of the reverse steps is
    the learned one where there is one, else the large; estimates of the clean image are clamped to [-1, 1].
    """
    process, parts = denoiser.process, torch.arange(calls - 1)
    drawn = [strata(process.T, len(parts), Key(images.seed, "watched steps", i, parts)) for i in range(num)]
    steps = torch.tensor([list(of_image) for of_image in drawn]).to(images.slots.device)  # [num, calls - 1]
    weights, variance = drawn[0].values(), "learned" if denoiser.learned_variance else "large"
    bits = []
    for batch, at in zip(images.batches(num, size), torch.split(steps, size), strict=True):
        x_0, noise = batch.x_0, partial(batch.noise, "watched bound")
        denoise = clipped(Conditioned(denoiser, batch.condition))
        decoder: dict[str, Any] = {"discretised": batch.present is None, "present": batch.present}
        given: dict[str, Any] = {"variance": variance, "sampled": {}, "on_call": on_call, **decoder}
        ends = variational_bound(denoise, process, x_0, noise, **given)
        nats = ends.nats  # the prior's and the decoder's
        for number, (t, weight) in enumerate(zip(at.unbind(1), weights, strict=True), start=2):
            prediction = denoise(process.diffuse(x_0, t, noise(number)), t)
            nats = nats + weight * bound_term(prediction, process, x_0, t, variance, **decoder).cpu().double()
            on_call()
        bits.append(ends.to_bits(nats))
    return torch.cat(bits)


def measured_errors(run: Run, denoiser: Denoiser, weights: str, images: FixedImages, size: int) -> list[dict[str, Any]]:
    """The mean squared error of the clamped estimate of x_0 at `ERROR_TIMES`, even in log-SNR, as the line of
    errors.jsonl with the hash of the ``weights``; none for weights that answer with NaN.

    It is that of the first `ERROR_IMAGES` of the training ``images``, in batches of ``size``. A line is added to the
    file but for a model that comes with unstir.
    """
    process = denoiser.process
    at = times(process.schedule, min(ERROR_TIMES, process.T), "log_snr")[-2::-1]
    sums = dict.fromkeys(at, 0.0)
    num, values = min(len(images), ERROR_IMAGES), 0.0
    for batch in images.batches(num, size):
        denoise = clipped(Conditioned(denoiser, batch.condition))
        present = torch.ones_like(batch.x_0) if batch.present is None else batch.present
        values += present.sum().item()
        for t in at:
            x_t = process.diffuse(batch.x_0, t, batch.noise("watched errors", t))
            sums[t] += ((denoise(x_t, t).x0 - batch.x_0).square() * present).sum().item()
    errors = [total / values for total in sums.values()]
    if not all(0 < error < math.inf for error in errors):
        return []
    line = {"weights": weights, "times": at, "errors": errors, "num": num, "run": run.data.run}
    if run.shipped is None:
        append(run.log_file("errors"), line, durable=True)
    return [line]


@torch.inference_mode()
def with_errors(model: Model, store: Store) -> Model:
    """The model with its errors by time, measured now where they were not, and kept; UserError for other data."""
    if model.errors is not None:
        return model
    run = compared_with(Run.open(model.run or model.folder), store)
    check_data(run.path, run.data, store)
    store.verify()
    images = FixedImages.choose(run, store, "train", model.device, ERROR_IMAGES)
    size, weights = run.config.train.micro_batch or ERROR_IMAGES, model.weights_sha256
    lines = measured_errors(run, model.denoiser, weights, images, size)
    return replace(model, errors=build.errors_by_time(run.config, lines, weights))


class HeldOutLoss:
    """Measures the loss of both splits at a snapshot and writes its line of held_out.jsonl.

    A split of fewer than two images has no error of its mean and is not measured; where neither is, no line is due.
    """

    def __init__(self, run: Run, store: Store, device: torch.device) -> None:
        self._run = run
        self._written = {line["step"] for line in run.held_out()}
        self._size = run.config.train.micro_batch or run.config.train.batch_size
        self._times = middles(run.config.diffusion.T, run.config.log.held_out_times)
        self._bits_calls = min(BITS_CALLS, run.config.diffusion.T)
        most = run.config.log.held_out_images
        there = [split for split in SPLITS if min(store.count(split), most) > 1]
        self._splits = {split: FixedImages.choose(run, store, split, device) for split in there}

    def start(self, step: int, due: int) -> None:
        """Drop the lines of steps after ``step``, which will be taken again; see `cut_log`."""
        self._written = {line["step"] for line in cut_log(self._run, "held_out", step, due)}

    @property
    def last(self) -> int:
        """The step of the last line; -1 where there is none."""
        return max(self._written, default=-1)

    def due(self, step: int) -> bool:
        """Whether the line of this step is not there and can be measured."""
        return bool(self._splits) and step not in self._written

    def measure(self, denoiser: Denoiser, step: int, observer: Observer, stop: Stop) -> bool:
        """Measure and add the line of a step, durably; False where ``stop`` was asked for. Raises OutOfMemoryError."""
        began, done, total = time.perf_counter(), itertools.count(1), sum(map(self._calls, self._splits.values()))

        def on_call() -> None:
            observer.snapshot("held-out loss", next(done), total)
            if stop.signal is not None:
                raise _StoppedError

        try:
            with torch.inference_mode(), within_memory("log.held_out_images", "train.micro_batch"):
                measured = {split: self._of_split(denoiser, images, on_call) for split, images in self._splits.items()}
                if "train" in self._splits:  # before the line, which says that all of its step was measured
                    weights = content_hash(denoiser.net.state_dict())
                    measured_errors(self._run, denoiser, weights, self._splits["train"], self._size)
        except _StoppedError:
            return False
        line = self._line(step, measured)
        line |= {"seconds": round(time.perf_counter() - began, 3), "run": self._run.data.run}
        append(self._run.log_file("held_out"), line, durable=True)
        self._written.add(step)
        observer.held_out(line)
        return True

    def _calls(self, images: FixedImages) -> int:
        batches = [-(-num // self._size) for num in (len(images), _bits_num(len(images)))]
        return batches[0] * len(self._times) + batches[1] * self._bits_calls

    def _of_split(self, denoiser: Denoiser, images: FixedImages, on_call: Callable[[], None]) -> tuple[Tensor, Tensor]:
        errors = squared_errors(denoiser, images, self._times, self._size, on_call)
        num = _bits_num(len(images))
        return errors, estimated_bits(denoiser, images, num, self._bits_calls, self._size, on_call)

    def _line(self, step: int, measured: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Any]:
        run = self._run
        line: dict[str, Any] = {
            "step": step,
            "epoch": max(step - 1, 0) // run.steps_per_epoch,
            "images": run.images_seen(step),
            "times": list(self._times),
            "bits_calls": self._bits_calls,
        }
        for split, suffix in (("train", "_train"), ("held_out", "")):
            errors, bits = measured.get(split, (None, None))
            line |= {
                f"num_{split}": 0 if errors is None else len(errors),
                split: None if errors is None else errors.mean(0).tolist(),
                f"{split}_error": None if errors is None else _error(errors).tolist(),
                f"of_{split}": None if errors is None else errors.mean(1).tolist(),
                f"bits{suffix}": None if bits is None else bits.mean().item(),
                f"bits{suffix}_error": None if bits is None else _error(bits).item(),
                f"bits{suffix}_num": 0 if bits is None else len(bits),
            }
        return line


class _StoppedError(Exception):
    """Ends a measurement in the middle."""


def _bits_num(num: int) -> int:
    return max(num // BITS_SHARE, 2)


def _error(values: Tensor) -> Tensor:
    """The standard error of the mean over rows."""
    return values.std(0) / math.sqrt(len(values))


def catch_up(run: Run, store: Store) -> int:
    """Add the lines of held_out.jsonl that snapshots lack, as training would have; return how many were added.

    A run that is being trained is left alone, and one whose log.held_out_images is 0, or whose held_out.jsonl is
    damaged; snapshots whose weights cannot be loaded are passed over. Raises UserError where ``store`` is not the run's
    data or has other bytes, UnwrittenError where the file cannot be written.
    """
    check_data(run.path, run.data, store)
    store.verify()
    with ExitStack() as stack:
        try:
            stack.enter_context(run.lock())
        except (UserError, OSError):  # whoever trains it measures it
            return 0
        if run.log("held_out").damaged:  # continuing keeps a copy first, and says so
            return 0
        device, planned = build.device(run.config.train.device), snapshots(run)
        loss = HeldOutLoss(run, store, device)
        missing = [step for step in run.saved_steps() if step in planned and loss.due(step)]
        added = 0
        with counting("measuring held-out losses", "snapshots") as count:
            for done, step in enumerate(missing, start=1):
                if (denoiser := _denoiser(run, step, device)) is not None:
                    loss.measure(denoiser, step, Observer(), Stop())
                    added += 1
                count(done, len(missing))
        written = run.held_out()
        in_order = sorted(written, key=lambda line: line["step"])
        if in_order != written:  # those added, now or by a killed call, stand in their places
            write(run.log_file("held_out"), in_order)
    return added


def _denoiser(run: Run, step: int, device: torch.device) -> Denoiser | None:
    """The sampling weights of a step in the arithmetic of training; None where they cannot be loaded."""
    try:
        model = run.model(step, device=str(device))
    except UserError:
        return None
    return replace(model.denoiser, dtype=build.dtype(run.config.train.dtype, device))
