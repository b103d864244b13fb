"""The written analysis of a run: what its own numbers say, sentence by sentence.

Each sentence rests on a tested effect beyond `significance.LEVEL` and points to the figure that shows it, or says that
the question is undecided or was not measured. Each theme is a function of `Facts`, so that the same folder always reads
the same. What to try comes last: the remedies of the doctor's problems and warnings or, where it found none, advice
from decided sentences. For people in a hurry, `summary` chooses three sentences, and `limitations` says what none of
them can.
"""

from collections.abc import Callable, Iterable, Sequence

from unstir.doctor import Cause, causes
from unstir.metrics.evaluation import FID, Evaluation
from unstir.metrics.figures import figure_effect
from unstir.report.analysis_cost import cost, enough, sampling
from unstir.report.analysis_fit import fit
from unstir.report.analysis_progress import progress
from unstir.report.analysis_quality import diversity, memorisation, quality
from unstir.report.facts import Facts, more_seeds
from unstir.report.statement import Statement, Topic
from unstir.report.wording import brief, coded, count, listed
from unstir.runs.bounds import SPAN
from unstir.runs.config import steps_in
from unstir.significance import LEVEL

URGENCY = ("bad", "good", "neutral", "undecided")
SECOND: tuple[Topic, ...] = ("memorisation", "diversity", "fit", "progress", "sampling")


def analyse(facts: Facts) -> tuple[Statement, ...]:
    """The sentences about a run, by topic in the order of `TOPICS`; what is missing in ``facts`` is said to be."""
    themes: tuple[Callable[[Facts], Iterable[Statement]], ...] = (quality, diversity, sampling)
    if facts.config.kind.trained_here:
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
    found = [
        "One training run is shown: another seed of training would give other figures, by more than their errors say.",
        "Samples are the first of a fixed seed and not chosen; the worst ones are chosen, as their caption says.",
    ]
    if facts.last is not None:
        found += limits_of(facts.last)
    if facts.last is not None and facts.config.kind.trained_here:
        found.append(PARTS_OF_IMAGES)
    if not facts.data.counts["held_out"] and facts.config.kind.trained_here:
        found.append("No images were held out, so neither over-fitting nor copies can be distinguished from chance.")
    return found


PARTS_OF_IMAGES = "Copies are searched for as whole images: a copied part of an image is not found."


def limits_of(last: Evaluation) -> list[str]:
    """What the figures of an evaluation cannot show."""
    main, how = last.main(), last.protocol
    found = [f"{main.name} {next(says for start, says in FEATURES.items() if last.main_key.startswith(start))}"]
    if main.error:
        least = f"a difference of {main.name} below about {brief(LEVEL * figure_effect(main, main).error)}"
        sets = f"Figures are of {count(how['seeds'], 'set')} of {count(how['num'], 'image')}"
        found.insert(0, f"{sets}: {least} from a run evaluated alike is not seen.")
    return found


FEATURES = {
    FID: "uses the features of a network trained on photographs; of other images it may miss what matters.",
    "classifier/": "uses the features of a classifier of this very data: it sees what tells the classes apart and may "
    "miss the rest, such as faint noise. It is no FID and compares with no published figure.",
    "patches/": "compares small patches: it does not see whether an image as a whole makes sense.",
    "": "sees what its features see, and compares only with figures in the same features.",
}
"""What the features of a figure see and do not see, by how its key begins."""


def advice(facts: Facts, found: Sequence[Statement]) -> list[Statement]:
    """Sentences on what to try, the most pressing first; where nothing is decided, one that says so.

    Where the doctor names a problem or a warning, its remedies are all that is said.
    """
    if pressing := [cause for cause in causes(facts.findings) if cause.severity != "note"]:
        return [_remedy(cause) for cause in pressing]
    nothing = "What to try next is undecided, for the samples were not measured; `unstir report RUN` measures them."
    if facts.last is not None:
        nothing = "No decided effect says what to try next; more seeds make the errors smaller "
        nothing += f"({more_seeds(facts.last)})."
    return _from_statements(facts, found) or [Statement("next", "next", "quality", "undecided", nothing)]


