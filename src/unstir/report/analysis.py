"""The written analysis of a run: what its own numbers say, sentence by sentence.

Each sentence rests on a tested effect beyond `significance.LEVEL` and points to the figure that shows it, or says that
the question is undecided or was not measured. Advice rests on decided sentences alone and comes last. The themes are a
module each; all of them are functions of `Facts`, so that the same folder always reads the same.
"""

from unstir.report.analysis_cost import cost
from unstir.report.analysis_fit import fit
from unstir.report.analysis_memorisation import memorisation
from unstir.report.analysis_next import advice
from unstir.report.analysis_progress import progress
from unstir.report.analysis_quality import diversity, quality
from unstir.report.analysis_sampling import sampling
from unstir.report.facts import Facts
from unstir.report.statement import Statement


def analyse(facts: Facts) -> tuple[Statement, ...]:
    """The sentences about a run, by topic in the order of `TOPICS`; what is missing in ``facts`` is said to be."""
    themes = (progress, quality, fit, diversity, memorisation, sampling, cost)
    found = [statement for theme in themes for statement in theme(facts)]
    return (*found, *advice(facts, found))
