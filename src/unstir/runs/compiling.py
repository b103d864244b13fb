"""`torch.compile` for a network: in place, so that its weights keep their names.

It joins what lies between the products of matrices into few kernels. "graphs" also records these as CUDA graphs, which
a GPU runs without waiting for Python between them; elsewhere it is "yes". The kernels are written and compiled at the
first call, in minutes; torch keeps them (in TORCHINDUCTOR_CACHE_DIR), so that the next start takes seconds. They give
other last bits, so a run keeps to what it began with.
"""

import os
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Literal

import torch

from unstir.diffusion.denoiser import Denoiser
from unstir.errors import UserError

Compile = Literal["no", "yes", "graphs"]
BACKEND = "inductor"


def compiled(denoiser: Denoiser, how: str) -> Denoiser:
    """The denoiser with its network compiled in place; "no" leaves it as it is. Raises UserError as `check`.

    Kernels are for one shape each, so that none depends on the shapes that came before. Nothing is chosen by timing it,
    so that every process makes the same ones. With "graphs" gradients begin as zeros that are to be kept
    (``zero_grad(set_to_none=False)``): those of a first micro-batch would lie where the graph of the next one writes.
    """
    if how not in ("yes", "graphs"):
        return denoiser
    check(how, next(denoiser.net.parameters()).device)
    options = {"triton.cudagraphs": how == "graphs", "deterministic": True} if BACKEND == "inductor" else {}
    known = {key: value for key, value in options.items() if _is_option(key)}
    denoiser.net.compile(backend=BACKEND, dynamic=False, options=known or None)
    for parameter in denoiser.net.parameters():
        if how == "graphs" and parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    return replace(denoiser, reuses_output=how == "graphs")


def _is_option(key: str) -> bool:
    """Whether this version of torch has an option of its compiler ("deterministic" came after the first that do)."""
    from torch._inductor import config  # a second that few commands need

    return key in config.get_config_copy()


def set_aside(how: str) -> AbstractContextManager[object]:
    """In this block compiled networks run as they were written: for a few calls of other shapes."""
    return torch.compiler.set_stance("force_eager") if how in ("yes", "graphs") else nullcontext()


def check(how: str, device: torch.device) -> None:
    """Raise UserError where this machine cannot compile as asked for the device."""
    if how in ("yes", "graphs") and (reason := lacking(device)):
        raise UserError("compile", how, f"does not work: {reason}", {"compile": "no"})


def lacking(device: torch.device) -> str:
    """What this machine lacks to compile for the device, with its remedy; "" where nothing is."""
    if device.type not in ("cpu", "cuda"):
        return f"torch compiles for CPU and CUDA, not for {device.type}; use another device"
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        return f"there is no C++ compiler {name} on this machine; install it, or name another in CXX"
    return ""
