"""The weights that a new run begins with: those of another run, or of a file, that train.init names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unstir.errors import UserError
from unstir.runs import build, checkpoint, toml
from unstir.runs.checkpoint import Checkpoint, misfits, weights_of
from unstir.runs.config import Config
from unstir.runs.named import names_run, reference, run_and_step
from unstir.runs.run import Run

MAY_BE_NEW = ("label.weight", "augment.weight")  # of networks with more inputs than others


def initial_weights(net: nn.Module, config: Config) -> tuple[dict[str, Tensor], str]:
    """The sampling weights that train.init names, completed by the network's own of `MAY_BE_NEW`; a sentence on these.

    train.init names a file, a run, or RUN@STEP. Raises UserError for anything else, and for weights that do not fit.
    """
    loaded, own, source = _checkpoint_of(config.train.init), net.state_dict(), config.train.init
    there = toml.from_dict(loaded.config, "train.init")
    weights = _as_for(own, weights_of(loaded, ema=True), there)
    new = [name for name in MAY_BE_NEW if name in own and name not in weights]
    weights |= {name: own[name] for name in new}
    if wrong := misfits(own, weights):
        differences = f"{'; '.join(_unlike(there, config) or wrong[:3])} ({len(wrong)} tensors, {wrong[0]})"
        remedy = "use the same [model] settings, or leave it out"
        raise UserError("train.init", source, f"does not fit the network: {differences}", remedy)
    note = f"{source}, step {loaded.step}, has no {', '.join(new)}, which is new and keeps its own initial values"
    return weights, note if new else ""


def _as_for(own: Mapping[str, Tensor], weights: dict[str, Tensor], there: Config) -> dict[str, Tensor]:
    """The weights for a network without labels: what the label that says nothing ``there`` adds to the embedding of the
    time becomes a part of it. Others stay as they are."""
    hides = build.num_labels(there) > there.model.num_classes
    if not hides or there.model.label_beside or "label.weight" in own or "time.second.bias" not in weights:
        return weights
    label, bias = weights["label.weight"], weights["time.second.bias"]
    rest = {name: tensor for name, tensor in weights.items() if name != "label.weight"}
    return {**rest, "time.second.bias": bias + label[-1]}


def pinned(init: str) -> str:
    """A train.init that names a run, as RUN@STEP of its newest weights now. UserError as above."""
    if Path(init).is_file():
        return init
    folder, step = run_and_step(init)
    return f"{reference(folder)}@{_checkpoint_of(init).step if step is None else step}"


def is_pinned(saved: str, asked: str) -> bool:
    """Whether ``saved`` is what `pinned` made, then, of the train.init that is ``asked`` now."""
    (there, at), (folder, step) = run_and_step(saved), run_and_step(asked)
    return bool(asked) and at is not None and step in (None, at) and reference(folder) == reference(there)


def check_initial(config: Config) -> None:
    """Raise UserError where train.init is no saved weights, or does not fit the network of the config."""
    initial_weights(build.network(config, torch.device("cpu")), config)


def check_teacher(config: Config) -> None:
    """Raise UserError unless train.init names a run of this process, no distilled one, that predicts loss.teacher."""
    advice, source = "let unstir distill RUN --out NEW set all of it", config.train.init
    if not source:
        raise UserError("train.init", source, "names no trained run, whose paths are learned", advice)
    teacher = toml.from_dict(_checkpoint_of(source).config, "train.init")
    remedy = "name the run it was made from"
    teacher.kind.check_means(source, " itself, and is no teacher", remedy, key="train.init")
    theirs, ours = vars(teacher.diffusion), vars(config.diffusion)
    process = [name for name in ours if name not in ("predict", "learned_variance")]
    pairs = [(f"diffusion.{name}", theirs[name], ours[name]) for name in process]
    pairs.append(("what the teacher predicts (loss.teacher)", teacher.diffusion.predict, config.loss.teacher))
    if wrong := _differences(pairs):
        raise UserError("train.init", source, f"is not the teacher that is asked for: {'; '.join(wrong)}", advice)


def _differences(pairs: list[tuple[str, Any, Any]]) -> list[str]:
    return [f"{name} is {their} there, {our} here" for name, their, our in pairs if their != our]


def _checkpoint_of(text: str) -> Checkpoint:
    if Path(text).is_file():
        return checkpoint.load(Path(text))
    folder, step = run_and_step(text)
    if not (Path(folder).is_dir() or names_run(folder)):
        raise UserError("train.init", text, "does not exist", "name a run, RUN@STEP, or a weights file of unstir")
    return Run.open(folder).load(step)


def _unlike(there: Config, config: Config) -> list[str]:
    theirs, ours = toml.flat(there), toml.flat(config)
    free = "model.dropout", "model.num_classes"
    keys = [key for key in ours if key.startswith("model.") and key not in free]
    pairs = [(key, theirs.get(key), ours[key]) for key in (*keys, "diffusion.learned_variance")]
    labels = "the number of labels (model.num_classes, and one hidden with train.condition_dropout)"
    pairs.append((labels, build.num_labels(there), build.num_labels(config)))
    augmented = "whether the network is given the augmentation (train.augment)"
    pairs.append((augmented, there.train.augment > 0, config.train.augment > 0))
    return _differences(pairs)
