"""Over- and under-fitting: held-out images against training images, by loss over the run and time t, and by bits."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from unstir.doctor.held_out import half_way
from unstir.report.facts import Facts, Measurement, before_repeats, bound_in_words
from unstir.report.statement import Statement
from unstir.report.wording import change, count, percent, size, with_error
from unstir.significance import Effect, Estimate, adjusted, contrast, difference, mean_of, nearer, paired, two_sample
from unstir.theory.loss_floor import LossFloor

WORTH = 0.01  # a gap between splits of less than this share of the loss is not worth acting on
Pair = tuple[Estimate, Estimate]  # bits per dimension of held-out images and of training images


def fit(facts: Facts) -> Iterator[Statement]:
    """Sentences on how the network fits images it was trained on and images it was not."""
    measured = facts.measured
    if facts.config.distilled:
        text = "Whether the network over-fits was not measured: a distilled run has no held-out loss and no likelihood."
        yield Statement("gap", "fit", "neighbours", "undecided", text)
        return
    if len(measured) >= 2:
        yield from _rise(measured)
    first = _before_repeats(facts, measured)
    gaps = list(_gap(measured, first)) if len(measured) >= 2 else []
    yield from gaps
    if measured and measured[-1].train and facts.floor is not None:
        unseen = first is not None and first.images <= facts.data.counts["train"]
        yield _memory(measured, facts.floor, first if unseen else None)
    if measured:
        yield from _gap_by_time(measured[-1], any(each.name == "gap" and each.verdict == "bad" for each in gaps))
        yield from _loss_by_time(measured[-1], facts.config.diffusion.predict)
    else:
        text = "Whether the network over-fits was not measured: the loss of held-out images was not followed; "
        text += "`unstir likelihood RUN --split both` compares both splits at the end."
        yield Statement("gap", "fit", "losses", "undecided", text)
    yield _bits(facts)


def _rise(measured: Sequence[Measurement]) -> Iterator[Statement]:
    """Whether the held-out loss rose again since its lowest value, and more than that of training images."""
    last, lowest, choices = measured[-1], min(measured, key=lambda each: each.loss), len(measured) - 1
    if lowest is last or lowest.step == 0:
        return
    rise = paired(lowest.held_out, last.held_out, choices)
    by = f"by {with_error(rise.value, rise.error)} ({percent(rise.value / lowest.loss)})"
    if not rise.decided:
        text = f"The held-out loss was lowest at step {lowest.step:,}; whether it rose since is undecided, {by}."
        yield Statement("over-fitted", "fit", "losses", "undecided", text, rise)
        return
    text = f"The held-out loss was lowest at step {lowest.step:,} ({count(lowest.images, 'image')}) and rose since {by}"
    if len(last.train) < 2:
        text += "; whether it over-fits is not known, for the loss of training images was not measured."
        yield Statement("rose", "fit", "losses", "bad", text, rise)
        return
    on_train = paired(lowest.train, last.train)
    text += f", while that of training images changed by {change(on_train)}"
    name, end = "rose", ", too near to tell whether it over-fits or became worse on both."
    if on_train.positive:
        name, end = "worse", ": the network became worse on both, and does not only over-fit."
    elif _more(lowest, last, choices).positive:
        name, end = "over-fitted", ": it over-fits."
    yield Statement(name, "fit", "losses", "bad", text + end, rise)


def _more(before: Measurement, after: Measurement, choices: int = 1) -> Effect:
    """By how much more log(loss) rose on held-out than on training images: a difference of changes (Welch's t)."""
    of_splits = (before.train, after.train), (before.held_out, after.held_out)
    on_train, on_held_out = (contrast([-1, 1], rows) for rows in of_splits)
    return difference(on_train, on_held_out, choices, "difference in differences")


def _grown(before: Measurement, after: Measurement) -> Effect:
    """By how much the gap between the splits grew: their mean changes compared by Welch's t."""
    of_splits = (before.train, after.train), (before.held_out, after.held_out)
    on_train, on_held_out = ([b - a for a, b in zip(*rows, strict=True)] for rows in of_splits)
    return two_sample(on_train, on_held_out, test="difference in differences")


def _before_repeats(facts: Facts, measured: Sequence[Measurement]) -> Measurement | None:
    """As `before_repeats`; None of a run that began with weights, which may have seen any image."""
    return None if facts.config.train.init else before_repeats(measured, facts.data.counts["train"])


def _gap(measured: Sequence[Measurement], before: Measurement | None) -> Iterator[Statement]:
    """The gap between the splits at the end, allowing for images that are hard by nature; and whether it grows."""
    last, said = measured[-1], partial(Statement, "gap", "fit", "losses")
    if len(last.train) < 2:
        text = "The loss of training images was not measured with that of held-out ones, so the gap is not known."
        yield said("undecided", text)
        return
    half = half_way(measured)
    if before is None:
        now, allowed = two_sample(last.train, last.held_out), ""
    else:
        now = adjusted(before.train, last.train, before.held_out, last.held_out)
        allowed = f", allowing for how hard they were at step {before.step:,}"
    share, by = abs(now.value) / last.loss, f"({change(now)}{allowed})"
    text = f"The loss of held-out images is {percent(share)} higher than that of training images {by}"
    if not now.decided:
        text = f"Whether held-out images have a higher loss than training images is undecided {by}."
        yield said("undecided", text, now)
    elif now.value < 0:
        text = f"Held-out images have a lower loss than training images {by}: they are the easier ones."
        yield said("neutral", text, now)
    elif before is None or not _memorised(before, last):
        text += ", which they may be by nature: only an earlier measurement and a gap that grew since would tell."
        yield said("neutral", text, now)
    elif share < WORTH:
        text += ": some of the training images are memorised, though not enough to matter."
        yield said("neutral", text, now)
    else:
        yield said("bad", f"{text}: some of the training images are memorised.", now)
        if half is not None and half is not before:
            yield from _growth(half, last)


def _memorised(before: Measurement, last: Measurement) -> bool:
    """Whether a gap is more than the hardness of images, be it a term of their loss or a factor of it.

    A term leaves the gap as it was ``before``, a factor leaves its share of the loss. Covariance allows for what each
    image had before, but for too little of it where a loss is noisy, so the gap has to have grown in both senses.
    """
    return all(each.positive for each in (_grown(before, last), _more(before, last)))


def _growth(half: Measurement, last: Measurement) -> Iterator[Statement]:
    """Whether the gap still grew over the last stretch."""
    growth, since = _grown(half, last), count(half.images, "image")
    if not growth.decided:
        text = f"Whether that gap grows is undecided: since {since} it changed by {change(growth)}."
        yield Statement("gap grows", "fit", "losses", "undecided", text, growth)
    elif growth.value > 0:
        text = f"Since {since} that gap has grown by {size(growth)}."
        yield Statement("gap grows", "fit", "losses", "bad", text, growth)


def _memory(measured: Sequence[Measurement], floor: LossFloor, before: Measurement | None) -> Statement:
    """Whether the training loss is nearer to that of a network that remembers, or to that of held-out images.

    Where it was nearer to the first ``before`` any image was seen twice, the held-out images are others by nature. That
    is None where it was not measured then, or the run began with weights, which may have seen any image.
    """
    said, at, least = partial(Statement, "memory", "fit", "loss-by-time"), measured[-1], mean_of(floor.of_images)
    now, *early = (nearer(least, mean_of(e.train), mean_of(e.held_out)) for e in (at, before) if e is not None)
    text = f"A network that remembers all training images would have a loss of {with_error(*least[:2])} on them; "
    text += f"this one has {with_error(*mean_of(at.train)[:2])}"
    if now.negative:
        return said("neutral", f"{text}, nearer to that of held-out images: it does not remember them.", now)
    if now.value <= 0 or not now.decided:
        return said(
            "undecided", f"{text}; whether it is nearer to that or to the loss of held-out images is undecided.", now
        )
    if any(each.positive for each in early):
        return said("neutral", f"{text}, nearer to it than to held-out images, as it was before any repetition.", now)
    return said("bad", f"{text}, nearer to it than to that of held-out images: it remembers them.", now)


def _gap_by_time(at: Measurement, memorised: bool) -> Iterator[Statement]:
    """At which time the gap between the splits is surest; a bad one only where images were memorised."""
    rows = [(t, h, he, r, re) for t, h, he, r, re in at.by_time if r is not None and re is not None]
    if len(rows) < 2:
        return
    df, said = (len(at.held_out) - 1.0, len(at.train) - 1.0), partial(Statement, "gap by time", "fit", "loss-by-time")
    pairs = [(Estimate(r, re, df[1]), Estimate(h, he, df[0])) for _, h, he, r, re in rows]
    gaps = [(t, h, difference(*pair, choices=len(rows))) for (t, h, *_), pair in zip(rows, pairs, strict=True)]
    t, loss, gap = max(gaps, key=lambda each: each[2].z or 0.0)
    surest = max((each for *_, each in gaps), key=lambda each: abs(each.z or 0.0))
    if gap.decided and gap.value >= 0:
        text = f"By time the gap is surest at t = {t} ({change(gap)}, {percent(gap.value / loss)} of the loss there): "
        yield said("bad" if memorised else "neutral", f"{text}{_meaning(t, rows[-1][0])}.", gap)
    elif not surest.decided:
        text = f"At none of the {len(rows)} times measured is a gap between held-out and training images decided "
        yield said("undecided", f"{text}(the surest is {change(surest)}).", surest)


def _loss_by_time(at: Measurement, predicted: str) -> Iterator[Statement]:
    """Where the loss is high and where it is low, which says how much of it is detail."""
    if len(at.by_time) < 2:
        return
    df, pairs = len(at.held_out) - 1.0, len(at.by_time) * (len(at.by_time) - 1) // 2
    high, low = (of(at.by_time, key=lambda row: row[1]) for of in (max, min))
    apart = difference(Estimate(low[1], low[2], df), Estimate(high[1], high[2], df), choices=pairs)
    text = f"The loss is highest at t = {high[0]} ({with_error(high[1], high[2])}) and lowest at t = {low[0]} "
    text += f"({with_error(low[1], low[2])})"
    if high[0] < low[0] and predicted == "eps":
        text += "; what is left at small t is mostly detail that the noise has wiped out and no network can predict"
    if apart.decided:
        yield Statement("loss by time", "fit", "loss-by-time", "neutral", f"{text}.", apart)


def _meaning(t: int, most: int) -> str:
    """What the network settles at a time, of at most ``most``."""
    if t <= most / 4:
        return "at small t, where detail is settled"
    where, what = ("large", "layout and colours are") if t >= 0.6 * most else ("middle", "shapes are")
    return f"at {where} t, where {what} settled"


def _bits(facts: Facts) -> Statement:
    """Whether the splits differ in bits per dimension, by more than early in the run where that was measured.

    By what `unstir likelihood` wrote of the newest weights, or by the last measurement that has bits.
    """
    said = partial(Statement, "bits", "fit", "losses")
    of_step = {each.step: each.bits for each in facts.measured if each.bits}
    newest = max(of_step, default=0)
    bound = _bounds(facts.likelihoods, newest)
    step, pair = bound or (newest, of_step.get(newest))
    if pair is None:
        text = "How many bits per dimension the model needs for held-out and for training images was not measured; "
        return said("undecided", f"{text}`unstir likelihood RUN --split both` does it.")
    held_out, train = pair
    gap = difference(train, held_out)
    text = f"At step {step:,} held-out images cost {with_error(*held_out[:2])} bits per dimension and training images "
    text += f"{with_error(*train[:2])}, {_made_of(facts.likelihoods, pair, bound is not None)}; "
    if not gap.decided:
        return said("undecided", f"{text}whether they differ is undecided ({change(gap)}).", gap)
    text += f"held-out ones cost {size(gap)} "
    if gap.value < 0:
        return said("neutral", f"{text}less: they are the easier ones.", gap)
    earlier = [each for each in facts.measured if each.step in of_step and each.step < step]
    before = _before_repeats(facts, [*earlier, *facts.measured[-1:]])
    if before is None or before.step not in of_step:
        return said("neutral", f"{text}more, which they may by nature: no earlier measurement tells.", gap)
    # bits of the same images have errors in common, which are taken for independent here: the error is too large
    growth = difference(_apart(of_step[before.step]), _apart(pair))
    grown = f"since step {before.step:,} that has grown by"
    if growth.positive:
        return said("bad", f"{text}more, and {grown} {size(growth)}: by likelihood it over-fits.", gap)
    text += f"more, which they may by nature: whether {grown} anything is undecided ({change(growth)})."
    return said("neutral", text, gap)


def _made_of(likelihoods: Mapping[str, dict[str, Any]], pair: Pair, by_bound: bool) -> str:
    """What the bits of a ``pair`` come from; where that is an estimate, with the bound that was computed."""
    of = likelihoods.get("held_out")
    if by_bound and of is not None:
        images = f"{min(each['num'] for each in likelihoods.values()):,} images or more of each split"
        ways = [bound_in_words(likelihoods[split]["protocol"]) for split in ("held_out", "train")]
        how = ways[0] if ways[0] == ways[1] else f"{ways[0]} for held-out images, {ways[1]} for training images"
        return f"by the bound over {images} (`unstir likelihood`, {how})"
    text = f"by an estimate of the bound from {1 + min(int(each.df) for each in pair):,} images or more of each split"
    if of is None or (known := _bound(of)) is None:
        return text
    of_bound = f"{bound_in_words(of['protocol'])}, over {of['num']:,} held-out images: {with_error(*known[:2])}"
    return f"{text} (`unstir likelihood`, {of_bound})"


def _apart(pair: Pair) -> Estimate:
    """The held-out bits less the training bits, with the degrees of freedom of the lesser known of them."""
    (a, a_error, a_df), (b, b_error, b_df) = pair
    return Estimate(a - b, math.hypot(a_error, b_error), min(a_df, b_df))


def _bounds(by_split: Mapping[str, dict[str, Any]], newest: int) -> tuple[int, Pair] | None:
    """The step and the bits, where both splits are of one step, not before ``newest``, and of one variance."""
    if by_split.keys() != {"held_out", "train"}:
        return None
    (held_out, how), (train, other) = ((of, of["protocol"]) for of in (by_split["held_out"], by_split["train"]))
    alike = all(how.get(key) == other.get(key) for key in ("step", "variance", "clip", "ema"))
    of_held_out, of_train, step = _bound(held_out), _bound(train), how.get("step")
    if not alike or step is None or step < newest or of_held_out is None or of_train is None:
        return None
    return step, (of_held_out, of_train)


def _bound(of: dict[str, Any]) -> Estimate | None:
    if of["standard_error"] is None:
        return None
    return Estimate(of["bits_per_dim"], of["standard_error"], of["num_samples"] - 1.0)
