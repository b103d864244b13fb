"""How a run that is about to begin compiles its network, tried on its own steps where it is long enough."""

import dataclasses
from collections.abc import Callable
from typing import Any

from unstir.data import Store
from unstir.distributed import processes
from unstir.progress import Say
from unstir.runs import build, compiling
from unstir.runs.compiling import Compile
from unstir.runs.run import Run
from unstir.train.trainer import Trainer

LONG = 7200.0  # seconds of a training that pays for trying how to compile, which takes minutes


def how_to_compile(draft: Run, store: Store, say: Say) -> Compile:
    """What train.compile means for the run that ``draft`` describes; ``say`` is called with what was measured.

    Of several processes one alone tries it, on its share of a batch. A step as it is written that runs out of memory
    is tried with a smaller micro-batch, as in training; one that is compiled is not. Raises UserError where it cannot
    be compiled as asked.
    """
    config, device = draft.config, build.device(draft.config.train.device)
    if config.train.compile == "auto" and config.train.shard:
        return "no"
    if config.train.compile != "auto":
        compiling.check(config.train.compile, device, "use --train.compile no")
        return config.train.compile
    part = -(-config.train.batch_size // processes.size())
    share: dict[str, Any] = {"batch_size": part, "micro_batch": min(config.train.micro_batch, part)}

    def step(how: str) -> Callable[[], None]:
        train = dataclasses.replace(config.train, **share, compile=how)  # type: ignore[arg-type]  # one of the four
        trainer = Trainer(dataclasses.replace(draft, config=dataclasses.replace(config, train=train)), store)

        def take() -> None:
            if trainer.take_step():
                if how != "no":
                    raise MemoryError("out of memory")
                share["micro_batch"] = trainer.micro_batch  # of which kernels will be made

        return take

    _, height, width = store.shape
    work = 2 * build.passes(config) * build.num_parameters(config) * height * width * draft.length * part
    with processes.alone():
        how, found = compiling.fastest(step, device, draft.length, work, LONG)
    if found:
        say(found)
    return how
