"""How many network calls a sample needs: the fewest that do as well as the most, and where fewer hurt."""

from collections.abc import Sequence
from dataclasses import dataclass

from unstir.metrics.evaluation import Evaluation
from unstir.metrics.figures import LOWER
from unstir.report.analysis_figures import shown
from unstir.report.facts import Facts
from unstir.report.statement import Statement, not_measured
from unstir.report.wording import count, listed, with_error
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
    harms, reference = _harms(facts), _reference(facts)
    worse = [each for each, harm in harms if harm.decided and harm.value > 0]
    for chain, harm in harms:
        if chain in worse or _calls(chain) >= _calls(reference):
            continue
        gains = [(other, _harm(chain, other, len(harms))) for other in worse]
        other, gain = max(gains, key=lambda pair: pair[1].z or 0.0, default=(None, None))
        if other is not None and gain is not None and gain.decided and gain.value > 0:
            return Enough(chain, harm, other, gain)
    return None


def sampling(facts: Facts) -> list[Statement]:
    """Sentences on the fewest network calls that do as well as the most, and where fewer hurt."""
    if len(facts.by_chain) < 2:
        text = "How many network calls a sample needs was not measured; `unstir report RUN` "
        text += "judges several samplers with several numbers of calls."
        return [not_measured("enough calls", "sampling", "calls", text)]
    reference, harms = _reference(facts), _harms(facts)
    found = []
    if worse := [(each, harm) for each, harm in harms if harm.decided and harm.value > 0]:
        found.append(_where_it_hurts(reference, worse))
    if better := [(each, harm) for each, harm in harms if harm.decided and harm.value < 0]:
        best, harm = min(better, key=lambda pair: pair[1].value)
        text = f"The most calls are not the best: {_described(best)} is better than {_described(reference)} "
        text += f"by {with_error(-harm.value, harm.error)}."
        found.append(
            Statement(name="better chain", topic="sampling", text=text, figure="calls", verdict="good", effect=harm)
        )
    return [*found, _is_enough(facts)]


def _where_it_hurts(reference: Evaluation, worse: Sequence[tuple[Evaluation, Effect]]) -> Statement:
    """The chains that are surely worse than the one of most calls, the surest of them tested."""
    surest = max((harm for _, harm in worse), key=lambda harm: harm.z or 0.0)
    each = [f"{_chain(chain)} ({with_error(harm.value, harm.error, sign=True)})" for chain, harm in worse[:4]]
    text = f"Fewer calls hurt: against {_described(reference)} the samples are worse by {listed(each)}."
    return Statement(name="hurt", topic="sampling", text=text, figure="calls", verdict="neutral", effect=surest)


def _is_enough(facts: Facts) -> Statement:
    found = enough(facts)
    if found is None:
        reference = _reference(facts)
        text = f"Whether fewer calls than the {_calls(reference):,} of {reference.protocol['sampler']} do as well is "
        text += "undecided: more seeds (`unstir evaluate RUN --seeds 10`) would tell."
        return not_measured("enough calls", "sampling", "calls", text)
    size = with_error(found.harm.value, found.harm.error, sign=True)
    text = f"Fewer calls do: {_described(found.chain)} cannot be told from {_described(_reference(facts))} (the "
    text += f"difference is {size}), but is better than {_chain(found.worse)} by "
    text += f"{with_error(found.gain.value, found.gain.error)}."
    return Statement(
        name="enough calls", topic="sampling", text=text, figure="calls", verdict="good", effect=found.gain
    )


def _reference(facts: Facts) -> Evaluation:
    """The chain of most calls, the better where several have as many."""
    chains = facts.by_chain
    return max(chains, key=lambda each: (_calls(each), _harm(each, chains[0]).value))


def _harms(facts: Facts) -> list[tuple[Evaluation, Effect]]:
    """Every other chain by rising calls, with how much worse it is than the reference."""
    reference = _reference(facts)
    others = sorted((each for each in facts.by_chain if each is not reference), key=_calls)
    return [(each, _harm(reference, each, len(others))) for each in others]


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
