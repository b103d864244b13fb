"""How fast this machine multiplies and adds, the limit that measurements are compared with.

Nearly all the work of a U-Net is products of matrices and 3x3 convolutions. Their rate is measured and not read from a
data sheet: it is the rate of this machine, with the threads and the arithmetic of the row. Both are measured, for their
libraries differ: on an AMD processor float32 convolutions ran at 2.3 times the rate of products. It is no strict bound,
for other sizes may be faster still; and where other processes use the machine too, all of it falls.
"""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import torch

from unstir.diffusion.arithmetic import tf32

ENOUGH = 4e-3  # seconds of a product or convolution, well above what it takes to begin one
SIDES = tuple(128 << n for n in range(7))  # of the matrices, up to 8192
BATCHES = tuple(4 << n for n in range(11))  # of the images that are convolved, up to 4096
CHANNELS, SIDE = 128, 16  # of these images


def measured_rate(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Floating-point operations per second of the fastest of matrix products and 3x3 convolutions, two a multiply-add.

    Each size is repeated for ``seconds``; sizes double until one takes `ENOUGH`. On CUDA float32 is multiplied as
    convolutions multiply it there: as TF32, unless that is turned off. Raises RuntimeError where ``device`` cannot
    do it.
    """
    precision = torch.get_float32_matmul_precision()
    if device.type == "cuda" and tf32()[0]:
        torch.set_float32_matmul_precision("high")
    try:
        with torch.inference_mode():
            rate = _best_rate(partial(_product, device, dtype), SIDES, seconds)
            with suppress(RuntimeError):  # which need more memory, and libraries of their own
                rate = max(rate, _best_rate(partial(_convolution, device, dtype), BATCHES, seconds))
            return rate
    finally:
        torch.set_float32_matmul_precision(precision)


Work = tuple[Callable[[], object], int]  # and how many operations it has


def _product(device: torch.device, dtype: torch.dtype, side: int) -> Work:
    values = _values(device, side, side)
    return partial(torch.mm, values.to(dtype), values.T.to(dtype)), 2 * side**3


def _convolution(device: torch.device, dtype: torch.dtype, batch: int) -> Work:
    x, weight = _values(device, batch, CHANNELS, SIDE, SIDE), _values(device, CHANNELS, CHANNELS, 3, 3)
    x, weight = (each.to(dtype, memory_format=torch.channels_last) for each in (x, weight))
    return partial(torch.conv2d, x, weight, padding=1), 2 * batch * SIDE**2 * weight.numel()


def _values(device: torch.device, *shape: int) -> torch.Tensor:
    """Numbers in [-1, 1] that take nothing from torch's generator."""
    return torch.arange(math.prod(shape), device=device, dtype=torch.float32).view(shape).sin()


def _best_rate(work_of: Callable[[int], Work], sizes: tuple[int, ...], seconds: float) -> float:
    rate = 0.0
    for size in sizes:
        work, operations = work_of(size)
        fastest = _fastest(work, seconds)
        rate = max(rate, operations / fastest)
        if fastest >= ENOUGH:
            break
    return rate


def _fastest(work: Callable[[], object], seconds: float) -> float:
    """The seconds of the fastest of calls repeated for so long, once at least; a first one, slower, is left out."""
    _seconds(work)
    best, end = _seconds(work), time.perf_counter() + seconds
    while time.perf_counter() < end:
        best = min(best, _seconds(work))
    return best


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    result = work()
    if isinstance(result, torch.Tensor) and not result.is_cpu:
        torch.accelerator.synchronize(result.device)
    return time.perf_counter() - began
