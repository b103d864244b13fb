"""What improved when, and how the network fits images that it was not trained on."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from unstir.insight.facts import Facts, bound_in_words
from unstir.insight.held_out import Measurement, grown, last_stretch, rise
from unstir.insight.statement import MARKS, Statement
from unstir.insight.wording import brief, change, count, percent, shown, size, with_error
from unstir.metrics.figures import figure_effect
from unstir.metrics.figures import verdict as verdict_of
from unstir.significance import Estimate, adjusted, contrast, difference, paired, two_sample

WORTH = 0.01  # a gap between splits of less than this share of the loss is not worth acting on
Pair = tuple[Estimate, Estimate]  # bits per dimension of held-out images and of training images


def progress(facts: Facts) -> Iterator[Statement]:
    """Sentences on what improved, in the order of the page."""
    measured = facts.measured
    if len(measured) >= 2:
        yield _fall(facts, measured)
        yield from _last_stretch(facts)
    else:
        text = "Whether the loss on held-out images fell is not known: it was not followed, or at one step alone."
        yield Statement("fall", "progress", "losses", "undecided", text)
    yield from _quality(facts)


def _fall(facts: Facts, measured: Sequence[Measurement]) -> Statement:
    """The whole change of the held-out loss, and by when most of it had come."""
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
    """Whether the last doubling (or so) of the images seen still helped.

    Where it did so much that the run is too short, the doctor's check "still-falling" says so, by the same rule.
    """
    last = last_stretch(facts.measured)
    if last is None or (last.steep and facts.finished):
        return
    fall, state = last.fall, partial(Statement, topic="progress", figure="losses", effect=last.fall)
    span = f"from {last.before.images:,} to {last.after.images:,} training images "
    span += f"({brief(last.after.images / last.before.images)}-fold)"
    by = f"over the last stretch, {span}, by {size(fall)} ({percent(last.share)} of it"
    if not fall.decided:
        text = f"Whether the last stretch, {span}, still changed the held-out loss is undecided ({change(fall)})."
        yield state("last stretch", verdict="undecided", text=text)
    elif fall.value > 0:
        yield state("last stretch", verdict="bad", text=f"The held-out loss rose {by}).")
    elif not last.gains:
        yield state("last stretch", verdict="good", text=f"The held-out loss was still falling: {by}).")
    else:
        text = f"The held-out loss was still falling: {by}, {percent(last.rate)} for each doubling of the images)"
        end = ": longer training may gain a little more." if facts.finished else "; the run is not at its end."
        yield state("more to gain", verdict="neutral", text=text + end)


def _quality(facts: Facts) -> Iterator[Statement]:
    """The main figure from the first to the last step evaluated."""
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
    yield from _rise(measured)
    if len(measured) >= 2:
        yield _gap(measured[-1], _before_repeats(facts, measured))
    else:
        text = "Whether the network over-fits was not measured: the loss of held-out images was not followed"
        command = "" if facts.config.kind.has_teacher else "; `unstir likelihood RUN --split both` compares both splits"
        yield Statement("gap", "fit", "neighbours", "undecided", f"{text}{command}.")
    if not facts.config.kind.has_teacher:
        yield _bits(facts)


def _rise(measured: Sequence[Measurement]) -> Iterator[Statement]:
    """Whether the held-out loss rose since its lowest value; the doctor's "overfit" says so where it over-fits.

    A lowest value that is the first is left to the sentence on the whole run.
    """
    since = rise(measured)
    if since is None or not since.held_out.decided or since.over_fits or since.lowest is measured[0]:
        return
    lowest, by = since.lowest, with_error(since.held_out.value, since.held_out.error)
    text = f"The held-out loss was lowest at step {lowest.step:,} ({count(lowest.images, 'image')}) and rose since by "
    text += f"{by} ({percent(since.held_out.value / lowest.loss)})"
    text += "" if since.train is None else f", while that of training images changed by {change(since.train)}"
    yield Statement("rose", "fit", "losses", "bad", f"{text}.", since.held_out)


def _before_repeats(facts: Facts, measured: Sequence[Measurement]) -> Measurement | None:
    """The measurement to compare later gaps with: the last of the first epoch, when no image had been seen twice.

    Where the first epoch had none, the first after the start. None where that is the last one, and of a run that began
    with weights, which may have seen any image.
    """
    trained = [] if facts.config.train.init else [seen for seen in measured[:-1] if seen.step > 0]
    early = [seen for seen in trained if seen.images <= facts.data.counts["train"]]
    return early[-1] if early else trained[0] if trained else None


def _gap(last: Measurement, before: Measurement | None) -> Statement:
    """The gap between the splits at the end, allowing for images that are hard by nature."""
    state = partial(Statement, "gap", "fit", "losses")
    if not last.train:
        text = "The loss of training images was not measured with that of held-out ones, so the gap is not known."
        return state("undecided", text)
    if before is None:
        now, allowed = two_sample(last.train, last.held_out), ""
    else:
        now = adjusted(before.train, last.train, before.held_out, last.held_out)
        allowed = f", allowing for how hard they were at step {before.step:,}"
    share, by = abs(now.value) / last.loss, f"({change(now)}{allowed})"
    if not now.decided:
        text = f"Whether held-out images have a higher loss than training images is undecided {by}."
        return state("undecided", text, now)
    if now.value < 0:
        text = f"Held-out images have a lower loss than training images {by}: they are the easier ones."
        return state("neutral", text, now)
    text = f"The loss of held-out images is {percent(share)} higher than that of training images {by}"
    if before is None or not _memorised(before, last):
        text += ", which they may be by nature: only an earlier measurement and a gap that grew since would tell."
        return state("neutral", text, now)
    text += ": some of the training images are memorised"
    if share < WORTH:
        return state("neutral", f"{text}, though not enough to matter.", now)
    return state("bad", f"{text}.", now)


def _memorised(before: Measurement, last: Measurement) -> bool:
    """Whether a gap is more than the hardness of images, be it a term of their loss or a factor of it.

    A term leaves the gap as it was ``before``, a factor leaves its share of the loss. Covariance allows for what each
    image had before, but for too little of it where a loss is noisy, so the gap has to have grown in both senses.
    """
    of_splits = (before.train, last.train), (before.held_out, last.held_out)
    on_train, on_held_out = (contrast([-1, 1], rows) for rows in of_splits)
    share = difference(on_train, on_held_out, test="difference in differences")
    return grown(before, last).positive and share.positive


def _bits(facts: Facts) -> Statement:
    """Whether the splits differ in bits per dimension.

    By what `unstir likelihood` wrote of the newest weights, or by the last measurement that has bits.
    """
    state = partial(Statement, "bits", "fit", "losses")
    of_step = {seen.step: seen.bits for seen in facts.measured if seen.bits}
    newest = max(of_step, default=0)
    bound = _bounds(facts.likelihoods, newest)
    step, pair = bound or (newest, of_step.get(newest))
    if pair is None:
        text = "How many bits per dimension the model needs for held-out and for training images was not measured; "
        return state("undecided", f"{text}`unstir likelihood RUN --split both` does it.")
    held_out, train = pair
    gap = difference(train, held_out)
    source = f"an estimate of the bound from {1 + min(int(of.df) for of in pair):,} images or more of each split"
    if bound is not None:
        by_split = [facts.likelihoods[split] for split in ("held_out", "train")]
        terms = " and ".join(dict.fromkeys(bound_in_words(of["protocol"]) for of in by_split))
        source = f"the bound over {min(of['num'] for of in by_split):,} images or more of each split"
        source += f" (`unstir likelihood`, {terms})"
    text = f"At step {step:,} held-out images cost {with_error(*held_out[:2])} bits per dimension and training images "
    text += f"{with_error(*train[:2])}, by {source}; "
    if not gap.decided:
        return state("undecided", f"{text}whether they differ is undecided ({change(gap)}).", gap)
    easier = "less: they are the easier ones." if gap.value < 0 else "more, which they may by nature."
    return state("neutral", f"{text}held-out ones cost {size(gap)} {easier}", gap)


def _bounds(by_split: Mapping[str, dict[str, Any]], newest: int) -> tuple[int, Pair] | None:
    """The step and the bits, where both splits are of one step, not before ``newest``, and of one variance."""
    if by_split.keys() != {"held_out", "train"}:
        return None
    held_out, train = by_split["held_out"], by_split["train"]
    how, other = held_out["protocol"], train["protocol"]
    alike = all(how.get(key) == other.get(key) for key in ("step", "variance", "clip", "ema"))
    unknown = None in (held_out["standard_error"], train["standard_error"], how.get("step"))
    if not alike or unknown or how["step"] < newest:
        return None
    of_held_out, of_train = (
        Estimate(of["bits_per_dim"], of["standard_error"], of["num_samples"] - 1.0) for of in (held_out, train)
    )
    return how["step"], (of_held_out, of_train)
