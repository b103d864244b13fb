"""Several ways of sampling side by side: one picture from one noise, with what each of them costs."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from unstir import parts
from unstir.chain import DEFAULTS, Chain, Cost, facts_of, title
from unstir.errors import UserError
from unstir.generate.drawing import Job, check, sample_batches
from unstir.generate.folder import drawn_classes, scaled, settings_of
from unstir.pictures.grid import contact_sheet, titled
from unstir.progress import counter, counting
from unstir.runs import sidecar
from unstir.runs.model import Model

_FORM = re.compile(r":(?![A-Za-z_]\w*:\d)")  # between sampler, steps and spacing, and not within MODULE:NAME
LINE = 16  # images in a line of the picture
WIDEST = 900  # of a caption, in pixels


@dataclass(frozen=True)
class Compared:
    """The images of one chain as shown, uint8 [N, 1 or 3, H, W], what one costs, also in words, and its seconds."""

    chain: Chain
    images: Tensor
    cost: Cost
    said: str
    seconds: float

    @property
    def caption(self) -> str:
        """The chain in a few words, with its cost."""
        return f"{title(self.chain.in_effect())}, {self.said}, {self.seconds:.3g} s per image"


def parse(text: str, base: Chain, given: Mapping[str, Any] = MappingProxyType({})) -> list[Chain]:
    """The chains of "ancestral:1000,dpmpp_2m:15:log_snr,unipc:10:order=2": sampler, steps, any spacing and options.

    What they leave out is the ``base``'s; options of another sampler are not taken over. Those ``given`` are for the
    samplers that take them. Raises UserError for text of another form, and for an option that no sampler takes.
    """
    chains = []
    for part in text.split(","):
        name, steps, *rest = *_FORM.split(part.strip()), "", ""
        options, (spacing, *more) = [item for item in rest if "=" in item], [item for item in rest if "=" not in item]
        if not (steps.isascii() and steps.isdecimal()) or any(more):
            raise UserError("compare", text, "must be samplers with their steps, such as ddim:50,dpmpp_2m:15")
        try:
            chain = base.changed(sampler=name, steps=int(steps), spacing=spacing or base.spacing)
            chains.append(chain.changed(**_options(chain, options, given)))
        except UserError as error:
            raise error.at(f"compare {part.strip()}") from None
    taken = {option for chain in chains for option in facts_of(chain.sampler).options}
    if idle := next((option for option in given if option not in taken), None):
        raise UserError(idle, given[idle], f"is an option of none of the samplers of {text}", {idle: None})
    return chains


def _options(chain: Chain, texts: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a chain's sampler alone: of those ``given``, or as text such as "order=2"."""
    parts.allow(chain.sampler)  # which the user has typed
    fields, pairs = facts_of(chain.sampler).options, [text.partition("=") for text in texts]
    typed = {key: parts.read("sampler", chain.sampler, key, value) for key, _, value in pairs}
    own = {key: value for key, value in typed.items() if key not in fields}
    return {key: value for key, value in {**given, **typed}.items() if key in fields} | {"options": chain.options | own}


def _jobs(model: Model, job: Job, chains: Sequence[Chain]) -> list[Job]:
    """The job by each of the chains, with its own seed; UserError where the model cannot do one of them."""
    jobs = [replace(job, chain=replace(chain, seed=job.chain.seed)) for chain in chains]
    for each in jobs:
        try:
            check(model, each)
        except UserError as error:
            if error.key in DEFAULTS:
                error.at(f"compare {each.chain.sampler}:{each.chain.steps}")
            raise
    return jobs


def compare(model: Model, job: Job, chains: Sequence[Chain]) -> list[Compared]:
    """The job's images by each chain, all from the noise of its seed; UserError as `sample_batches`, at once."""
    jobs = _jobs(model, job, chains)
    costs, results = [each.chain.cost(model.process.schedule) for each in jobs], []
    batches = -(-job.num // job.batch_size)
    first = replace(jobs[0], num=min(job.num, job.batch_size), chain=model.kind.shorter(jobs[0].chain, 1))
    list(sample_batches(model, first))  # what is slow but once is not the first chain's
    with counting("comparing", "steps") as count:
        on_step = counter(count, sum(cost.steps * batches for cost in costs))
        for each, cost in zip(jobs, costs, strict=True):
            began = time.perf_counter()
            images = torch.cat([model.pixels(some) for _, some in sample_batches(model, each, on_step=on_step)])
            seconds = (time.perf_counter() - began) / job.num
            results.append(Compared(each.chain, images, cost, model.cost(each.chain), seconds))
    return results


def save_comparison(
    model: Model,
    job: Job,
    text: str,
    out: Path | None = None,
    *,
    given: Mapping[str, Any] = MappingProxyType({}),
    scale: int | None = None,
) -> tuple[Path, list[Compared]]:
    """Write OUT/compare.png, rows of images by the chains that `parse` reads, and return its path and the rows.

    By default OUT is a folder for these settings in RUN/generated. Images are enlarged by ``scale`` as those of
    `sample`. UserError as `parse`, `compare`, `scaled`, `sidecar.check`.
    """
    model = scaled(model, scale)
    chains = parse(text, job.chain, given)
    first, *_ = _jobs(model, job, chains)
    settings = settings_of(model, first) | {"num": job.num, "compared": [chain.in_effect() for chain in chains]}
    del settings["chain"], settings["calls"]  # each row has its own
    name = f"compare-step{model.step}-seed{job.chain.seed}-{sidecar.digest(settings)}"
    file = (out or model.folder / "generated" / name) / "compare.png"
    sidecar.check(file)
    rows = compare(model, job, chains)
    lines = [
        (row.caption if at == 0 else "", row.images[at : at + LINE]) for row in rows for at in range(0, job.num, LINE)
    ]
    sheet = titled(contact_sheet(lines, widest=WIDEST, scale=model.scale), ", ".join(drawn_classes(model, job, LINE)))
    steps, calls = [row.cost.steps for row in rows], [row.cost.calls for row in rows]
    said, seconds = [row.said for row in rows], [row.seconds for row in rows]
    command = "unstir sample --compare"
    sidecar.save(file, sidecar.png(sheet), command, settings, cost=said, seconds=seconds, steps=steps, calls=calls)
    return file, rows