def _remedy(cause: Cause) -> Statement:
    """The remedy of what the doctor found, with how much it explains."""
    finding = cause.finding
    explains = f" (it explains {count(len(cause.symptoms), 'other finding')} too)" if cause.symptoms else ""
    text = f"Because {finding.says}{explains}: {coded(finding.remedy)}."
    return Statement(f"mend {finding.check}", "next", "doctor", "neutral", text)


def _from_statements(facts: Facts, found: Sequence[Statement]) -> list[Statement]:
    """What the decided statements of the analysis advise; nothing where there are none."""
    decided = {each.name: each for each in found if each.effect is not None and each.effect.decided}
    bad = {name: each for name, each in decided.items() if each.verdict == "bad"}
    made = list[Statement]()
    if (gain := decided.get("more to gain")) is not None and (facts.step < facts.length or "excess" in bad):
        made.append(_longer(facts, gain))
    if (memorised := bad.get("copies") or bad.get("gap")) is not None:
        made.append(_regularise(facts, memorised))
    if "enough calls" in decided and (chain := enough(facts)) is not None:
        how = chain.chain.protocol
        text = f"they cannot be distinguished from samples that cost more: sample with {count(how['calls'], 'call')}, "
        text += f"`unstir sample RUN --sampler {how['sampler']} --steps {how['steps']}`"
        made.append(_because(decided["enough calls"], "fewer calls", text))
    if "class accuracy" in bad and not facts.config.kind.has_teacher:
        made.append(_guidance(facts, bad["class accuracy"]))
    return made


def _because(cause: Statement, name: str, text: str) -> Statement:
    """Advice that rests on ``cause``: its effect, its figure."""
    return Statement(name, "next", cause.figure, "neutral", f"Because {text}.", cause.effect)


def _regularise(facts: Facts, cause: Statement) -> Statement:
    """More images, mirrored ones, more dropout: what keeps a network from memorising its images."""
    remedies = ["more training images"]
    if not facts.config.data.flip:
        remedies.append("mirrored ones (`--data.flip`, where a mirrored image is as good)")
    dropout = facts.config.model.dropout
    if dropout < 0.3 and "dropout" not in facts.config.model.unused:
        remedies.append(f"more dropout (`--model.dropout {min(dropout + 0.1, 0.3):.2g}` in place of {dropout:g})")
    text = "samples lie too near training images"
    if cause.name == "gap":
        text = "the loss of held-out images is above that of training images"
    return _because(cause, "regularise", f"{text}: start another run with {listed(remedies, 'or')}")


def _longer(facts: Facts, cause: Statement) -> Statement:
    """The command that continues the run to twice its length, the cosine's period with it."""
    train = facts.config.train
    if facts.step < facts.length:
        text = f"the loss is still falling: let the run go on from step {facts.step:,} to its end at "
        return _because(cause, "longer", f"{text}{facts.length:,}, `unstir train --out RUN`")
    length, period = SPAN.sub(lambda span: f"{2 * int(span[1])} {span[2]}s", train.length), ""
    if train.lr_schedule == "cosine":
        per_epoch = facts.data.counts["train"] // train.batch_size
        steps = steps_in(length, per_epoch, train.batch_size) - steps_in(train.warmup, per_epoch, train.batch_size)
        period = f' --train.lr_period "{max(steps, 1)} steps"'
    text = "the loss was still falling when the run ended: train for longer, "
    return _because(cause, "longer", f'{text}`unstir train --out RUN --train.length "{length}"{period}`')


def _guidance(facts: Facts, cause: Statement) -> Statement:
    """Guidance where classes are missed."""
    protocol = facts.last.protocol if facts.last is not None else {}
    scale = protocol.get("guidance", 1.0)
    guide = f" --guide {protocol['guide']}" if protocol.get("guide") else ""
    text = "samples miss their class more often than real images: "
    if facts.config.train.label_dropout or guide:
        text += f"try guidance, `unstir evaluate RUN --guidance {scale + 1:g}{guide}` in place of {scale:g}"
    else:
        text += "another run with `--train.label_dropout 0.1` can be guided, `unstir sample RUN --guidance 2`"
    return _because(cause, "guidance", text)
