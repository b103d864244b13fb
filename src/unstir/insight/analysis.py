"""The written analysis of a run, from its facts and the doctor's findings: what its own numbers say."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from unstir.insight.checks_data import more_images
from unstir.insight.facts import Facts, more_seeds
from unstir.insight.findings import Cause, Finding, causes
from unstir.insight.statement import Statement, Topic, brief, count
from unstir.insight.themes import MEANINGS, diversity, enough, fit, memorisation, progress, quality, sampling
from unstir.metrics.evaluation import FID, Evaluation
from unstir.metrics.figures import figure_effect
from unstir.pixels import pictured
from unstir.progress import duration
from unstir.significance import LEVEL

URGENCY = ("bad", "good", "neutral", "undecided")
FAILED = ("not-finite", "weights-finite", "loss-rises", "not-learned")  # the doctor's findings of failed training
SECOND: tuple[Topic, ...] = ("memorisation", "diversity", "fit", "progress", "sampling")


def analyse(facts: Facts, findings: Sequence[Finding]) -> tuple[Statement, ...]:
    """The sentences about a run, in the order of `TITLES`; the remedies of the doctor's ``findings`` are the advice."""
    if facts.older and any(it.check in FAILED and it.severity == "problem" for it in findings):
        facts = replace(facts, by_step=(), by_chain=())  # figures of before say nothing of the weights of now
    themes: tuple[Callable[[Facts], Iterable[Statement]], ...] = (quality, diversity, sampling)
    if facts.config.kind.trained_here:
        themes = (progress, quality, fit, diversity, memorisation, sampling)
    statements = [statement for theme in themes for statement in theme(facts)]
    return (*statements, *_advice(facts, findings, statements))


def summary(statements: Sequence[Statement]) -> list[Statement]:
    """Three statements: how good the samples are, what else is worst or else surest, and what to try next.

    A bad one goes before a good one, and of equal ones the first on the page or, for the second, in `SECOND`.
    """
    measured = [it for it in statements if it.verdict != "missing"]
    of_topic = {topic: [it for it in measured if it.topic == topic] for topic in ("quality", *SECOND, "next")}
    candidates = (of_topic["quality"], [it for topic in SECOND for it in of_topic[topic]])
    first = [min(of, key=lambda it: URGENCY.index(it.verdict)) for of in candidates if of]
    return first + of_topic["next"][:1]


def limitations(facts: Facts) -> list[str]:
    """What the figures of this page cannot show."""
    texts = [
        "One training run is shown: another seed would give other figures, by more than their errors say.",
        "Samples are the first of a fixed seed and not chosen, except for the worst ones.",
    ]
    if facts.run.conditions is not None:
        texts.append("Samples, losses and bounds are given the condition of held-out images, and say nothing without.")
    texts += [] if facts.last is None else limits_of(facts.last)
    if not facts.data.counts["held_out"] and facts.config.kind.trained_here:
        texts.append("No images were held out, so neither over-fitting nor copies can be distinguished from chance.")
    return texts


def limits_of(last: Evaluation) -> list[str]:
    """What the figures of an evaluation cannot show."""
    main, protocol = last.main(), last.protocol
    texts = [f"{main.name} {next(sees for start, sees in FEATURES.items() if last.main_key.startswith(start))}"]
    if main.error:
        least = f"a difference of {main.name} below about {brief(LEVEL * figure_effect(main, main).error)}"
        sets = f"Figures are of {count(protocol['seeds'], 'set')} of {count(protocol['num'], 'image')}"
        texts.insert(0, f"{sets}: {least} from a run evaluated alike is not seen.")
    if last.memorisation is not None:
        texts.append("Copies are searched for as whole images: a copied part of an image is not found.")
    return texts


FEATURES = {
    FID: "uses the features of a network trained on photographs; of other images it may miss what matters.",
    "classifier/": "sees what tells the classes of this data apart and may miss the rest, such as faint noise. It is "
    "no FID and compares with no published figure.",
    "patches/": "compares small patches: it does not see whether an image as a whole makes sense.",
    "": "sees no more than its features do.",
}
"""What the features of a figure see and do not see, by how its key begins."""


def _advice(facts: Facts, findings: Sequence[Finding], statements: Sequence[Statement]) -> list[Statement]:
    """What to try, the most pressing first: the doctor's remedies, else what decided statements advise."""
    pressing = [cause for cause in causes(findings) if cause.severity != "note"]
    pressing.sort(key=lambda cause: cause.finding.check == "figures")
    advised = [_remedy(cause) for cause in pressing]
    if not pressing or pressing[0].finding.check == "figures":
        advised = [*_from_statements(facts, findings, statements), *advised]
    if not advised and facts.last is not None:
        nothing = "No decided effect says what to try next; more seeds make the errors smaller "
        return [Statement("next", "next", "quality", "undecided", f"{nothing}({more_seeds(facts.last)}).")]
    return advised


