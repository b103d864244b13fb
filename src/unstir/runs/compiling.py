"""`torch.compile` for a network: in place, so that its weights keep their names, and whether it pays.

It joins what lies between the products of matrices into few kernels. "graphs" also records these as CUDA graphs, which
a GPU runs without waiting for Python between them; elsewhere it is "yes". The kernels are written and compiled at the
first call, in minutes; torch keeps them (in TORCHINDUCTOR_CACHE_DIR), so that the next start takes seconds. They give
other last bits, so a run keeps to what it began with.
"""

import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Literal

import torch

from unstir.diffusion.denoiser import Denoiser
from unstir.errors import UserError, is_out_of_memory
from unstir.progress import duration
from unstir.runs import resources

Compile = Literal["no", "yes", "graphs"]
BACKEND = "inductor"
GAIN = 1.05  # so many times as fast it has to be
CALLS = 5  # that are timed of each
WORK = 1e14  # floating-point operations: minutes on a CPU, about a second on a GPU


def compiled(denoiser: Denoiser, how: str) -> Denoiser:
    """The denoiser with its network compiled in place; "no" and "auto" leave it as it is. Raises UserError as `check`.

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


def check(how: str, device: torch.device, otherwise: str = "use compile=no") -> None:
    """Raise UserError, with the remedy ``otherwise``, where this machine cannot compile as asked for the device."""
    if how in ("yes", "graphs") and (reason := lacking(device)):
        raise UserError(f"compile={how}: {reason}; or {otherwise}")


def lacking(device: torch.device) -> str:
    """What this machine lacks to compile for the device, with its remedy; "" where nothing is."""
    if device.type not in ("cpu", "cuda"):
        return f"torch compiles for CPU and CUDA, not for {device.type}; use another device"
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        return f"there is no C++ compiler {name} on this machine; install it, or name another in CXX"
    return ""


def fastest(
    build: Callable[[str], Callable[[], object]], device: torch.device, calls: int, work: float, least: float
) -> tuple[Compile, str]:
    """How to compile for a job of so many ``calls``, measured here, and in words what was found; "" where nothing was.

    ``build(how)`` gives the call with a network compiled so; one is held at a time. The attempt takes as long as
    compiling does, which a job of fewer than ``least`` seconds does not pay for; one of less ``work`` (operations) than
    `WORK` is not even timed. What fails, such as for want of memory, is not taken; an error of the call as it is
    written is raised.
    """
    if work < WORK:
        return "no", ""
    seconds = _medians([build("no")], device, 1)[0]
    resources.release(device)
    if calls * seconds < least:
        return "no", ""
    if reason := lacking(device):
        return "no", f"compile=no: {reason}"
    gain, words = GAIN, list[str]()
    best: Compile = "no"
    attempts: tuple[Compile, ...] = ("yes", "graphs") if device.type == "cuda" else ("yes",)
    for how in attempts:
        try:
            faster, start = _attempt(build, how, device)
        except (RuntimeError, MemoryError) as error:  # torch's compiler fails in many ways
            reason = "out of memory" if is_out_of_memory(error) else " ".join(str(error).split())[:100]
            words.append(f"{how} fails: {reason}")
            faster, start = 0.0, 0.0
        else:
            words.append(f"{how} is {faster:.2f} times as fast, ready after {duration(start)}")
        torch.compiler.reset()  # as in a process that goes on with the job
        resources.release(device)
        if faster >= gain:
            best, gain = how, faster
    return best, f"compile={best}, as measured: {'; '.join(words)}"


def _attempt(build: Callable[[str], Callable[[], object]], how: Compile, device: torch.device) -> tuple[float, float]:
    """How many times as fast the call is that is compiled so, and the seconds until it was ready.

    Both are one call, which sets its kernels aside every other time: so there is memory for one alone.
    """
    began, call = time.perf_counter(), build(how)
    _medians([call], device, 1)
    start = time.perf_counter() - began

    def without() -> None:
        with set_aside(how):
            call()

    as_written, compiled = _medians([without, call], device, CALLS)
    return as_written / compiled, start


def _medians(calls: Sequence[Callable[[], object]], device: torch.device, rounds: int) -> list[float]:
    """The median seconds of each of some calls, which take turns, after a first one of each; a minute is enough."""
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + 60
    for number in range(rounds + 1):
        for call, seconds in zip(calls, times, strict=True):
            began = time.perf_counter()
            call()
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            seconds += [time.perf_counter() - began] * (number > 0)
        if number and time.perf_counter() > end:
            break
    return [statistics.median(seconds) for seconds in times]
