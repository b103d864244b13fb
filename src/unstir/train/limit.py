"""How fast this machine multiplies matrices, the limit that a training is compared with.

Nearly all the work of a U-Net is products of matrices. Their rate is measured and not read from a data sheet: it is the
rate of this machine, with the threads and the arithmetic of the run. It is no strict bound, for a library may do a 3x3
convolution in fewer operations than its sum has; and where other processes use the machine too, both fall.
"""

import time
from functools import cache

import torch

from unstir.distributed import processes
from unstir.runs import build
from unstir.runs.config import Config

SECONDS = 0.04  # for which products of one size are repeated
SMALLEST, LARGEST = 128, 8192  # sides of the matrices
ENOUGH = 4e-3  # seconds of a product, well above what it takes to begin one


def least_seconds(config: Config, shape: tuple[int, int, int], device: torch.device) -> float | None:
    """The seconds that training on an image of ``shape`` (C, H, W) would take at the measured rate of products.

    The images per second times this are the share of the limit that a training reaches. None where the device has no
    product of the run's type, or no memory for it. The rate is measured once a process, in 0.1 to 0.3 s; several
    processes together have that of each times their number.
    """
    rate = _product_rate(device, build.dtype(config.train.dtype, device), torch.get_num_threads())
    work = build.passes(config) * build.forward_flops(config, *shape[1:])
    return work / (rate * processes.size()) if rate else None


@cache
def _product_rate(device: torch.device, dtype: torch.dtype, threads: int) -> float | None:
    try:
        return product_rate(device, dtype)
    except RuntimeError:  # unsupported, or out of memory
        return None


def product_rate(device: torch.device, dtype: torch.dtype, seconds: float = SECONDS) -> float:
    """Floating-point operations per second of the fastest of products of two square matrices.

    Those of one size are repeated for ``seconds``; the sizes double until a product lasts `ENOUGH`. On CUDA float32 is
    multiplied as convolutions multiply it there: as TF32, unless that is turned off. Raises RuntimeError where
    ``device`` cannot do it.
    """
    precision = torch.get_float32_matmul_precision()
    if device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        torch.set_float32_matmul_precision("high")
    try:
        side, rate, fastest = SMALLEST, 0.0, 0.0
        while fastest < ENOUGH and side <= LARGEST:
            fastest = _fastest(device, dtype, side, seconds)
            rate, side = max(rate, 2 * side**3 / fastest), 2 * side
        return rate
    finally:
        torch.set_float32_matmul_precision(precision)


def _fastest(device: torch.device, dtype: torch.dtype, side: int, seconds: float) -> float:
    """The seconds of the fastest of products repeated for so long, once at least; a first one, slower, is left out."""
    values = torch.arange(side * side, device=device).view(side, side).sin()
    a, b = values.to(dtype), values.T.to(dtype)
    _seconds(a, b)
    best, end = _seconds(a, b), time.perf_counter() + seconds
    while time.perf_counter() < end:
        best = min(best, _seconds(a, b))
    return best


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    began = time.perf_counter()
    torch.mm(a, b)
    if not a.is_cpu:
        torch.accelerator.synchronize(a.device)
    return time.perf_counter() - began
