"""One network trained by several processes: each computes the gradient of its slots, and all take the same step.

What decides is the same in all of them once their gradients are added up (`Alone.learner`): the gradient, its norm,
whether a step is skipped, the moments and the averages.

Gradients travel in buckets, which are formed anew after the first backward pass, and of three or more numbers the sum
depends on their order. A pass that does not count comes first therefore (`Trainer.run`), so that a run that was
continued adds as one that was not.

The processes see the same files where they share a disk. Without one the first alone needs the run's folder, and each
machine a copy of the packed data.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import unstir
from unstir import randomness
from unstir.data import Store
from unstir.errors import UserError
from unstir.group import Alone
from unstir.runs import build, checkpoint, toml
from unstir.runs.card import DataCard
from unstir.runs.checkpoint import FIELDS, Checkpoint
from unstir.runs.config import Config
from unstir.runs.initial import initial_weights
from unstir.runs.run import Run
from unstir.runs.stores import check_data, with_store


def check_asked(group: Alone, config: Config) -> None:
    """Raise UserError, in all processes, where they were not asked alike, or are too many for the batch."""
    software = {"unstir": unstir.__version__, "torch": torch.__version__, "randomness": randomness.VERSION}
    group.agree({**software, **toml.flat(config)}, "start all with one version and the same options")
    if config.train.batch_size < (num := group.size):
        few = f"leaves some of {num} processes without an image"
        raise UserError("train.batch_size", config.train.batch_size, few, ({"train.batch_size": num}, "start fewer"))


def shared(group: Alone, own: tuple[Run, Store] | None = None) -> tuple[Run, Store]:
    """The run of the first process, which gives its ``own``, and the data; in the others as they find it.

    These need not see the run's folder. Raises UserError, in all, where one does not see the data, or it has other
    content.
    """
    said: dict[str, Any] = {}
    if own is not None:
        said = {"path": str(own[0].path), "config": toml.to_dict(own[0].config), "data": own[0].data.plain()}
    said, found, problem = group.of_first(said), own, ""
    if own is None:
        try:
            run = Run(Path(said["path"]), toml.from_dict(said["config"], said["path"]), DataCard.of(said["data"]))
            found = run, with_store(run)[1]
            check_data(run.path, run.data, found[1])
            if group.local == 0:  # once on each machine
                found[1].verify()
        except UserError as error:
            problem = f"{group}: {error}; all processes need it there, on a shared disk or as a copy"
    if problems := [text for text in group.of_all(problem) if text]:
        raise UserError(problems[0])
    assert found is not None
    return found


def newest(group: Alone, run: Run, check: Callable[[Checkpoint], None]) -> tuple[Checkpoint | None, dict[Path, str]]:
    """As `checkpoint.newest`, read by the first process, and by it alone known to be damaged, for all of them."""
    found, damaged = checkpoint.newest(run.checkpoints, check) if group.is_first else (None, {})
    if group.size == 1:
        return found, damaged
    fields = group.of_first({} if found is None else {name: getattr(found, name) for name in FIELDS})
    if not fields:
        return None, damaged
    tensors = group.tensors_of_first({} if found is None else found.tensors)
    return Checkpoint(tensors=tensors, **fields), damaged


def initial(group: Alone, config: Config) -> tuple[dict[str, Tensor], str]:
    """As `initial_weights` of the config's network, read by the first process for all of them."""
    weights, said = dict[str, Tensor](), ""
    if group.is_first:
        weights, said = initial_weights(build.network(config, torch.device("cpu")), config)
    return group.tensors_of_first(weights), said


def check_alike(group: Alone, net: nn.Module) -> None:
    """Raise UserError, in all processes, where the weights of one have drifted from those of the first."""
    remedy = (
        "its device computes otherwise, or is faulty: leave it out, and the same command goes on from what is saved"
    )
    group.check_alike(dict(net.named_parameters()), remedy)
