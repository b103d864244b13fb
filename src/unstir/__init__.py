"""Train a denoising diffusion model on images, sample from it, and understand every step.

These names are what a user needs; each is loaded when it is first asked for, so that importing the package is fast.
What lies in the modules below may change.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

logging.getLogger("unstir").addHandler(logging.NullHandler())  # what is logged is shown to who asks for it

if TYPE_CHECKING:
    from unstir.chain import Chain, Cost
    from unstir.console import Bars
    from unstir.data import Store, pack
    from unstir.data.manifest import Note
    from unstir.data.store import Array
    from unstir.diffusion.denoiser import Conditioned, Denoiser, Prediction
    from unstir.diffusion.draw import draw, drawn_images, starting_noise
    from unstir.diffusion.samplers import Step
    from unstir.edit.editing import Edited
    from unstir.edit.edits import blend, inpaint, invert, morph, vary
    from unstir.edit.stack import Filled, inpaint_stack
    from unstir.errors import UserError
    from unstir.generate.drawing import Job, sample_batches
    from unstir.generate.sampling import Sampled, sample
    from unstir.group import Alone
    from unstir.insight.charts import charts
    from unstir.insight.write import write_report
    from unstir.interop.exporting import Exported, export
    from unstir.interop.foreign import Asked
    from unstir.interop.importing import Imported, import_run
    from unstir.interop.published import Published, pull, push
    from unstir.jobs.process import torchrun_group
    from unstir.metrics.evaluate import evaluate_images, evaluate_run
    from unstir.metrics.evaluation import Evaluation
    from unstir.metrics.features import Extractor, Network, Outputs, Trust
    from unstir.metrics.figures import ClassCount, Figure
    from unstir.metrics.memorisation import Match, Memorisation, Pair, Space
    from unstir.metrics.request import EvaluationRequest
    from unstir.metrics.scores import ImageLikelihood, likelihood
    from unstir.nn.config import ModelConfig
    from unstir.parts import condition, features, loss, network, sampler, schedule, source, times, tracker, weighting
    from unstir.pixels import Scale
    from unstir.progress import shown_by
    from unstir.randomness import Key
    from unstir.runs.card import ConditionCard, DataCard, Labels
    from unstir.runs.checkpoint import Checkpoint
    from unstir.runs.conditions import Conditions
    from unstir.runs.config import Config, Kind
    from unstir.runs.lines import Log
    from unstir.runs.model import Model
    from unstir.runs.recipes import load_recipe
    from unstir.runs.run import Run
    from unstir.runs.sections import (
        CheckpointConfig,
        DataConfig,
        DiffusionConfig,
        GridConfig,
        LogConfig,
        LossConfig,
        TrainConfig,
    )
    from unstir.significance import Estimate, Precedence, Shift
    from unstir.theory.parameterization import Parameterization
    from unstir.theory.process import Gaussian, Process
    from unstir.theory.schedule import NoiseSchedule, cosine, linear
    from unstir.train.distill import distill_run
    from unstir.train.launch import Training, train_run
    from unstir.train.observer import Observer, Stop

    __version__: str

__all__ = [
    "Alone", "Array", "Asked", "Bars", "Chain", "Checkpoint", "CheckpointConfig", "ClassCount", "ConditionCard",
    "Conditioned", "Conditions", "Config", "Cost", "DataCard", "DataConfig", "Denoiser", "DiffusionConfig", "Edited",
    "Estimate", "Evaluation", "EvaluationRequest", "Exported", "Extractor", "Figure", "Filled", "Gaussian",
    "GridConfig", "ImageLikelihood", "Imported", "Job", "Key", "Kind", "Labels", "Log", "LogConfig", "LossConfig",
    "Match", "Memorisation", "Model", "ModelConfig", "Network", "NoiseSchedule", "Note", "Observer", "Outputs", "Pair",
    "Parameterization", "Precedence", "Prediction", "Process", "Published", "Run", "Sampled", "Scale", "Shift", "Space",
    "Step", "Stop", "Store", "TrainConfig", "Training", "Trust", "UserError", "blend", "charts", "condition", "cosine",
    "distill_run", "draw", "drawn_images", "evaluate_images", "evaluate_run", "export", "features", "import_run",
    "inpaint", "inpaint_stack", "invert", "likelihood", "linear", "load_recipe", "loss", "morph", "network", "pack",
    "pull", "push", "sample", "sample_batches", "sampler", "schedule", "shown_by", "source", "starting_noise", "times",
    "torchrun_group", "tracker", "train_run", "vary", "weighting", "write_report",
]  # fmt: skip

_MODULES = {
    "chain": "Chain Cost", "console": "Bars", "data": "Store pack", "data.manifest": "Note", "data.store": "Array",
    "diffusion.denoiser": "Conditioned Denoiser Prediction", "diffusion.draw": "draw drawn_images starting_noise",
    "diffusion.samplers": "Step", "edit.editing": "Edited", "edit.edits": "blend inpaint invert morph vary",
    "edit.stack": "Filled inpaint_stack", "errors": "UserError", "generate.drawing": "Job sample_batches",
    "generate.sampling": "Sampled sample", "group": "Alone", "insight.charts": "charts",
    "insight.write": "write_report", "interop.exporting": "Exported export", "interop.foreign": "Asked",
    "interop.importing": "Imported import_run", "interop.published": "Published pull push",
    "jobs.process": "torchrun_group", "metrics.evaluate": "evaluate_images evaluate_run",
    "metrics.evaluation": "Evaluation", "metrics.features": "Extractor Network Outputs Trust",
    "metrics.figures": "ClassCount Figure", "metrics.memorisation": "Match Memorisation Pair Space",
    "metrics.request": "EvaluationRequest", "metrics.scores": "ImageLikelihood likelihood", "nn.config": "ModelConfig",
    "parts": "condition features loss network sampler schedule source times tracker weighting", "pixels": "Scale",
    "progress": "shown_by", "randomness": "Key", "runs.card": "ConditionCard DataCard Labels",
    "runs.checkpoint": "Checkpoint", "runs.conditions": "Conditions", "runs.config": "Config Kind", "runs.lines": "Log",
    "runs.model": "Model", "runs.recipes": "load_recipe", "runs.run": "Run",
    "runs.sections": "CheckpointConfig DataConfig DiffusionConfig GridConfig LogConfig LossConfig TrainConfig",
    "significance": "Estimate Precedence Shift", "theory.parameterization": "Parameterization",
    "theory.process": "Gaussian Process", "theory.schedule": "NoiseSchedule cosine linear",
    "train.distill": "distill_run", "train.launch": "Training train_run", "train.observer": "Observer Stop",
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
