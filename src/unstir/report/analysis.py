"""The written analysis of a run: what its own numbers say, sentence by sentence.

Each sentence rests on a tested effect beyond `significance.LEVEL` and points to the figure that shows it, or says that
the question is undecided or was not measured. Advice rests on decided sentences alone and comes last. Each theme
is a function of `Facts`, so that the same folder always reads the same. For people in a hurry, `summary` chooses three
sentences, and `limitations` says what none of them can.
"""

from collections.abc import Sequence

from unstir.metrics.evaluation import FID
from unstir.metrics.figures import figure_effect
from unstir.report.analysis_cost import cost, sampling
from unstir.report.analysis_fit import fit
from unstir.report.analysis_next import advice
from unstir.report.analysis_progress import progress
from unstir.report.analysis_quality import diversity, memorisation, quality
from unstir.report.facts import Facts
from unstir.report.statement import Statement, Topic
from unstir.report.wording import brief, count
from unstir.significance import LEVEL

URGENCY = ("bad", "good", "neutral", "undecided")
SECOND: tuple[Topic, ...] = ("memorisation", "diversity", "fit", "progress", "sampling")
FEW = 100  # with fewer held-out images than this, comparisons are rough


def analyse(facts: Facts) -> tuple[Statement, ...]:
    """The sentences about a run, by topic in the order of `TOPICS`; what is missing in ``facts`` is said to be."""
    themes = (progress, quality, fit, diversity, memorisation, sampling, cost)
    found = [statement for theme in themes for statement in theme(facts)]
    return (*found, *advice(facts, found))


def summary(statements: Sequence[Statement]) -> list[Statement]:
    """Three statements: how good the samples are, what else is worst or else surest, and what to try next.

    A bad one goes before a good one, and of equal ones the first in the order of the page or, for the second, of
    `SECOND`; fewer where there are not so many.
    """
    rest = [each for topic in SECOND for each in statements if each.topic == topic]
    first, following = ([each for each in statements if each.topic == topic] for topic in ("quality", "next"))
    found = [min(of, key=lambda each: URGENCY.index(each.verdict)) for of in (first, rest) if of]
    return found + following[:1]


def limitations(facts: Facts) -> list[str]:
    """What the figures of this page cannot show, from what they were made of."""
    held_out = facts.data.counts["held_out"]
    found = [
        "One training run is shown: another seed of training would give other figures, by more than their errors say.",
        "Samples are the first of a fixed seed and not chosen; the worst ones are chosen, as their caption says.",
    ]
    if (last := facts.last) is not None:
        main, how = last.main(), last.protocol
        sets = f"Figures are of {count(how['seeds'], 'set')} of {count(how['num'], 'image')}"
        if main.error:
            least = f"a difference of {main.name} below about {brief(LEVEL * figure_effect(main, main).error)}"
            found.append(f"{sets}: {least} from a run evaluated alike is not seen.")
        else:
            found.append(f"{sets}, without an error bar: no difference can be distinguished from chance.")
        sees = next(says for start, says in FEATURES.items() if last.main_key.startswith(start))
        found.append(f"{main.name} {sees}")
        found.append("Copies are searched for as whole images: a copied part of an image is not found.")
    else:
        found.append("The samples were not evaluated, so their quality is known only by eye.")
    if not held_out:
        found.append("No images were held out, so neither over-fitting nor copies can be distinguished from chance.")
    elif held_out < FEW:
        found.append(f"{count(held_out, 'image')} held out are few: what is compared with them is rough.")
    return found


FEATURES = {
    FID: "uses the features of a network trained on photographs; of other images it may miss what matters.",
    "classifier/": "uses the features of a classifier of this very data: it sees what tells the classes apart and may "
    "miss the rest, such as faint noise. It is no FID and compares with no published figure.",
    "patches/": "compares small patches: it does not see whether an image as a whole makes sense.",
    "": "sees what its features see, and compares only with figures in the same features.",
}
"""What the features of a figure see and do not see, by how its key begins."""
