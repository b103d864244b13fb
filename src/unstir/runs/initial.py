"""The weights that a new run begins with where train.init names those of another."""

from collections.abc import Mapping
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


def initial_checkpoint(text: str) -> Checkpoint:
    """The checkpoint that train.init names: a file, a run's folder (its newest), or RUN@STEP. UserError for others."""
    if Path(text).is_file():
        return checkpoint.load(Path(text))
    folder, step = run_and_step(text)
    if not Path(folder).is_dir():
        raise UserError(f"train.init={text} does not exist; name a run, RUN@STEP, or a weights file of unstir")
    return Run.open(folder).load(step)


def initial_weights(net: nn.Module, config: Config, found: Checkpoint) -> dict[str, Tensor]:
    """The sampling weights of ``found`` for the network of ``config``, completed by its own of `MAY_BE_NEW`.

    Raises UserError that names the settings which differ, or else the first tensors that do not fit.
    """
    weights, own, source = weights_of(found, ema=True), net.state_dict(), config.train.init
    weights |= {name: own[name] for name in new_tensors(own, weights)}
    if wrong := misfits(own, weights):
        what = "; ".join(_unlike(found.config, config) or wrong[:3])
        raise UserError(
            f"train.init={source} does not fit the network: {what} ({len(wrong)} tensors, {wrong[0]}); use the same "
            "[model] settings, or leave it out"
        )
    return weights


def new_tensors(own: Mapping[str, Any], weights: Mapping[str, Any]) -> list[str]:
    """The tensors that keep their own initial values: those of `MAY_BE_NEW` that only the network has."""
    return [name for name in MAY_BE_NEW if name in own and name not in weights]


def check_initial(config: Config) -> None:
    """Raise UserError where train.init is no saved weights, or does not fit the network of the config."""
    if config.train.init:
        initial_weights(build.network(config, torch.device("cpu")), config, initial_checkpoint(config.train.init))


def _unlike(saved: dict[str, Any], config: Config) -> list[str]:
    """The settings of the network's shape that differ, in words."""
    ours, theirs = toml.to_dict(config), saved
    keys = [("model", key) for key in ours["model"]] + [("diffusion", "learned_variance")]
    pairs: list[tuple[str, Any, Any]] = [(f"{s}.{key}", theirs.get(s, {}).get(key), ours[s][key]) for s, key in keys]
    pairs = [pair for pair in pairs if pair[0] not in ("model.dropout", "model.num_classes")]
    labels = "the number of labels (model.num_classes, and one hidden with train.label_dropout)"
    pairs.append((labels, build.num_labels(toml.from_dict(saved, "train.init")), build.num_labels(config)))
    return [f"{key} is {there} there, {here} here" for key, there, here in pairs if there != here]
