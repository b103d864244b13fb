"""The seconds that an image takes by each sampler of the report, measured once and kept in RUN/speed.json."""

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from unstir.chain import Chain
from unstir.compare import compare
from unstir.generate import Job
from unstir.metrics.forecast import seconds_per_call
from unstir.runs.files import write_text
from unstir.runs.lines import decode, encode
from unstir.runs.model import Model
from unstir.runs.provenance import environment
from unstir.runs.run import Run

FILE = "speed.json"
SECONDS = 10.0
"""About so long all samplers together are timed, on a whole batch at most and one image at least."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds per image by chain name (`name_of`), on ``machine``, ``num`` images at once; ``date`` is ISO 8601."""

    seconds: dict[str, float]
    num: int
    machine: dict[str, Any]
    date: str


def name_of(sampler: str, spacing: str, calls: int) -> str:
    """What a chain is called in `Speed.seconds`: what decides its time."""
    return f"{sampler} {spacing} {calls}"


def read(run: Run) -> Speed | None:
    """What was measured before; None where nothing was, or the file is damaged."""
    try:
        found = Speed(**decode((run.path / FILE).read_bytes()))
        whole = all(float(value) > 0 for value in found.seconds.values()) and found.num > 0
        return found if whole and {"device", "torch"} <= found.machine.keys() else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def measure(run: Run, model: Model, job: Job, chains: Sequence[Chain]) -> Speed:
    """Time the chains as `unstir sample --compare` does, and keep it; again only on another machine or for others."""
    machine, schedule = environment(model.device), model.process.schedule
    calls = {name_of(each.sampler, each.spacing, each.calls(schedule)): each for each in chains}
    known = read(run)
    if known is not None and known.machine == machine and known.seconds.keys() == calls.keys():
        return known
    whole = seconds_per_call(model, job) * sum(chain.calls(schedule) for chain in calls.values())
    num = max(1, min(job.batch_size, int(SECONDS / whole)))
    timed = compare(model, replace(job, num=num), list(calls.values()))
    seconds = {name: float(f"{each.seconds:.3g}") for name, each in zip(calls, timed, strict=True)}
    made = Speed(seconds=seconds, num=num, machine=machine, date=datetime.date.today().isoformat())
    write_text(run.path / FILE, encode(asdict(made), indent=1) + "\n")
    return made
