"""One network trained by several processes: each computes the gradient of its slots, and all take the same step.

torch's DistributedDataParallel adds the gradients up, bucket by bucket, while the backward pass goes on. Each
process's loss is a sum over its slots divided by the size of the whole batch, so that the sum is the gradient whatever
sizes the parts have; the mean over processes, which it would take by itself, is not. What decides is the same in all of
them from there on: the gradient, its norm, whether a step is skipped, the moments and the averages.

DistributedDataParallel forms its buckets anew after the first backward pass, and of three or more numbers the sum
depends on their order. A pass that does not count comes first therefore (`Trainer.run`), so that a run that was
continued adds as one that was not.

The processes see the same files where they share a disk. Without one the first alone needs the run's folder, and each
machine a copy of the packed data.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

import unstir
from unstir import randomness
from unstir.data import Store
from unstir.distributed import processes
from unstir.distributed.place import place
from unstir.errors import UserError
from unstir.runs import build, checkpoint, toml
from unstir.runs.card import DataCard
from unstir.runs.checkpoint import FIELDS, Checkpoint
from unstir.runs.config import Config
from unstir.runs.initial import initial_weights
from unstir.runs.run import Run
from unstir.runs.stores import check_data, with_store


def learner(net: nn.Module) -> nn.Module:
    """What is called in place of a network that several processes train; itself in one alone."""
    if processes.size() == 1:
        return net
    wrapped = DistributedDataParallel(net, gradient_as_bucket_view=True)
    wrapped.register_comm_hook(None, lambda _, bucket: _sum(bucket.buffer()))
    return wrapped


def _sum(gradients: Tensor) -> Future[Tensor]:
    """The exchange of a bucket of gradients: their sum over the processes, in their place."""
    added: Future[list[Tensor]] = dist.all_reduce(gradients, async_op=True).get_future()
    return added.then(lambda done: done.value()[0])


def exchanging(learner: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Where a part of a batch goes forward and back: with the ``last`` one of a process the gradients are exchanged."""
    waits = isinstance(learner, DistributedDataParallel) and not last
    return learner.no_sync() if waits else nullcontext()  # type: ignore[operator]


def check_asked(config: Config) -> None:
    """Raise UserError, in all processes, where they were not asked alike, or are too many for the batch."""
    software = {"unstir": unstir.__version__, "torch": torch.__version__, "randomness": randomness.VERSION}
    processes.agree({**software, **toml.flat(config)}, "start all with one version and the same options")
    if config.train.batch_size < (num := processes.size()):
        least = f"train.batch_size={config.train.batch_size} leaves some of {num} processes without an image"
        raise UserError(f"{least}; start fewer, or give a batch of {num} at least")


def shared(own: tuple[Run, Store] | None = None) -> tuple[Run, Store]:
    """The run of the first process, which gives its ``own``, and the data; in the others as they find it.

    These need not see the run's folder. Raises UserError, in all, where one does not see the data, or it has other
    content.
    """
    said: dict[str, Any] = {}
    if own is not None:
        said = {"path": str(own[0].path), "config": toml.to_dict(own[0].config), "data": own[0].data.plain()}
    said, found, problem = processes.of_first(said), own, ""
    if own is None:
        try:
            run = Run(Path(said["path"]), toml.from_dict(said["config"], said["path"]), DataCard.of(said["data"]))
            found = run, with_store(run)[1]
            check_data(run.path, run.data, found[1])
            if place().local == 0:  # once on each machine
                found[1].verify()
        except UserError as error:
            problem = f"{place()}: {error}; all processes need it there, on a shared disk or as a copy"
    if problems := [text for text in processes.of_all(problem) if text]:
        raise UserError(problems[0])
    assert found is not None
    return found


def newest(run: Run, check: Callable[[Checkpoint], None]) -> tuple[Checkpoint | None, dict[Path, str]]:
    """As `checkpoint.newest`, read by the first process, and by it alone known to be damaged, for all of them."""
    found, damaged = checkpoint.newest(run.checkpoints, check) if processes.is_first() else (None, {})
    if processes.size() == 1:
        return found, damaged
    fields = processes.of_first({} if found is None else {name: getattr(found, name) for name in FIELDS})
    if not fields:
        return None, damaged
    tensors = processes.tensors_of_first({} if found is None else found.tensors)
    return Checkpoint(tensors=tensors, **fields), damaged


def initial(config: Config) -> tuple[dict[str, Tensor], str]:
    """As `initial_weights` of the config's network, read by the first process for all of them."""
    weights, said = dict[str, Tensor](), ""
    if processes.is_first():
        weights, said = initial_weights(build.network(config, torch.device("cpu")), config)
    return processes.tensors_of_first(weights), said


def check_alike(net: nn.Module) -> None:
    """Raise UserError, in all processes, where the weights of one have drifted from those of the first."""
    remedy = (
        "its device computes otherwise, or is faulty: leave it out, and the same command goes on from what is saved"
    )
    processes.check_alike(dict(net.named_parameters()), remedy)