def _remedy(cause: Cause) -> Statement:
    finding = cause.finding
    explains = f" (it explains {count(len(cause.symptoms), 'other finding')} too)" if cause.symptoms else ""
    text = f"Because {finding.says}{explains}: {finding.remedy}."
    return Statement(f"mend {finding.check}", "next", "doctor", "neutral", text)


def _from_statements(facts: Facts, findings: Sequence[Finding], statements: Sequence[Statement]) -> Iterator[Statement]:
    decided = {it.name: it for it in statements if it.effect is not None and it.effect.decided}
    bad = {name: it for name, it in decided.items() if it.verdict == "bad"}
    further = next((it.remedy for it in findings if it.check == "still-falling"), "")  # of a finished run
    if not (facts.finished or facts.run.shipped):
        further = f"let the run go on to its end at step {facts.run.length:,}, `unstir train out=RUN`"
    if (gain := decided.get("more to gain")) is not None and further:
        yield _because(gain, "longer", "the loss is still falling", further)
    if (memorised := bad.get("copies") or bad.get("gap")) is not None:
        reason = "samples lie too near training images"
        if memorised.name == "gap":
            reason = "the loss of held-out images is above that of training images"
        yield _because(memorised, "regularise", reason, f"in a new run {more_images(facts.config)}")
    if "enough calls" in decided and (few := enough(facts)) is not None:
        how = few[0].protocol
        command = f"`unstir sample RUN sampler={how['sampler']} steps={how['steps']}`"
        text = f"sample with {count(how['calls'], 'call')}, {command}"
        reason = "they cannot be distinguished from samples that cost more"
        yield _because(decided["enough calls"], "fewer calls", reason, text)
    if "class accuracy" in bad and not facts.config.kind.has_teacher:
        reason = "samples miss their class more often than real images"
        yield _because(bad["class accuracy"], "guidance", reason, _guidance(facts))


def _because(cause: Statement, name: str, reason: str, remedy: str) -> Statement:
    return Statement(name, "next", cause.figure, "neutral", f"Because {reason}: {remedy}.", cause.effect)


def _guidance(facts: Facts) -> str:
    protocol = facts.last.protocol if facts.last is not None else {}
    scale = protocol.get("guidance", 1.0)
    guide = f" guide={protocol['guide']}" if protocol.get("guide") else ""
    if facts.config.train.condition_dropout or guide:
        return f"try guidance, `unstir evaluate RUN guidance={scale + 1:g}{guide}` in place of {scale:g}"
    return "another run with `train.condition_dropout=0.1` can be guided, `unstir sample RUN guidance=2`"


GOODNESS = {
    ("excess", "bad"): "Its images can still be told from real ones.",
    ("excess", "undecided"): "The samples are too few to say whether its images can be told from real ones.",
    ("excess", "not compared"): "Too few real images were held out to say whether its images can be told from them.",
    ("near", "good"): "Its images are close to real ones.",
    ("too near", "bad"): "Its images are nearer to the training images than new ones can be: they may be copies.",
}  # fmt: skip
"""What a statement about the main figure says, by its name and verdict; "not compared" is one without an effect."""

OTHERS = ("class accuracy", "classes", "distance", *MEANINGS)  # statements on figures beside the main one


def lead(facts: Facts, statements: Sequence[Statement]) -> list[str]:
    """How good the images are, in plain words; then what the run is and where it stands, commands in backticks."""
    kind, images = facts.config.kind, f"Images are {pictured(facts.data.shape, facts.data.scale)}"
    if not kind.trained_here:
        return [_goodness(facts, statements), f"{images}; the weights were imported from {kind.origin}."]
    source = f"learned from {count(facts.data.counts['train'], 'image')} of `{facts.config.data.source}`"
    if kind.has_teacher:
        source = f"distilled from the run `{facts.config.train.init}`"
    where = "Training has finished" if facts.finished else f"Training is at step {facts.step:,} of {facts.run.length:,}"
    where += f"; it took {duration(seconds)}" if (seconds := facts.last_line["seconds"]) else ""
    return [_goodness(facts, statements), f"{images}, {source}. {where}."]


def _goodness(facts: Facts, statements: Sequence[Statement]) -> str:
    measured = [it for it in statements if it.verdict != "missing"]
    keys = ((it.name, "not compared" if it.effect is None else it.verdict) for it in measured)
    main = next((key for key in keys if key in GOODNESS), None)
    if main is None:
        failed = f"the figures below are {facts.older}, before training failed"
        return f"Whether its images are good was not measured; {failed if facts.older else '`unstir evaluate RUN`'}."
    text = GOODNESS[main]
    worse = [it.name for it in measured if it.name in OTHERS and it.verdict == "bad"]
    if worse and main[1] != "bad":
        text += f" By other figures they can be told from real ones (below: {', '.join(worse)})."
    return f"{text} They are {facts.older}." if facts.older else text
