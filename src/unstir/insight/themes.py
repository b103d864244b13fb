"""The sentences by theme: what improved when, how the network fits other images, and what the samples are worth."""

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import fmean

from unstir.insight.facts import WORTH, Facts, Measurement, Reported, grown, last_stretch, more_seeds, same_features
from unstir.insight.statement import MARKS, Statement, Topic, Verdict, change, count, percent, sentence, shown, size
from unstir.metrics.evaluation import Evaluation, describe_classifier, protocol_in_words
from unstir.metrics.feature_figures import FEWEST
from unstir.metrics.figures import LOWER, Figure, above_floor, figure_effect, rare_in_words, too_rare
from unstir.metrics.figures import verdict as verdict_of
from unstir.metrics.memorisation import Memorisation
from unstir.significance import Effect, Estimate, difference, exact, paired, two_sample, with_error

NEAR = 2.0  # a distance that is decidedly below so many times that of real images is called good

MEANINGS = {
    "precision": "the share of samples that lie among real images",
    "recall": "the share of real images that lie among the samples",
}


def quality(facts: Reported) -> Iterator[Statement]:
    """Sentences on the main figure against that of real images, and on classes."""
    last, state = facts.last, partial(Statement, topic="quality", figure="quality")
    if last is None:
        yield state("excess", verdict="missing", text="how good the samples are (`unstir evaluate RUN`)")
        return
    figure = last.main()
    yield _excess(last, figure, last.protocol["num"])
    entry, described = last.protocol.get("classifier"), describe_classifier(last.protocol)
    if entry and not entry["used"] and described:  # the data's own is not trusted: what is used in its place
        yield state("classifier", verdict="neutral", text=sentence(described))
    yield from _against_real(facts, last)


def diversity(facts: Reported) -> Iterator[Statement]:
    """Sentences on precision and recall, each against that of real images."""
    if (last := facts.last) is None:
        return
    for key, meaning in MEANINGS.items():
        if (figure := same_features(last, key)) is not None:
            yield from _beside_floor(key, "diversity", f"{key.capitalize()}, {meaning},", figure, last.protocol["num"])


def _excess(last: Evaluation, figure: Figure, num: int) -> Statement:
    state = partial(Statement, "excess", "quality", "quality")
    head = f"{figure.name} is {shown(figure)} ({protocol_in_words(last)})"
    least, apart = figure.floor_estimate, above_floor(figure, num)
    if least is None or apart is None:
        few = f"only {figure.num_floor} real images" if figure.num_floor else "no real images"
        decides = f": `num={figure.num_floor}` decides" if figure.num_floor >= FEWEST else ""
        return state("undecided", f"{head}; {few} were held out to hold it against{decides}.")
    text = f"{head}; real images that it has not seen have {with_error(*least[:2])}"
    by = f"({change(apart)})."
    if not apart.decided:
        below = difference(figure.estimate, Estimate(NEAR * least.value, NEAR * least.error, least.df))
        if figure.better != LOWER or not below.positive:
            return state("undecided", f"{text}. Whether they differ is undecided {by}", apart)
        near = f"it is undecided whether they differ, but it is decidedly less than {NEAR:g} times theirs"
        return Statement("near", "quality", "quality", "good", f"{text}: {near} (by {size(below)}).", below)
    if (apart.value > 0) == (figure.better == LOWER):
        return state("bad", f"{text}: the samples can still be distinguished from real images {by}", apart)
    text += f": the samples are nearer to the reference than new images can be, as copies are {by}"
    return Statement("too near", "quality", "quality", "bad", text, apart)


def _against_real(facts: Reported, last: Evaluation) -> Iterator[Statement]:
    held_out, num = facts.data.counts["held_out"], last.protocol["num"]
    accuracy, shares = (last.figures.get(f"classifier/{key}") for key in ("accuracy", "classes"))
    if accuracy is not None and accuracy.floor is not None and held_out:
        real = Estimate(accuracy.floor, (accuracy.floor * (1 - accuracy.floor) / held_out) ** 0.5, held_out - 1.0)
        text = f"The classifier names the class asked for in {percent(accuracy.value)} of the samples "
        text += f"({shown(accuracy)}) and in {percent(accuracy.floor)} of held-out images"
        apart = difference(real, accuracy.estimate)
        yield _compared("class accuracy", "quality", text, apart, higher_is_better=True)
    if shares is not None and (rare := too_rare(shares)):
        text = f"Classes are missing or too rare, each by an exact test: {rare_in_words(shares)}."
        yield Statement("classes", "quality", "quality", "bad", text, max(rare, key=lambda it: abs(it[1].z))[1])
    elif shares is not None:
        text = "The distance of the shares of the classes from those of the data (0 is alike, 1 is none in common)"
        yield from _beside_floor("classes", "quality", text, shares, num)
    if last.memorisation is not None:
        yield from _farther(last.memorisation)


