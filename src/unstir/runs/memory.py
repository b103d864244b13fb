"""How much memory a training or a batch of samples takes, before anything is packed or built, and what would fit.

What is counted are tensors: of the weights with all that belongs to each, and of the images that are computed at once
(`unstir.nn.activations`). On the CPU the forecast adds what a process has besides; docs/performance.md compares it with
what was measured.
"""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from unstir.diffusion.guidance import in_one_batch
from unstir.distributed import processes
from unstir.errors import OutOfMemoryError, UserError, asked_for, is_out_of_memory
from unstir.nn.activations import sampling_bytes, training_bytes
from unstir.nn.config import ModelConfig
from unstir.runs import build, resources
from unstir.runs.config import Config
from unstir.runs.sections import TrainConfig
from unstir.theory.averages import WIDTHS

Shape = tuple[int, int, int]
FLOAT = 4  # bytes; weights and all that belongs to them are float32
OF_IMAGES = 6 * FLOAT  # bytes kept of each number of an image besides: it, its noise, both mixed, target, output, error
OF_NOISE = 16  # bytes for each normal number while it is drawn: its bits, and the steps from them
OF_CHAIN = 8 * FLOAT  # bytes for each number of an image that is sampled: x_t, estimates, what the sampler remembers
OF_PATHS = 152 * FLOAT  # bytes for each number of an image that is distilled: points and ends of its paths
LOADED = 180_000_000  # bytes of libraries that are loaded when training first needs them: for its optimiser, its charts
SPARE = 0.12  # what the CPU's allocator and kernels take besides tensors, in parts of those of images
SURE = 0.9  # so many parts of what is counted are taken for certain
SAFE = 0.9  # so many parts of the memory may be planned for


@dataclass(frozen=True)
class Forecast:
    """Bytes at a peak: for ``weights`` with all that belongs to each, for the ``images`` that are computed at once, and
    the ``rest``, of the program and its data. Of the weights ``spared`` are those of a copy that is made where there is
    memory for it, and left out otherwise.
    """

    weights: int
    images: int
    rest: int = 0
    spared: int = 0

    @property
    def total(self) -> int:
        """The forecast."""
        return self.weights + self.images + self.rest

    @property
    def least(self) -> int:
        """What is taken for certain."""
        return round(SURE * (self.weights - self.spared + self.images))


def copies(config: Config) -> int:
    """Numbers that training holds for a weight: itself, its gradient, moments (one with Muon), averages and teacher."""
    train = config.train
    return 3 + (train.optimizer != "muon") + (train.ema_decay > 0) + len(WIDTHS) * train.power_ema + config.distilled


