"""Several ways of sampling side by side: one picture from one noise, with what each of them costs."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unstir.chain import Chain, Cost
from unstir.errors import UserError
from unstir.generate import Job, generate
from unstir.pixels import to_uint8
from unstir.runs.model import Model


@dataclass(frozen=True)
class Sampled:
    """The images of one chain, uint8 [N, C, H, W], with the cost of each and its seconds per image."""

    chain: Chain
    images: Tensor
    cost: Cost
    seconds: float

    @property
    def caption(self) -> str:
        """The chain in a few words, with its cost."""
        spacing = "" if self.chain.spacing == "trailing" else f" {self.chain.spacing}"
        return f"{self.chain.sampler}{spacing}, {self.cost}, {self.seconds:.3g} s per image"


def parse(text: str, base: Chain) -> list[Chain]:
    """The chains of "ancestral:1000,ddim:50,dpmpp_2m:15:log_snr": sampler, steps and, if not the base's, spacing.

    What they leave out is the ``base``'s; an option of another sampler, such as eta, is not. Raises UserError for text
    that is not of this form.
    """
    chains = []
    for part in text.split(","):
        name, *rest = part.strip().split(":")
        if not 1 <= len(rest) <= 2 or not (rest[0].isascii() and rest[0].isdecimal()):
            raise UserError(f"{part.strip()!r} is no sampler with its steps; write for example ddim:50,dpmpp_2m:15")
        spacing = rest[1] if len(rest) == 2 else base.spacing
        chains.append(base.changed(sampler=name, steps=int(rest[0]), spacing=spacing))
    return chains


def compare(
    model: Model, job: Job, chains: Sequence[Chain], progress: Callable[[int, int], None] | None = None
) -> list[Sampled]:
    """The job's images by each of the chains, all from the noise of the job's own seed.

    ``progress(done, total)`` counts steps. Raises UserError as `generate`, before anything is drawn.
    """
    schedule = model.process.schedule
    total = sum((len(chain.times(schedule)) - 1) * -(-job.num // job.batch_size) for chain in chains)
    done, results = 0, []

    def on_step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    warm = replace(job, num=min(job.num, job.batch_size), chain=replace(job.chain, steps=1))
    list(generate(model, warm))  # what is slow but once is not the first chain's
    for chain in chains:
        own = replace(job, chain=replace(chain, seed=job.chain.seed))
        began = time.perf_counter()
        parts = [to_uint8(images) for _, images in generate(model, own, on_step=on_step)]
        seconds = (time.perf_counter() - began) / job.num
        results.append(Sampled(own.chain, torch.cat(parts), own.chain.cost(schedule), seconds))
    return results