def _farther(last: Memorisation) -> Iterator[Statement]:
    shifts = [(space.name, space.distance) for space in last.spaces if space.distance is not None]
    for space, shift in sorted(shifts, key=lambda item: item[1].probability)[:1]:
        less = exact(shift.probability - 0.5, max(1 - shift.p, 1e-30), len(shifts))
        if less.negative:
            share = with_error(100 * shift.probability, 100 * shift.standard_error)
            text = f"Samples lie farther from the training images than held-out images do: by {space} they are nearer "
            yield Statement("distance", "quality", "neighbours", "bad", f"{text}in {share}% of comparisons.", less)


def _beside_floor(name: str, topic: Topic, subject: str, figure: Figure, num: int) -> Iterator[Statement]:
    """A share with that of held-out images; nothing where there are not as many of these."""
    least, apart = figure.floor_estimate, above_floor(figure, num)
    if least is not None and apart is not None:
        text = f"{subject} is {shown(figure)}; held-out images reach {with_error(*least[:2])}"
        yield _compared(name, topic, text, apart, higher_is_better=figure.better != LOWER)


def _compared(name: str, topic: Topic, text: str, apart: Effect, higher_is_better: bool) -> Statement:
    state, by = partial(Statement, name, topic, "quality"), f"({change(apart)})."
    if not apart.decided:
        return state("undecided", f"{text}; whether they differ is undecided {by}", apart)
    if (apart.value < 0) == higher_is_better:
        return state("bad", f"{text}: worse {by}", apart)
    return state("good", f"{text}: no worse than real images {by}", apart)


def memorisation(facts: Reported) -> Iterator[Statement]:
    """The sentence on copies, from the newest evaluation that looked for them; `precedence` decides."""
    state = partial(Statement, "copies", "memorisation", "neighbours")
    last = next((it.memorisation for it in reversed(facts.by_step) if it.memorisation is not None), None)
    if last is None:
        yield state("missing", "whether samples are copies of training images (`unstir evaluate RUN`)")
        return
    tests = [space.copies for space in last.spaces if space.copies is not None]
    surpluses = [exact(test.count - test.expected, test.p, len(tests)) for test in tests]
    surplus = max(surpluses, key=lambda it: it.z, default=None)
    verdict: Verdict = "bad" if surplus is not None and surplus.positive else "undecided"
    yield state(verdict, sentence(last.says.replace("\n", ": ")), surplus)


def enough(facts: Facts) -> tuple[Evaluation, Effect, Evaluation, Effect] | None:
    """The fewest calls that do as well as the most, as far as can be told; None where nothing can be told.

    That is a chain whose harm against the most is not decided, and a worse one over which its gain is. The second makes
    the first say something: figures too rough to tell anything apart find no chain enough.
    """
    most = _most(facts)
    others = sorted((chain for chain in facts.by_chain if chain is not most), key=_calls)
    harms = [(chain, _harm(most, chain, len(others))) for chain in others]
    worse = [chain for chain, harm in harms if harm.positive]
    for chain, harm in harms:
        if worse and chain not in worse and _calls(chain) < _calls(most):
            gains = [(_harm(chain, other, len(others)), other) for other in worse]
            gain, other = max(gains, key=lambda pair: pair[0].z)
            if gain.positive:
                return chain, harm, other, gain
    return None


def sampling(facts: Facts) -> Iterator[Statement]:
    """The sentence on the fewest network calls that do as well as the most."""
    state = partial(Statement, "enough calls", "sampling", "calls")
    if facts.config.kind.has_teacher:
        return
    if len(facts.by_chain) < 2:
        yield state("missing", "how many network calls a sample needs (`unstir report RUN`)")
        return
    most, few = _most(facts), enough(facts)
    if few is None:
        text = f"Whether fewer calls than the {_calls(most):,} of {most.protocol['sampler']} do as well is undecided: "
        yield state("undecided", f"{text}more seeds ({more_seeds(most)}) would tell.")
        return
    chain, harm, worse, gain = few
    few_calls, most_calls, too_few = (
        f"{of.protocol['sampler']} with {count(_calls(of), 'call')} ({shown(of.main())})" for of in (chain, most, worse)
    )
    text = f"Fewer calls do: {few_calls} cannot be distinguished from {most_calls} ({change(harm)}), "
    yield state("good", f"{text}but is better than {too_few} by {size(gain)}.", gain)


def _most(facts: Facts) -> Evaluation:
    first = facts.by_chain[0]
    return max(facts.by_chain, key=lambda chain: (_calls(chain), _harm(chain, first).value))


def _harm(a: Evaluation, b: Evaluation, choices: int = 1) -> Effect:
    """How much worse ``b`` is than ``a`` by the main figure of ``a``, positive where it is."""
    sign = 1 if a.main().better == LOWER else -1
    x, y = (of.figures[a.main_key].estimate for of in (a, b))
    x, y = (Estimate(sign * of.value, of.error, of.df) for of in (x, y))
    return difference(x, y, choices)


def _calls(chain: Evaluation) -> int:
    return int(chain.protocol["calls"])


