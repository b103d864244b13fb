"""From a run's folder to `Facts`, and what is measured first where it has not been."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from unstir.chain import OPTIONS
from unstir.compare import compare, parse
from unstir.data import Store
from unstir.doctor import diagnose
from unstir.errors import printable
from unstir.metrics.drawn import Drawn, seconds_per_call, usual_chain, usual_labels
from unstir.metrics.evaluate import usual_number
from unstir.metrics.evaluation import Evaluation, saved, unlike
from unstir.metrics.features import Network
from unstir.metrics.likelihood import Likelihood
from unstir.metrics.likelihood import read as read_likelihood
from unstir.metrics.plan import Plan, check, judge
from unstir.metrics.request import SEEDS
from unstir.progress import counted, counting
from unstir.report.facts import Cost, Facts, Speed, chain_key
from unstir.runs import build
from unstir.runs.checkpoint import environment
from unstir.runs.files import write_text
from unstir.runs.lines import decode, encode
from unstir.runs.run import Run
from unstir.runs.timetable import all_snapshots

CHAINS = "ddim:10,ddim:20,ddim:50,unipc:5,unipc:10,dpmpp_2m_sde:10,dpmpp_2m_sde:20,dpmpp_2m_sde:50,ancestral:50"
"""What the last step is sampled by in addition to the usual chain, for the plot of calls against quality."""
DISTILLED = "consistency:1,consistency:2,consistency:4"  # the same of a run that learned from a teacher

APART = ("sampler", "steps", "calls", "spacing", *OPTIONS)  # what differs between the chains of that plot
SPEED = "speed.json"
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
    others = parse(DISTILLED if run.config.kind.has_teacher else CHAINS, usual)
    chains = [chain for chain in others if chain.steps <= models[-1].process.T]
    by_step = [
        replace(
            plan,
            images=replace(of_last, model=model),
            memorisation=model is models[-1] and run.config.kind.trained_here,
        )
        for model in models
    ]
    by_chain = [replace(plan, images=replace(of_last, chain=chain), memorisation=False) for chain in chains]
    found = Measuring(tuple(by_step), tuple(by_chain))
    for each in found.all:
        check(each)
    return found


def measure(plans: Sequence[Plan[Drawn]]) -> list[Evaluation]:
    """Carry out plans; what was measured before is taken from the run's folder."""
    found = []
    with counting("evaluating", "evaluations") as count:
        for done, plan in enumerate(plans):
            chain = plan.images.chain
            count(done, len(plans), f"step {plan.images.model.step} by {chain.sampler}, {counted(chain.steps, 'step')}")
            found.append(judge(plan))
        count(len(plans), len(plans))
    return found


def time_samplers(run: Run, plans: Measuring) -> None:
    """Time every sampler that the plans draw with, as `unstir sample --compare` does, and keep it in RUN/speed.json.

    Not again but on another machine or for other samplers.
    """
    last = plans.by_step[-1].images
    model, job = last.model.unloaded(), last.job(1)
    machine, schedule = environment(model.device), model.process.schedule
    chains = [last.chain, *(plan.images.chain for plan in plans.by_chain)]
    calls = {chain_key(each.sampler, each.spacing, each.calls(schedule)): each for each in chains}
    known = read_speed(run)
    if known is not None and known.machine == machine and known.seconds.keys() == calls.keys():
        return
    whole = seconds_per_call(last) * sum(chain.calls(schedule) for chain in calls.values())
    num = max(1, min(job.batch_size, int(SECONDS / whole)))
    timed = compare(model, replace(job, num=num), list(calls.values()))
    seconds = {name: float(f"{each.seconds:.3g}") for name, each in zip(calls, timed, strict=True)}
    made = Speed(seconds=seconds, num=num, machine=machine, date=datetime.date.today().isoformat())
    write_text(run.path / SPEED, encode(asdict(made), indent=1) + "\n")


