"""What a page needs measured first: evaluations of the saved steps, those of several samplers, and their seconds."""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from unstir.compare import compare, parse
from unstir.data import Store
from unstir.insight.facts import Speed, chain_key
from unstir.insight.gather import SPEED, read_speed
from unstir.metrics.drawn import Drawn, seconds_per_call, usual_chain, usual_labels
from unstir.metrics.evaluate import usual_number
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.features import Network
from unstir.metrics.plan import Plan, check, judge
from unstir.metrics.request import SEEDS
from unstir.progress import counted
from unstir.runs.checkpoint import environment
from unstir.runs.files import write_text
from unstir.runs.lines import encode
from unstir.runs.run import Run
from unstir.runs.timetable import all_snapshots

CHAINS = "ddim:10,ddim:20,ddim:50,unipc:5,unipc:10,dpmpp_2m_sde:10,dpmpp_2m_sde:20,dpmpp_2m_sde:50,ancestral:50"
"""What the last step is sampled by in addition to the usual chain, for the plot of calls against quality."""
DISTILLED = "consistency:1,consistency:2,consistency:4"  # the same of a distilled run

SECONDS = 10.0  # about so long all samplers together are timed, on a whole batch at most and one image at least


@dataclass(frozen=True)
class Measuring:
    """The plans to be carried out, by step and by chain."""

    by_step: tuple[Plan[Drawn], ...]
    by_chain: tuple[Plan[Drawn], ...]

    @property
    def all(self) -> tuple[Plan[Drawn], ...]:
        """All plans."""
        return *self.by_step, *self.by_chain

    def with_networks(self, networks: Sequence[Network]) -> "Measuring":
        """The same plans, measured by the features of ``networks``."""
        by_step, by_chain = (
            [replace(plan, networks=networks) for plan in plans] for plans in (self.by_step, self.by_chain)
        )
        return Measuring(tuple(by_step), tuple(by_chain))


def planned(run: Run, store: Store, *, num: int = 0, seeds: int = SEEDS) -> Measuring:
    """What a report measures: each kept snapshot by the usual chain, the last one by `CHAINS` too; nothing is done yet.

    ``num`` images per set; 0 as `usual_number`. Raises UserError as `check`, for everything that would be refused
    later. Plans have no networks yet.
    """
    usual = usual_chain(run)
    run.newest_step()  # says so where none was saved
    kept = run.saved_steps()
    drawn = all_snapshots(run)
    steps = [step for step in kept if step in drawn] or kept[-1:]
    models = [run.model(step, dtype="auto") for step in steps]  # what cannot be sampled is refused before any work
    of_last = Drawn(run=run, model=models[-1], chain=usual, **usual_labels(run, store))
    plan = Plan(images=of_last, store=store, num=num or usual_number(store), seeds=seeds, flip=run.config.data.flip)
    others = parse(DISTILLED if run.config.distilled else CHAINS, usual)
    chains = [chain for chain in others if chain.steps <= models[-1].process.T]
    by_step = [
        replace(
            plan,
            images=replace(of_last, model=model),
            memorisation=model is models[-1] and not run.config.imported,
        )
        for model in models
    ]
    by_chain = [replace(plan, images=replace(of_last, chain=chain), memorisation=False) for chain in chains]
    result = Measuring(tuple(by_step), tuple(by_chain))
    for item in result.all:
        check(item)
    return result


def measure(plans: Sequence[Plan[Drawn]], progress: Callable[[int, int, str], None] | None = None) -> list[Evaluation]:
    """Carry out plans; what was measured before is taken from the run's folder.

    ``progress(done, total, note)`` counts plans and names the next.
    """
    result, tell = [], progress or (lambda done, total, note: None)
    for done, plan in enumerate(plans):
        chain = plan.images.chain
        tell(done, len(plans), f"step {plan.images.model.step} by {chain.sampler}, {counted(chain.steps, 'step')}")
        result.append(judge(plan))
    tell(len(plans), len(plans), "")
    return result


def time_samplers(run: Run, plans: Measuring) -> None:
    """Time every sampler that the plans draw with, as `unstir sample --compare` does, and keep it in RUN/speed.json.

    Not again but on another machine or for other samplers.
    """
    last = plans.by_step[-1].images
    model, job = last.model.unloaded(), last.job(1)
    machine, schedule = environment(model.device), model.process.schedule
    chains = [last.chain, *(plan.images.chain for plan in plans.by_chain)]
    calls = {chain_key(item.sampler, item.spacing, item.calls(schedule)): item for item in chains}
    known = read_speed(run)
    if known is not None and known.machine == machine and known.seconds.keys() == calls.keys():
        return
    whole = seconds_per_call(last) * sum(chain.calls(schedule) for chain in calls.values())
    num = max(1, min(job.batch_size, int(SECONDS / whole)))
    timed = compare(model, replace(job, num=num), list(calls.values()))
    seconds = {name: float(f"{item.seconds:.3g}") for name, item in zip(calls, timed, strict=True)}
    made = Speed(seconds=seconds, num=num, machine=machine, date=datetime.date.today().isoformat())
    write_text(run.path / SPEED, encode(asdict(made), indent=1) + "\n")
