"""How many network calls a sample needs: the fewest that do as well as the most, and where fewer hurt."""

from dataclasses import dataclass

from unstir.metrics.evaluation import Evaluation
from unstir.metrics.figures import LOWER
from unstir.report.facts import Facts
from unstir.report.statement import Statement
from unstir.report.wording import change, count, listed, shown, size
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
        if chain in worse or _calls(chain) >= _calls(reference):
            continue
        gains = [(_harm(chain, other, len(harms)), other) for other in worse]
        gain, other = max(gains, key=lambda pair: pair[0].z or 0.0, default=(None, reference))
        if gain is not None and gain.positive:
            return Enough(chain, harm, other, gain)
    return None


def sampling(facts: Facts) -> list[Statement]:
    """Sentences on the fewest network calls that do as well as the most, and where fewer hurt."""
    if len(facts.by_chain) < 2:
        text = "How many network calls a sample needs was not measured; `unstir report RUN` "
        text += "evaluates several samplers with several numbers of calls."
        return [Statement("enough calls", "sampling", "calls", "undecided", text)]
    reference, harms = _harms(facts)
    found = []
    if worse := [(each, harm) for each, harm in harms if harm.positive]:
        each = [f"{_chain(chain)} ({change(harm)})" for chain, harm in worse[:4]]
        text = f"Fewer calls hurt: against {_described(reference)} the samples are worse by {listed(each)}."
        surest = max((harm for _, harm in worse), key=lambda harm: harm.z or 0.0)
        found.append(Statement("hurt", "sampling", "calls", "neutral", text, surest))
    if better := [(each, harm) for each, harm in harms if harm.negative]:
        best, harm = min(better, key=lambda pair: pair[1].value)
        text = f"The most calls are not the best: {_described(best)} is better than {_described(reference)} "
        text += f"by {size(harm)}."
        found.append(Statement("better chain", "sampling", "calls", "good", text, harm))
    return [*found, _is_enough(facts, reference)]


def _is_enough(facts: Facts, reference: Evaluation) -> Statement:
    found = enough(facts)
    if found is None:
        text = f"Whether fewer calls than the {_calls(reference):,} of {reference.protocol['sampler']} do as well is "
        text += "undecided: more seeds (`unstir evaluate RUN --seeds 10`) would tell."
        return Statement("enough calls", "sampling", "calls", "undecided", text)
    text = f"Fewer calls do: {_described(found.chain)} cannot be distinguished from {_described(reference)} "
    text += f"(the difference is {change(found.harm)}), but is better than {_chain(found.worse)} by {size(found.gain)}."
    return Statement("enough calls", "sampling", "calls", "good", text, found.gain)


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
