"""Our training step in each setting that a device has, in turns: what every one of them gains or costs.

A setting that a run chooses by itself on CUDA (channels last, deterministic kernels, TF32) is undone here for the
timing alone; there is no option for it.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch

from peers.parts import DEFAULT, Setting, trained
from peers.tables import OURS, Section
from peers.timing import Contestant
from unstir.diffusion import denoiser
from unstir.train import trainer


@contextmanager
def unrepeatable() -> Iterator[None]:
    """Kernels that may give other bits each time, as torch chooses them by itself."""
    with patch.object(denoiser, "repeatable", nullcontext), patch.object(trainer, "repeatable", nullcontext):
        yield


@contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions of float32 in float32."""
    cudnn = torch.backends.cudnn
    before, cudnn.allow_tf32 = cudnn.allow_tf32, False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


def channels_first(made: Any) -> Any:
    """A trainer that has not taken a step, with its weights laid out as on the CPU."""
    made.state.net.to(memory_format=torch.contiguous_format)
    return made


def settings(on: Setting) -> Section:
    """Every setting, beside the default of a GPU."""
    best, contestants, cuda = on.dtypes[-1], list[Contestant](), on.device.type == "cuda"

    def entered(
        made: Any, how: str, dtype: str = best, within: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        def step() -> None:
            with within():
                made.take_step()

        contestants.append(trained(on, OURS, step, dtype, how))

    entered(on.trainer(best), DEFAULT)
    entered(channels_first(on.trainer(best)), "channels first")
    entered(on.trainer(best), "kernels that may give other bits each time", within=unrepeatable)
    entered(on.trainer(best, activation_checkpointing=len(on.size.mults)), "all levels recomputed")
    if on.compiled:
        entered(on.trainer(best, "yes"), "compiled")
        entered(channels_first(on.trainer(best, "yes")), "compiled, channels first")
    if on.compiled and cuda:
        entered(on.trainer(best, "graphs"), "compiled with graphs")
    if cuda or on.native:
        tf32 = "in TF32" * cuda
        entered(on.trainer("float32"), tf32, "float32")
        entered(channels_first(on.trainer("float32")), ", ".join(filter(None, (tf32, "channels first"))), "float32")
    if cuda:
        entered(on.trainer("float32"), "without TF32", "float32", within=without_tf32)
    note = (
        "Ours alone. Shares of float32 without TF32 are of the rate of TF32."
        if cuda
        else "Ours alone; what differs on a GPU alone is the same here."
    )
    return on.timed("Training step, setting by setting", note, contestants, OURS)
