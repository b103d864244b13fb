"""Several ways of sampling side by side: one picture from one noise, with what each of them costs."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from unstir.chain import Chain, Cost
from unstir.errors import UserError
from unstir.generate import Job, drawn_classes, sample_batches, settings_of
from unstir.generate.drawing import check
from unstir.pictures.grid import contact_sheet, titled
from unstir.pixels import to_uint8
from unstir.progress import Progress, Showing, counter, silently
from unstir.runs import sidecar
from unstir.runs.model import Model

LINE = 16
"""Images in a line of the picture."""


@dataclass(frozen=True)
class Compared:
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


def compare(model: Model, job: Job, chains: Sequence[Chain], progress: Progress | None = None) -> list[Compared]:
    """The job's images by each of the chains, all from the noise of the job's own seed.

    ``progress(done, total)`` counts steps. Raises UserError as `sample_batches`, before anything is drawn.
    """
    for chain in chains:
        check(model, replace(job, chain=chain))
    schedule = model.process.schedule
    total = sum(chain.cost(schedule).steps * -(-job.num // job.batch_size) for chain in chains)
    on_step, results = counter(progress, total), []
    warm = replace(job, num=min(job.num, job.batch_size), chain=replace(job.chain, steps=1))
    list(sample_batches(model, warm))  # what is slow but once is not the first chain's
    for chain in chains:
        own = replace(job, chain=replace(chain, seed=job.chain.seed))
        began = time.perf_counter()
        parts = [to_uint8(images) for _, images in sample_batches(model, own, on_step=on_step)]
        seconds = (time.perf_counter() - began) / job.num
        results.append(Compared(own.chain, torch.cat(parts), own.chain.cost(schedule), seconds))
    return results


def save_comparison(
    model: Model, job: Job, text: str, out: Path | None = None, *, showing: Showing = silently
) -> tuple[Path, list[Compared]]:
    """Write OUT/compare.png, rows of images by the chains of a ``text`` as `parse` reads it, and return it and them.

    By default OUT is a folder for these settings in RUN/generated. Raises UserError as `parse` and `compare`, and
    where the picture cannot be written.
    """
    chains = parse(text, job.chain)
    for each in chains:
        check(model, replace(job, chain=each))
    settings = {**settings_of(model, job), "num": job.num, "compared": [asdict(chain) for chain in chains]}
    name = f"compare-step{model.step}-seed{job.chain.seed}-{sidecar.digest(settings)}"
    file = (out or model.folder / "generated" / name) / "compare.png"
    sidecar.check(file)
    with showing("comparing", "steps") as progress:
        rows = compare(model, job, chains, progress)
    measured = {key: [getattr(row.cost, key) for row in rows] for key in ("steps", "calls")}
    measured["seconds"] = [row.seconds for row in rows]
    lines = [
        (row.caption if at == 0 else "", row.images[at : at + LINE]) for row in rows for at in range(0, job.num, LINE)
    ]
    sheet = titled(contact_sheet(lines, widest=400), ", ".join(drawn_classes(model, job, LINE)))
    sidecar.save(file, sidecar.png(sheet), "unstir sample --compare", settings, **measured)
    return file, rows
