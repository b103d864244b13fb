"""How a device computes a network: in which type, how its memory is laid out, and with the same bits each time.

On the CPU torch gives the same bits whenever it is asked alike. On CUDA some of its kernels add numbers up in the order
in which threads happen to end (gradients of convolutions, of attention and of embeddings), or are chosen by timing
them. In a `repeatable` block neither happens.

Convolutions on CUDA have their weights, and so their images, channels last (`layout`), as tensor cores read them. It
is a matter of memory alone: what is saved, and what leaves a `Denoiser`, is laid out as on the CPU.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.utils.deterministic

from unstir.errors import UserError


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Autocast to ``dtype``, or nothing where it is float32 (or wider), the dtype of the weights themselves."""
    if dtype == torch.bfloat16:
        return torch.autocast(device.type, dtype=dtype)
    return nullcontext()


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """In this block CUDA gives the same bits whenever it is asked alike.

    torch's settings are for the whole process, and are put back when the block ends. cuBLAS needs a setting that stays:
    CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment before the first product. Raises UserError where that is missing,
    and where the network has an operation of which CUDA has no repeatable form (the U-Net has none).
    """
    if device.type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    memory: Any = torch.utils.deterministic
    mode = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    before = cudnn.benchmark, memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    cudnn.benchmark = memory.fill_uninitialized_memory = False  # no choice by timing; nothing here reads unset memory
    try:
        yield
    except RuntimeError as error:
        if refused := _refused(str(error)):
            raise refused from None
        raise
    finally:
        torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])
        cudnn.benchmark, memory.fill_uninitialized_memory = before


def _refused(text: str) -> UserError | None:
    """What to say of an error by which torch refuses what is not repeatable; None for any other."""
    if "CUBLAS_WORKSPACE_CONFIG" in text:
        given = os.environ.get("CUBLAS_WORKSPACE_CONFIG", "")
        unlike = "does not give the same bits each time on CUDA, or came after the first product there"
        remedy = "set CUBLAS_WORKSPACE_CONFIG=:4096:8 before the program starts"
        return UserError("CUBLAS_WORKSPACE_CONFIG", given, unlike, remedy)
    if "does not have a deterministic implementation" in text:
        no_exact = "in the network has no form on CUDA that gives the same bits each time"
        return UserError("", text.split()[0], no_exact, "use another operation in its place, or the CPU")
    return None


def layout(device: torch.device) -> torch.memory_format:
    """How the weights of convolutions lie in the memory of a device: channels last on CUDA, else as they are made."""
    return torch.channels_last if device.type == "cuda" else torch.preserve_format


def tf32() -> tuple[bool, bool]:
    """Whether CUDA computes with float32 as TF32, by torch's settings or NVIDIA_TF32_OVERRIDE in the environment."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        return False, False
    if (convolutions := getattr(cudnn, "conv", None)) is None:  # before torch 2.9
        return bool(cudnn.allow_tf32), bool(products.allow_tf32)
    return convolutions.fp32_precision == "tf32", products.fp32_precision == "tf32"


def rounds_products(device: torch.device) -> bool:
    """Whether torch was told to round the numbers of float32 matrices before it multiplies them there."""
    if device.type == "cuda":
        return tf32()[1]
    if device.type != "cpu":
        return False
    if (products := getattr(torch.backends.mkldnn, "matmul", None)) is None:  # before torch 2.9
        return torch.get_float32_matmul_precision() == "medium"
    return products.fp32_precision in ("bf16", "tf32")


def kernels(device: torch.device) -> str:
    """What the last bits on CUDA depend on besides type and device, in words."""
    names = ["TF32" if each else "float32" for each in tf32()]
    return f"repeatable, channels last, float32 convolutions in {names[0]}, products in {names[1]}"
