"""The written analysis of a run: what its own numbers say, sentence by sentence.

Each sentence rests on a tested effect beyond `significance.LEVEL` and points to the figure that shows it, or says that
the question is undecided or was not measured. Each theme is a function of `Facts`, so that the same folder always reads
the same. What to try comes last: the doctor's remedies first, then advice from decided sentences alone. A fault that
the doctor found says why a run is as it is; advice that would spend more on such a run is not given. For people in a
hurry, `summary` chooses three sentences, and `limitations` says what none of them can.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from unstir.doctor import Cause, causes
from unstir.doctor.learning import lower_rate
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
FEW = 100  # with fewer held-out images than this, comparisons are rough

SAME: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("learning-rate", "not-finite", "first-loss", "loss-rises", "loss-spikes"), ("steadier",)),
    **dict.fromkeys(("not-learned", "still-falling"), ("longer",)),
    "average-behind": ("quicker average",),
    "overfit": ("stop earlier", "regularise"),
}
"""The advice that says what the remedy of a finding says, by the finding: one of them is given."""

NOT_MENDED = frozenset(
    {"store", "value-range", "flat-images", "copies", "near-copies", "leak", "refused", "classes", "slow-average"}
    | {"learning-rate", "not-finite", "first-loss", "loss-rises", "loss-spikes", "signal-left"}
)
"""Findings that a longer run or a larger network does not mend."""

ASIDE = frozenset({"logs", "checkpoints", "disk"})  # of files and the machine, not of what was learned


def analyse(facts: Facts) -> tuple[Statement, ...]:
    """The sentences about a run, by topic in the order of `TOPICS`; what is missing in ``facts`` is said to be."""
    themes: tuple[Callable[[Facts], Iterable[Statement]], ...] = (quality, diversity, sampling)
    if facts.config.imported:
        themes = (_imported, *themes)
    else:
        themes = (progress, quality, fit, diversity, memorisation, sampling, cost)
    found = [statement for theme in themes for statement in theme(facts)]
    return (*found, *advice(facts, found))


def _imported(facts: Facts) -> list[Statement]:
    text = "How the network was trained, and on which images, is not known here, for its weights were imported: "
    text += "progress, over-fitting and memorisation cannot be told."
    return [Statement("imported", "progress", "cost", "undecided", text)]


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
        found += limits_of(last)
        if not facts.config.imported:
            found.append(PARTS_OF_IMAGES)
    else:
        found.append("The samples were not evaluated, so their quality is known only by eye.")
    if not held_out and not facts.config.imported:
        found.append("No images were held out, so neither over-fitting nor copies can be distinguished from chance.")
    elif 0 < held_out < FEW:
        found.append(f"{count(held_out, 'image')} held out are few: what is compared with them is rough.")
    return found


PARTS_OF_IMAGES = "Copies are searched for as whole images: a copied part of an image is not found."


def limits_of(last: Evaluation) -> list[str]:
    """What the figures of an evaluation cannot show."""
    main, how = last.main(), last.protocol
    sets = f"Figures are of {count(how['seeds'], 'set')} of {count(how['num'], 'image')}"
    if main.error:
        least = f"a difference of {main.name} below about {brief(LEVEL * figure_effect(main, main).error)}"
        found = [f"{sets}: {least} from a run evaluated alike is not seen."]
    else:
        found = [f"{sets}, without an error bar: no difference can be distinguished from chance."]
    sees = next(says for start, says in FEATURES.items() if last.main_key.startswith(start))
    return [*found, f"{main.name} {sees}"]


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

    Where the doctor names a problem of what was learned, or from what, its remedies are all that is said.
    """
    pressing = [cause for cause in causes(facts.findings) if cause.severity != "note"]
    own = _from_statements(facts, found)
    same = {name for cause in pressing for name in SAME.get(cause.finding.check, ())}
    if any(cause.severity == "problem" and cause.finding.check not in ASIDE for cause in pressing):
        own = [each for each in own if each.name in same]
    elif any(cause.finding.check in NOT_MENDED for cause in pressing):
        own = [each for each in own if each.name not in ("longer", "larger", "quicker average")]
    made = list[Statement]()
    for cause in pressing:
        of_page = [each for each in own if each.name in SAME.get(cause.finding.check, ())]
        made += [each for each in of_page or [_remedy(cause)] if each not in made]
    nothing = "What to try next is undecided, for the samples were not measured; `unstir report RUN` measures them."
    if facts.last is not None:
        nothing = "No decided effect says what to try next; more seeds make the errors smaller "
        nothing += f"({more_seeds(facts.last)})."
    made += [each for each in own if each not in made]
    return made or [Statement("next", "next", "quality", "undecided", nothing)]


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
    if unhealthy := [bad[name] for name in ("diverged", "skipped") if name in bad]:
        return [_steadier(facts, unhealthy[0], "; what else is said of this run matters less than that")]
    if "average lags" in bad:
        return [_quicker_average(facts, bad["average lags"])]
    made = [_steadier(facts, bad[name]) for name in ("worse", "training rose") if name in bad][:1]
    if (rose := bad.get("over-fitted") or bad.get("rose")) is not None:
        lowest = min(facts.measured, key=lambda each: each.loss).step
        text = f"the held-out loss rose since step {lowest:,}: sample from the weights of that step, "
        text += f"`unstir sample RUN --checkpoint {lowest}`, where they were kept, or train the next run no longer"
        made.append(_because(rose, "stop earlier", text))
    elif (short := _too_short(facts, decided)) is not None and not made:
        made.append(_longer(facts, short))
    memorised = bad.get("over-fitted") or bad.get("copies") or bad.get("gap")
    if memorised is not None:
        made.append(_regularise(facts, memorised))
    elif "excess" in bad and _too_short(facts, decided) is None and facts.held_out:
        model = facts.config.model
        text = "the samples can be distinguished from real images, though a longer run is not known to help and no gap "
        text += "to held-out images is: try a larger network"
        text += f", `--model.channels {2 * model.channels}` in place of {model.channels}" if model.is_unet else ""
        made.append(_because(bad["excess"], "larger", text))
    if "enough calls" in decided and (chain := enough(facts)) is not None:
        how = chain.chain.protocol
        text = f"they cannot be distinguished from samples that cost more: sample with {count(how['calls'], 'call')}, "
        text += f"`unstir sample RUN --sampler {how['sampler']} --steps {how['steps']}`"
        made.append(_because(decided["enough calls"], "fewer calls", text))
    return made + _guidance(facts, bad)