def read_speed(run: Run) -> Speed | None:
    """What `time_samplers` kept; None where it kept nothing, or the file is damaged."""
    try:
        found = Speed(**decode((run.path / SPEED).read_bytes()))
        whole = all(float(value) > 0 for value in found.seconds.values()) and found.num > 0
        return found if whole and {"device", "torch"} <= found.machine.keys() else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def gather(run: Run, store: Store | None, protocol: Mapping[str, Any] | None = None, samples: bool = False) -> Facts:
    """What the run's folder says, with those of its evaluations that compare: by ``protocol``, else the most of them.

    Measures nothing itself, but for the doctor, who draws some images of its own if ``samples``.
    """
    lines = run.metrics()
    step = lines[-1]["step"] if lines else 0
    by_step, by_chain = comparable(saved(run), protocol)
    events = run.log("events").lines
    machines = [f"{event['device']}, torch {event['torch']}" for event in events if {"device", "torch"} <= event.keys()]
    examined = diagnose(run.path, store=None if store is None else store.path, samples=samples)
    return Facts(
        name=printable(run.path.resolve().name),
        config=run.config,
        data=run.data,
        step=step,
        length=run.length,
        cost=cost(run),
        metrics=tuple(lines),
        held_out=tuple(run.held_out()),
        by_step=by_step,
        by_chain=by_chain,
        likelihoods=_likelihoods(run, evaluated=by_step[-1].step if by_step else (run.saved_steps() or [step])[-1]),
        findings=examined.findings,
        checked=examined.checked,
        skipped=examined.skipped,
        speed=read_speed(run),
        trained_on=tuple(dict.fromkeys(machines)),
    )


def comparable(
    evaluations: Sequence[Evaluation], protocol: Mapping[str, Any] | None = None
) -> tuple[tuple[Evaluation, ...], tuple[Evaluation, ...]]:
    """The evaluations of several steps by one protocol, and those of the last of them by several chains.

    Without ``protocol`` it is that of which there are most of both kinds together; of equally many, with most images.
    """
    newest = max((each.step for each in evaluations), default=0)
    last = [each for each in evaluations if each.step == newest]

    def group(of: Evaluation) -> tuple[tuple[Evaluation, ...], tuple[Evaluation, ...]]:
        by_step = tuple(each for each in evaluations if not unlike(of.protocol, each.protocol))
        return by_step, tuple(each for each in last if not unlike(of.protocol, each.protocol, APART))

    def weight(of: Evaluation) -> tuple[int, int]:
        return sum(map(len, group(of))), of.protocol["num"] * of.protocol["seeds"]

    asked = [each for each in last if protocol is not None and not unlike(protocol, each.protocol)]
    return group(max(asked or last, key=weight)) if last else ((), ())


def cost(run: Run) -> Cost:
    """What training took so far."""
    lines = run.metrics()
    return Cost(
        parameters=build.num_parameters(run.config),
        images=lines[-1]["images"] if lines else 0,
        seconds=lines[-1]["seconds"] if lines else 0.0,
        forward_flops=float(build.forward_flops(run.config, *run.data.shape[1:])),
        passes=run.config.kind.passes,
    )


def _likelihoods(run: Run, evaluated: int) -> dict[str, dict[str, Any]]:
    """The bounds that `unstir likelihood` wrote, by split: every term and all images where it was so measured.

    Only those of the newest step that has any are taken, and none of a step before ``evaluated``: they are of weights
    that the run has left behind.
    """
    read = map(read_likelihood, sorted((run.path / "likelihood").glob("*.json")))
    results = [each for each in read if each is not None and each.protocol["step"] >= evaluated]
    newest = max((each.protocol["step"] for each in results), default=None)
    found: dict[str, dict[str, Any]] = {}
    for each in sorted(results, key=_as_by_default):
        if each.protocol["step"] == newest:
            found.setdefault(each.protocol["split"], asdict(each))
    return found


def _as_by_default(result: Likelihood) -> tuple[int, ...]:
    """What sorts bounds of one step: first those that `unstir likelihood` computes where it is told nothing else."""
    how = result.protocol
    weights_and_calls = how.get("ema") is not True, not how.get("clip"), how["calls"] != how["T"]
    variance = how.get("variance") != "learned", how.get("variance") != "large"  # as auto takes them
    return *weights_and_calls, *variance, -result.num, how.get("seed") != 0, how.get("dtype") != "float32"
