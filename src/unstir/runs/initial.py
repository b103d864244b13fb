"""The weights that a new run begins with where train.init names those of another."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unstir.errors import UserError
from unstir.runs import build, checkpoint, toml
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.config import Config
from unstir.runs.loading import misfits, weights_of
from unstir.runs.run import Run, run_and_step

MAY_BE_NEW = ("label.weight",)
"""What a conditional run has and an unconditional one has not."""


def initial_weights(net: nn.Module, config: Config) -> tuple[dict[str, Tensor], str]:
    """The sampling weights that train.init names, completed by the network's own of `MAY_BE_NEW`; a sentence on these.

    It names a file, a run, or RUN@STEP. Raises UserError for anything else, and for weights that do not fit.
    """
    found, own, source = _checkpoint_of(config.train.init), net.state_dict(), config.train.init
    weights = weights_of(found, ema=True)
    new = [name for name in MAY_BE_NEW if name in own and name not in weights]
    weights |= {name: own[name] for name in new}
    if wrong := misfits(own, weights):
        what = f"{'; '.join(_unlike(found.config, config) or wrong[:3])} ({len(wrong)} tensors, {wrong[0]})"
        remedy = "use the same [model] settings, or leave it out"
        raise UserError(f"train.init={source} does not fit the network: {what}; {remedy}")
    begins = f"begins with the weights of {source}, step {found.step}; it has no {', '.join(new)}, which is new and"
    return weights, f"{begins} keeps its own initial values" if new else ""


def check_initial(config: Config) -> None:
    """Raise UserError where train.init is no saved weights, or does not fit the network of the config."""
    if config.train.init:
        initial_weights(build.network(config, torch.device("cpu")), config)


def _checkpoint_of(text: str) -> Checkpoint:
    if Path(text).is_file():
        return checkpoint.load(Path(text))
    folder, step = run_and_step(text)
    if not Path(folder).is_dir():
        raise UserError(f"train.init={text} does not exist; name a run, RUN@STEP, or a weights file of unstir")
    return Run.open(folder).load(step)


def _unlike(saved: dict[str, Any], config: Config) -> list[str]:
    """The settings of the network's shape that differ, in words."""
    there = toml.from_dict(saved, "train.init")
    theirs, ours = toml.flat(there), toml.flat(config)
    free = "model.dropout", "model.num_classes"
    keys = [key for key in ours if key.startswith("model.") and key not in free]
    pairs = [(key, theirs.get(key), ours[key]) for key in (*keys, "diffusion.learned_variance")]
    labels = "the number of labels (model.num_classes, and one hidden with train.label_dropout)"
    pairs.append((labels, build.num_labels(there), build.num_labels(config)))
    return [f"{key} is {their} there, {our} here" for key, their, our in pairs if their != our]
