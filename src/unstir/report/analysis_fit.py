"""Over- and under-fitting: held-out images against training images, by loss over the run and by bits."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from unstir.doctor.held_out import Measurement, grown, rise
from unstir.report.facts import Facts, bound_in_words
from unstir.report.statement import Statement
from unstir.report.wording import change, count, percent, size, with_error
from unstir.significance import Estimate, adjusted, contrast, difference, two_sample

WORTH = 0.01  # a gap between splits of less than this share of the loss is not worth acting on
Pair = tuple[Estimate, Estimate]  # bits per dimension of held-out images and of training images


def fit(facts: Facts) -> Iterator[Statement]:
    """Sentences on how the network fits images it was trained on and images it was not."""
    measured = facts.measured
    yield from _rise(measured)
    if len(measured) >= 2:
        yield _gap(measured[-1], _before_repeats(facts, measured))
    else:
        text = "Whether the network over-fits was not measured: the loss of held-out images was not followed"
        command = "; `unstir likelihood RUN --split both` compares both splits at the end"
        end = "." if facts.config.kind.has_teacher else f"{command}."
        yield Statement("gap", "fit", "neighbours", "undecided", f"{text}{end}")
    if not facts.config.kind.has_teacher:
        yield _bits(facts)


def _rise(measured: Sequence[Measurement]) -> Iterator[Statement]:
    """Whether the held-out loss rose since its lowest value, and whether that is over-fitting, as the doctor says."""
    found = rise(measured)
    if found is None or not found.held_out.decided:
        return
    lowest, by = found.lowest, with_error(found.held_out.value, found.held_out.error)
    text = f"The held-out loss was lowest at step {lowest.step:,} ({count(lowest.images, 'image')}) and rose since by "
    text += f"{by} ({percent(found.held_out.value / lowest.loss)})"
    text += "" if found.train is None else f", while that of training images changed by {change(found.train)}"
    if found.over_fits:
        yield Statement("over-fitted", "fit", "losses", "bad", f"{text}: it over-fits.", found.held_out)
    elif lowest is not measured[0]:  # else the fall of the whole run says so
        yield Statement("rose", "fit", "losses", "bad", f"{text}.", found.held_out)


def _before_repeats(facts: Facts, measured: Sequence[Measurement]) -> Measurement | None:
    """The measurement to compare later gaps with: the last of the first epoch, when no image had been seen twice.

    Where the first epoch had none, the first after the start. None where that is the last one, and of a run that began
    with weights, which may have seen any image.
    """
    trained = [] if facts.config.train.init else [each for each in measured[:-1] if each.step > 0]
    early = [each for each in trained if each.images <= facts.data.counts["train"]]
    return early[-1] if early else trained[0] if trained else None


def _gap(last: Measurement, before: Measurement | None) -> Statement:
    """The gap between the splits at the end, allowing for images that are hard by nature."""
    said = partial(Statement, "gap", "fit", "losses")
    if not last.train:
        text = "The loss of training images was not measured with that of held-out ones, so the gap is not known."
        return said("undecided", text)
    if before is None:
        now, allowed = two_sample(last.train, last.held_out), ""
    else:
        now = adjusted(before.train, last.train, before.held_out, last.held_out)
        allowed = f", allowing for how hard they were at step {before.step:,}"
    share, by = abs(now.value) / last.loss, f"({change(now)}{allowed})"
    text = f"The loss of held-out images is {percent(share)} higher than that of training images {by}"
    if not now.decided:
        return said(
            "undecided", f"Whether held-out images have a higher loss than training images is undecided {by}.", now
        )
    if now.value < 0:
        text = f"Held-out images have a lower loss than training images {by}: they are the easier ones."
        return said("neutral", text, now)
    if before is None or not _memorised(before, last):
        text += ", which they may be by nature: only an earlier measurement and a gap that grew since would tell."
        return said("neutral", text, now)
    if share < WORTH:
        return said("neutral", f"{text}: some of the training images are memorised, though not enough to matter.", now)
    return said("bad", f"{text}: some of the training images are memorised.", now)


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