def progress(facts: Facts) -> Iterator[Statement]:
    """Sentences on what improved, in the order of the page."""
    measured = facts.measured
    if len(measured) >= 2:
        yield _fall(facts, measured)
        yield from _last_stretch(facts)
    else:
        yield Statement("fall", "progress", "losses", "missing", "whether the loss on held-out images fell")
    yield from _quality(facts)


def _fall(facts: Facts, measured: Sequence[Measurement]) -> Statement:
    first, last, state = measured[0], measured[-1], partial(Statement, "fall", "progress", "losses")
    fall = paired(first.held_out, last.held_out)
    start = f"with the weights of {facts.config.train.init}" if facts.config.train.init else "in the untrained network"
    began = start if first.step == 0 else f"after {count(first.images, 'image')}"
    scale = " (1 is predicting no noise at all)" if facts.config.diffusion.predict == "eps" else ""
    span = f"from {with_error(first.loss, None)} {began} to {with_error(last.loss, None)} after "
    span += f"{count(last.images, 'training image')}{scale}, by {size(fall)}"
    if not fall.decided:
        return state("undecided", f"Whether the loss on held-out images fell is undecided: it went {span}.", fall)
    if fall.value > 0:
        return state("bad", f"The loss on held-out images rose {span}.", fall)
    when = next(seen for seen in measured if seen.loss <= first.loss + 0.9 * fall.value)
    most = "" if when is last else f"; 90% of the fall had come by {count(when.images, 'image')}"
    return state("good", f"The loss on held-out images fell {span}{most}.", fall)


def _last_stretch(facts: Facts) -> Iterator[Statement]:
    """Whether the last doubling still helped. The check "still-falling" says where the run is too short."""
    last = last_stretch(facts.measured)
    if last is None or not last.gains or (last.steep and facts.finished):
        return
    text = f"The held-out loss was still falling over the last stretch, from {last.before.images:,} to "
    text += f"{last.after.images:,} training images, by {size(last.fall)} ({percent(last.share)} of it, "
    text += f"{percent(last.rate)} for each doubling of the images)"
    end = ": longer training may gain a little more." if facts.finished else "; the run is not at its end."
    yield Statement("more to gain", "progress", "losses", "neutral", text + end, last.fall)


def _quality(facts: Facts) -> Iterator[Statement]:
    key = "" if facts.last is None else facts.last.main_key
    steps = [of_step for of_step in facts.by_step if key in of_step.figures and of_step.images > 0]
    if len(steps) >= 2:
        a, b = steps[0].figures[key], steps[-1].figures[key]
        effect = figure_effect(a, b)
        became = verdict_of(effect, b.better)
        span = f"from {shown(a)} after {count(steps[0].images, 'image')} to {shown(b)} after "
        span += count(steps[-1].images, "image")
        text = f"{b.name} became {became}, {span}."
        if not effect.decided:
            text = f"Whether {b.name} changed {span} is undecided ({change(effect)})."
        yield Statement("quality by step", "progress", "quality", MARKS[became], text, effect)


def fit(facts: Facts) -> Iterator[Statement]:
    """Sentences on how the network fits images it was trained on and images it was not."""
    measured = facts.measured
    if len(measured) >= 2:
        yield _gap(measured[-1], _before_repeats(facts, measured))
    else:
        yield Statement("gap", "fit", "losses", "missing", "whether the network over-fits")


def _before_repeats(facts: Facts, measured: Sequence[Measurement]) -> Measurement | None:
    """The measurement before any image was seen twice: the last of the first epoch, else the first; None if unsure."""
    trained = [] if facts.config.train.init else [seen for seen in measured[:-1] if seen.step > 0]
    early = [seen for seen in trained if seen.images <= facts.data.counts["train"]]
    return early[-1] if early else trained[0] if trained else None


def _gap(last: Measurement, before: Measurement | None) -> Statement:
    state = partial(Statement, "gap", "fit", "losses")
    if not last.train:
        return state("missing", "the loss of training images beside that of held-out ones")
    growth = None if before is None else grown(before, last)
    fits_better = before is not None and fmean(last.train) <= fmean(before.train)
    if before is not None and growth is not None and growth.positive and fits_better:
        share = growth.value / last.loss
        text = f"Since step {before.step:,} the loss of held-out images has risen by {size(growth)} against that of "
        text += f"training images ({percent(share)} of the loss): some of the training images are memorised"
        if share < WORTH:
            return state("neutral", f"{text}, though not enough to matter.", growth)
        return state("bad", f"{text}.", growth)
    now = two_sample(last.train, last.held_out)
    if not now.decided:
        text = f"Whether held-out images have a higher loss than training images is undecided ({change(now)})."
        return state("undecided", text, now)
    if now.value < 0:
        text = f"Held-out images have a lower loss than training images ({change(now)}): they are the easier ones."
        return state("neutral", text, now)
    text = f"The loss of held-out images is {percent(now.value / last.loss)} higher than that of training images "
    text += f"({change(now)}), which they may be by nature: only a gap that grew since an earlier step would tell."
    return state("neutral", text, now)
