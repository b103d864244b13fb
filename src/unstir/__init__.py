"""Train a denoising diffusion model on images, sample from it, and understand every step.

These names are what a user needs; each is loaded when it is first asked for, so that importing the package is fast.
What lies in the modules below may change.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

logging.getLogger("unstir").addHandler(logging.NullHandler())  # what is logged is shown to who asks for it

if TYPE_CHECKING:
    from unstir.chain import Chain
    from unstir.console import Bars
    from unstir.data import Store, pack
    from unstir.diffusion.denoiser import Prediction
    from unstir.diffusion.draw import draw, drawn_images, starting_noise
    from unstir.diffusion.samplers import Step
    from unstir.errors import UserError
    from unstir.generate.drawing import Job, sample_batches
    from unstir.generate.sampling import sample
    from unstir.interop.exporting import export
    from unstir.interop.importing import import_run
    from unstir.interop.published import pull, push
    from unstir.jobs.process import torchrun_group
    from unstir.metrics.evaluate import evaluate_images, evaluate_run
    from unstir.metrics.request import EvaluationRequest
    from unstir.parts import condition, features, network, sampler, schedule, source, times, tracker, weighting
    from unstir.progress import shown_by
    from unstir.runs.model import Model
    from unstir.runs.recipes import load_recipe
    from unstir.runs.run import Run
    from unstir.theory.process import Process
    from unstir.theory.schedule import NoiseSchedule, cosine, linear
    from unstir.train.launch import train_run

    __version__: str

__all__ = [
    "Bars", "Chain", "EvaluationRequest", "Job", "Model", "NoiseSchedule", "Prediction", "Process", "Run", "Step",
    "Store", "UserError", "condition", "cosine", "draw", "drawn_images", "evaluate_images", "evaluate_run",
    "export", "features", "import_run", "linear", "load_recipe", "network", "pack", "pull", "push", "sample",
    "sample_batches", "sampler", "schedule", "shown_by", "source", "starting_noise", "times", "torchrun_group",
    "tracker", "train_run", "weighting",
]  # fmt: skip

_MODULES = {
    "chain": "Chain", "console": "Bars", "data": "Store pack", "diffusion.denoiser": "Prediction",
    "diffusion.draw": "draw drawn_images starting_noise", "diffusion.samplers": "Step",
    "errors": "UserError", "generate.drawing": "Job sample_batches", "generate.sampling": "sample",
    "interop.exporting": "export", "interop.importing": "import_run", "interop.published": "pull push",
    "jobs.process": "torchrun_group",
    "metrics.evaluate": "evaluate_images evaluate_run", "metrics.request": "EvaluationRequest",
    "parts": "condition features network sampler schedule source times tracker weighting",
    "progress": "shown_by", "runs.model": "Model", "runs.recipes": "load_recipe",
    "runs.run": "Run", "theory.process": "Process", "theory.schedule": "NoiseSchedule cosine linear",
    "train.launch": "train_run",
}  # fmt: skip
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """A name of `__all__`, or the version, loaded now."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            found: Any = version("unstir")
        except PackageNotFoundError:  # a source tree that was not installed
            found = "0+unknown"
    elif name in _HOME:
        found = getattr(import_module(f"unstir.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'unstir' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
