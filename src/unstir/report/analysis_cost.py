"""How many network calls a sample needs, and what training cost."""

import statistics
from dataclasses import dataclass
from functools import partial

from unstir.doctor.numbers import numbers
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.figures import LOWER
from unstir.progress import duration
from unstir.report.facts import Facts, more_seeds
from unstir.report.statement import Statement
from unstir.report.wording import change, count, operations, passes, shown, size
from unstir.significance import Effect, Estimate, difference


@dataclass(frozen=True)
class Enough:
    """A ``chain`` of few calls: its ``harm`` against the most is not decided, its ``gain`` over a ``worse`` one is.

    The second is what makes the first say something: figures too rough to tell anything apart find no chain enough.
    """

    chain: Evaluation
    harm: Effect
    worse: Evaluation
    gain: Effect


def enough(facts: Facts) -> Enough | None:
    """The fewest calls that do as well as the most, as far as can be told; None where nothing can be told."""
    reference, harms = _harms(facts)
    worse = [each for each, harm in harms if harm.positive]
    for chain, harm in harms:
        if worse and chain not in worse and _calls(chain) < _calls(reference):
            gains = [(_harm(chain, other, len(harms)), other) for other in worse]
            gain, other = max(gains, key=lambda pair: pair[0].z or 0.0)
            if gain.positive:
                return Enough(chain, harm, other, gain)
    return None


def sampling(facts: Facts) -> list[Statement]:
    """The sentence on the fewest network calls that do as well as the most."""
    few = partial(Statement, "enough calls", "sampling", "calls")
    if len(facts.by_chain) < 2:
        text = "How many network calls a sample needs was not measured; `unstir report RUN` "
        return [few("undecided", f"{text}evaluates several samplers with several numbers of calls.")]
    reference, _ = _harms(facts)
    if (enough_of := enough(facts)) is None:
        text = f"Whether fewer calls than the {_calls(reference):,} of {reference.protocol['sampler']} do as well is "
        return [few("undecided", f"{text}undecided: more seeds ({more_seeds(reference)}) would tell.")]
    text = f"Fewer calls do: {_described(enough_of.chain)} cannot be distinguished from {_described(reference)} (the "
    text += f"difference is {change(enough_of.harm)}), but is better than {_chain(enough_of.worse)} by "
    return [few("good", f"{text}{size(enough_of.gain)}.", enough_of.gain)]


def _harms(facts: Facts) -> tuple[Evaluation, list[tuple[Evaluation, Effect]]]:
    """The chain of most calls (the better of several), and all others by rising calls with how much worse they are."""
    chains = facts.by_chain
    reference = max(chains, key=lambda each: (_calls(each), _harm(each, chains[0]).value))
    others = sorted((each for each in chains if each is not reference), key=_calls)
    return reference, [(each, _harm(reference, each, len(others))) for each in others]


def _harm(a: Evaluation, b: Evaluation, choices: int = 1) -> Effect:
    """How much worse ``b`` is than ``a`` by the main figure of ``a``, positive where it is."""
    key = a.main_key
    sign = 1 if a.main().better == LOWER else -1
    x, y = (Estimate(sign * of.value, of.error, of.df) for of in (a.figures[key].estimate, b.figures[key].estimate))
    return difference(x, y, choices)


def _calls(chain: Evaluation) -> int:
    return int(chain.protocol["calls"])


def _chain(of: Evaluation) -> str:
    """ "ddim with 20 calls"."""
    return f"{of.protocol['sampler']} with {count(_calls(of), 'call')}"


def _described(of: Evaluation) -> str:
    """ "ddim with 20 calls (0.57 +- 0.05)"."""
    return f"{_chain(of)} ({shown(of.main())})"


def cost(facts: Facts) -> list[Statement]:
    """The sentence on what training took."""
    spent, speeds = facts.cost, numbers(facts.metrics, "images_per_second")
    median = statistics.median(speeds) if speeds else 0.0
    speed = f", {median:,.{0 if median >= 10 else 1}f} images per second" if speeds else ""
    seen = f"({passes(spent.images, facts.data.counts['train'])})"
    if facts.config.kind.has_teacher:
        seen = "of its teacher's paths"
    text = f"Training took {duration(spent.seconds)} for {count(spent.images, 'image')} {seen}"
    text += f"{speed}: {operations(spent.training_flops)} by a network of {count(spent.parameters, 'parameter')}, "
    text += f"{operations(spent.forward_flops)} for the forward pass of one image."
    return [Statement("cost", "cost", "cost", "neutral", text)]