def _because(cause: Statement, name: str, text: str) -> Statement:
    """Advice that rests on ``cause``: its effect, its figure."""
    return Statement(name, "next", cause.figure, "neutral", f"Because {text}.", cause.effect)


def _steadier(facts: Facts, cause: Statement, end: str = "") -> Statement:
    train = facts.config.train
    what = "steps were skipped" if cause.name == "skipped" else "training did not stay steady"
    clip = "" if 0 < train.clip <= 1 else " and `--train.clip 1`"
    text = f"{what}: start another run with a lower learning rate, "
    text += f"`--train.lr {lower_rate(facts.config):.2g}` in place of {train.lr:g}{clip}{end}"
    return _because(cause, "steadier", text)


def _quicker_average(facts: Facts, cause: Statement) -> Statement:
    """A longer run, or an average over a tenth of this one or less where that is shorter than its own."""
    length, now = max(facts.length, 1), facts.config.train.ema_decay
    decay = round(1 - 10.0 ** math.ceil(math.log10(10 / length)), 9) if length > 100 else 0.9
    text = "the averaged weights lag behind the raw ones: train longer"
    if decay < now - 1e-9:
        text += f", or start another run with an average that forgets sooner, `--train.ema_decay {decay:.6g}` in place "
        text += f"of {now:g}"
    return _because(cause, "quicker average", text)


def _regularise(facts: Facts, cause: Statement) -> Statement:
    """More images, mirrored ones, more dropout: what keeps a network from memorising its images."""
    why = {"over-fitted": "it over-fits", "copies": "samples lie too near training images"}
    remedies = ["more training images"]
    if not facts.config.data.flip:
        remedies.append("mirrored ones (`--data.flip`, where a mirrored image is as good)")
    dropout = facts.config.model.dropout
    if dropout < 0.3 and facts.config.model.is_unet:
        remedies.append(f"more dropout (`--model.dropout {min(dropout + 0.1, 0.3):.2g}` in place of {dropout:g})")
    text = why.get(cause.name, "the loss of held-out images is above that of training images")
    return _because(cause, "regularise", f"{text}: start another run with {listed(remedies, 'or')}")


def _too_short(facts: Facts, decided: Mapping[str, Statement]) -> Statement | None:
    """The statement for which a longer run is advised: that it is under-fitted, or may gain where that is wanted.

    What more a finished run may gain is wanted where its samples can be distinguished from real images.
    """
    gain, excess = decided.get("more to gain"), decided.get("excess")
    wanted = facts.step < facts.length or (excess is not None and excess.verdict == "bad")
    return decided.get("under-fitted") or (gain if wanted else None)


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


def _guidance(facts: Facts, bad: dict[str, Statement]) -> list[Statement]:
    """Guidance where classes are missed, less of it where variety is; none of a distilled run, which takes none."""
    if facts.config.distilled:
        return []
    protocol = facts.last.protocol if facts.last is not None else {}
    scale = protocol.get("guidance", 1.0)
    guide = f" --guide {protocol['guide']}" if protocol.get("guide") else ""
    varied = bad.get("recall") or bad.get("coverage")
    if (cause := bad.get("class accuracy")) is not None:
        text = "samples miss their class more often than real images: "
        if facts.config.train.label_dropout or guide:
            text += f"try guidance, `unstir evaluate RUN --guidance {scale + 1:g}{guide}` in place of {scale:g}"
        else:
            text += "another run with `--train.label_dropout 0.1` can be guided, `unstir sample RUN --guidance 2`"
        return [_because(cause, "guidance", text)]
    if varied is not None and scale > 1:
        text = f"samples are less varied than real images under a guidance of {scale:g}: try less of it, "
        text += f"`unstir evaluate RUN --guidance {(1 + scale) / 2:.3g}{guide}`"
        return [_because(varied, "less guidance", text)]
    return []