def at_once(train: TrainConfig) -> int:
    """The images that a process computes at once: a micro-batch, or its share of the batch, which others keep small."""
    share = -(-train.batch_size // processes.size())
    return min(train.micro_batch or share, share)


def activations(config: Config, shape: Shape, device: torch.device) -> int:
    """Bytes that an image of ``shape`` (C, H, W) takes at the peak of a training pass on the device; of a network of
    the user's own nothing is known but the images.
    """
    train, numbers, network = config.train, math.prod(shape), build.network_config(config)
    dtype, levels = build.dtype(train.dtype, device), train.activation_checkpointing
    low = dtype == torch.bfloat16 and device.type == "cpu"
    unet = training_bytes(network, *shape[1:], dtype.itemsize, levels, products=low) if network.is_unet else 0
    teacher = sampled(network, shape, dtype) if config.distilled else 0
    return max(unet + OF_IMAGES * numbers, teacher, OF_NOISE * config.loss.noise_choices * numbers)


def of_steps(config: Config, shape: Shape, device: torch.device, rest: int = 0) -> Forecast:
    """The peak of the training steps, where the process has ``rest`` besides.

    It is in the backward pass, before there are gradients unless of another part of the batch, or where the optimiser
    steps, with numbers for each weight by which it or its average moves. On a CPU with activation checkpointing it is
    later in the backward pass, for the allocator keeps what is given back in pieces.
    """
    train, weight, num = config.train, FLOAT * build.num_parameters(config), at_once(config.train)
    held, images = _held(config, weight, device), num * activations(config, shape, device)
    if config.distilled:  # the paths of the whole batch
        images += -(-train.batch_size // processes.size()) * OF_PATHS * math.prod(shape)
    cast = weight // 2 if build.dtype(train.dtype, device) == torch.bfloat16 else 0
    late = train.activation_checkpointing > 0 and device.type != "cuda"
    in_pass = held + cast - (weight if num == train.batch_size and not late else 0)
    peaks = _besides(in_pass, images, rest, device), _besides(held + weight, 0, rest, device)
    return replace(max(peaks, key=_total), spared=_spared(config, weight, device))


def of_grids(config: Config, shape: Shape, device: torch.device, rest: int = 0) -> Forecast:
    """The peak while a grid is drawn; arguments as `of_steps`."""
    weight, dtype = FLOAT * build.num_parameters(config), build.dtype(config.train.dtype, device)
    images = config.grids.num * sampled(build.network_config(config), shape, dtype, config.grids.guidance)
    peak = _besides(_held(config, weight, device), images, rest, device)
    return replace(peak, spared=_spared(config, weight, device))


def forecast(config: Config, shape: Shape, device: torch.device, rest: int = 0) -> Forecast:
    """The peak of a whole training; arguments as `of_steps`."""
    return max((of(config, shape, device, rest) for of in (of_steps, of_grids)), key=_total)


def _total(forecast: Forecast) -> int:
    return forecast.total


def _needed(forecast: Forecast) -> int:
    return forecast.total - forecast.spared


Size = Callable[[Forecast], int]
SIZES: tuple[Size, ...] = (_total, _needed)  # with the copy that training goes on without, and without it


def _held(config: Config, weight: int, device: torch.device) -> int:
    """What is held of the weights; on the CPU with the copy without gradients that a checkpoint is written of."""
    num = copies(config)
    return weight * (num if device.type == "cuda" else 2 * num - 1)


def _spared(config: Config, weight: int, device: torch.device) -> int:
    """What of `_held` is the copy, without which training goes on too."""
    return _held(config, weight, device) - weight * copies(config)


def sampled(network: ModelConfig, shape: Shape, dtype: torch.dtype, guidance: float = 1.0) -> int:
    """Bytes of an image of ``shape`` (C, H, W) that is sampled in a batch, at a scale of classifier-free guidance."""
    of_network = sampling_bytes(network, *shape[1:], dtype.itemsize) if network.is_unet else 0
    return in_one_batch(guidance) * of_network + OF_CHAIN * math.prod(shape)


def _besides(weights: int, images: int, rest: int, device: torch.device) -> Forecast:
    """The forecast with what allocator and kernels take on the CPU."""
    return Forecast(weights, images, rest if device.type == "cuda" else rest + round(SPARE * images))


def of_program(device: torch.device) -> int:
    """The bytes of this process besides the training to come: what it has now, and libraries that are yet to load."""
    return resources.taken(device) + (0 if device.type == "cuda" or "matplotlib.figure" in sys.modules else LOADED)


def check_weights(config: Config, device: torch.device) -> None:
    """Raise UserError where the weights, with all that training holds for each, exceed the memory of the device."""
    count, each, there = build.num_parameters(config), copies(config) * FLOAT, resources.memory(device)
    if count * each > there:
        raise UserError(
            f"[model] has {count:,} parameters, which take {gigabytes(count * each)} in training ({each} bytes each), "
            f"more than the {gigabytes(there)} of {on(device)}; lower {_sizes(config)}"
        )


def check(config: Config, shape: Shape, device: torch.device, rest: int = 0) -> None:
    """Raise UserError where a training exceeds the memory of the device for certain; arguments as `of_steps`."""
    there, train = resources.memory(device), config.train
    of_batch = f"train.micro_batch={train.micro_batch}" if train.micro_batch else f"train.batch_size={train.batch_size}"
    parts = (of_steps, of_batch, _fitting_steps), (of_grids, f"grids.num={config.grids.num}", _fitting_grids)
    for of, given, fitting in parts:
        if (least := of(config, shape, device, rest).least) > there:
            room = round(SAFE * there)
            fits = next(filter(None, (fitting(config, shape, device, rest, room, size) for size in SIZES)), "")
            raise UserError(
                f"{given} images of {shape[1]}x{shape[2]} at once take at least {gigabytes(least)} in training, more "
                f"than the {gigabytes(there)} of {on(device)}; {_advice(fits, config, device)}"
            )


def what_fits(config: Config, shape: Shape, device: torch.device, rest: int, there: int) -> str:
    """What to change for a training to take no more than ``there`` bytes, with what it takes then; or what else to do.

    Each is less than the config has, a grid at most half where it should have fitted, as the memory may have run out.
    The copy that training goes on without is counted where anything fits with it. Arguments as `of_steps`.
    """
    room = round(SAFE * there)
    if rest > room:
        return f"the program and its data alone need more: {resources.more(device)}"
    for size in SIZES:
        steps, grids = (size(of(config, shape, device, rest)) for of in (of_steps, of_grids))
        changes = []
        if steps > room or steps >= grids:
            changes.append(_fitting_steps(config, shape, device, rest, room, size))
        if grids > room or grids > steps:
            num = _fitting_grids(config, shape, device, rest, room, size)
            changes.append(num and f"for its grids {num}")
        if all(changes):
            return _advice("; ".join(changes), config, device)
    return _advice("", config, device)


def _advice(fits: str, config: Config, device: torch.device) -> str:
    smaller = resources.more(device) if config.distilled else f"lower {_sizes(config)}"  # its network is the teacher's
    return f"what fits: {fits}" if fits else f"nothing of this network fits: {smaller}"


def _sizes(config: Config) -> str:
    return "--model.channels, --model.mults or --model.num_blocks" if config.model.is_unet else "its model.options"


def _fitting_steps(config: Config, shape: Shape, device: torch.device, rest: int, room: int, size: Size) -> str:
    """Options that let the steps fit, the fewest parts of the batch and the fewest levels; "" where there are none."""
    train, levels, num = config.train, len(config.model.mults) * config.model.is_unet, at_once(config.train)
    halves = [replace(train, micro_batch=-(-num >> number)) for number in range(1, (num - 1).bit_length() + 1)]
    more = range(train.activation_checkpointing + 1, levels + 1)
    fewer = [replace(train, activation_checkpointing=each) for each in more]
    both = [replace(each, activation_checkpointing=levels) for each in halves]

    def first(trials: list[TrainConfig]) -> str:
        for trial in trials:
            takes = size(of_steps(replace(config, train=trial), shape, device, rest))
            if takes <= room:
                changed = [key for key in ("activation_checkpointing", "micro_batch") if differs(trial, key)]
                return " ".join(f"--train.{key} {getattr(trial, key)}" for key in changed) + f" ({gigabytes(takes)})"
        return ""

    def differs(trial: TrainConfig, key: str) -> bool:
        return bool(getattr(trial, key) != getattr(train, key))

    return " or ".join(filter(None, (first(halves), first(fewer)))) or first(both)


def _fitting_grids(config: Config, shape: Shape, device: torch.device, rest: int, room: int, size: Size) -> str:
    """The option of a grid of as many images as fit; "" where none does."""
    given = config.grids.num

    def takes(num: int) -> int:
        return size(of_grids(replace(config, grids=replace(config.grids, num=num)), shape, device, rest))

    most = given // 2 if SAFE * takes(given) <= room else given - 1
    num = min(1 + (room - takes(1)) // (takes(2) - takes(1)), most)
    return f"--grids.num {num} ({gigabytes(takes(num))})" if num > 0 else ""


def grid_that_fits(config: Config, shape: Shape, device: torch.device, before: int, there: int) -> int:
    """How many images a grid may have where the process has taken ``before`` bytes and can have ``there``; 0: not one.

    They take half of what is free, for what an earlier grid gave back is there in pieces, and are at most half of those
    that the config has, for the memory has run out whatever the forecast says.
    """
    each = sampled(build.network_config(config), shape, build.dtype(config.train.dtype, device), config.grids.guidance)
    return max(min((there - before) // 2 // _besides(0, each, 0, device).total, config.grids.num // 2), 0)


class OneImageError(MemoryError):
    """The memory is used up in a step that computes one image at once."""


@contextmanager
def within_memory(config: Config, shape: Shape, device: torch.device, rest: int) -> Iterator[None]:
    """Where the memory runs out in this block, raise OutOfMemoryError with what would fit; arguments as `of_steps`.

    After an `OneImageError` what fits is besides a micro-batch of 1.
    """
    try:
        yield
    except (MemoryError, RuntimeError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        least = ""
        if isinstance(error, OneImageError):
            config, least = replace(config, train=replace(config.train, micro_batch=1)), " with train.micro_batch=1"
        expected, there = forecast(config, shape, device, rest), resources.reachable(device)
        raise OutOfMemoryError(
            f"out of memory{asked_for(error)}: this training takes about {in_words(expected)}{least}, and this process "
            f"can have {gigabytes(there)} of {on(device)}; {what_fits(config, shape, device, rest, there)}"
        ) from None


def in_words(forecast: Forecast) -> str:
    """A forecast, and what it is made of."""
    spared = f", {gigabytes(forecast.spared)} of them a copy that training can do without" if forecast.spared else ""
    parts = {f"weights{spared}": forecast.weights, "images": forecast.images, "program and data": forecast.rest}
    listed = ", ".join(f"{gigabytes(size)} of {name}" for name, size in parts.items() if size)
    return f"{gigabytes(forecast.total)} ({listed})"


def on(device: torch.device) -> str:
    """Where memory is, in words: on a GPU its name, else just "memory"."""
    return str(device) if device.type == "cuda" else "memory"


def gigabytes(size: int) -> str:
    """Bytes in words, such as "1.2 GB"."""
    return f"{size / 1e9:,.{1 if size >= 1e9 else 2}f} GB"
