"""Bits per dimension of held-out and of training images, and whether they are further apart than early in the run."""

import math
from collections.abc import Sequence
from typing import Any

from unstir.metrics.likelihood import terms_of
from unstir.report.facts import Facts
from unstir.report.held_out import Measurement, before_repeats
from unstir.report.statement import Statement
from unstir.report.wording import change, size, with_error
from unstir.significance import Estimate, difference

Pair = tuple[Estimate, Estimate]
"""Bits per dimension of held-out images and of training images."""


def bits(facts: Facts, measured: Sequence[Measurement]) -> Statement:
    """A sentence by what `unstir likelihood` wrote of the newest weights, or by the last measurement that has bits."""
    with_bits = [(each, pair) for each in measured if (pair := _estimate(each)) is not None]
    newest = with_bits[-1][0].step if with_bits else 0
    likelihoods = facts.likelihoods or {}
    bound = _likelihoods(likelihoods, newest)
    step, pair = bound or (newest, with_bits[-1][1] if with_bits else None)
    if pair is None:
        text = "How many bits per dimension the model needs for held-out and for training images was not measured; "
        text += "`unstir likelihood RUN --split both` does it."
        return Statement("bits", "fit", "losses", "undecided", text)
    held_out, train = pair
    gap = difference(train, held_out)
    how = _bound_of(likelihoods) if bound else _estimate_of(likelihoods, with_bits[-1][0])
    text = f"At step {step:,} held-out images cost {with_error(*held_out[:2])} bits per dimension and training images "
    text += f"{with_error(*train[:2])}, {how}; "
    if not gap.decided:
        text += f"whether they differ is undecided ({change(gap)})."
        return Statement("bits", "fit", "losses", "undecided", text, gap)
    text += f"held-out ones cost {size(gap)} "
    if gap.value < 0:
        return Statement("bits", "fit", "losses", "neutral", f"{text}less: they are the easier ones.", gap)
    of_step = {each.step: pair for each, pair in with_bits}
    num_train = facts.data.counts.get("train", 0)
    before = before_repeats([*(each for each, _ in with_bits if each.step < step), *measured[-1:]], num_train)
    if before is None or before.step not in of_step:
        text += "more, which they may by nature: no earlier measurement tells."
        return Statement("bits", "fit", "losses", "neutral", text, gap)
    # bits of the same images have errors in common, which are taken for independent here: the error is too large
    growth = difference(_gap(of_step[before.step]), _gap(pair))
    grown = f"since step {before.step:,} that has grown by"
    if growth.decided and growth.value > 0:
        text += f"more, and {grown} {size(growth)}: by likelihood it over-fits."
        return Statement("bits", "fit", "losses", "bad", text, gap)
    text += f"more, which they may by nature: whether {grown} anything is undecided ({change(growth)})."
    return Statement("bits", "fit", "losses", "neutral", text, gap)


def _bound_of(likelihoods: dict[str, dict[str, Any]]) -> str:
    num = min(int(likelihoods[split].get("num", 0)) for split in ("held_out", "train"))
    terms = terms_of(likelihoods["held_out"]["protocol"])
    return f"by the bound over {num:,} images or more of each split (`unstir likelihood`, {terms})"


def _estimate_of(likelihoods: dict[str, dict[str, Any]], at: Measurement) -> str:
    """What the estimate was made of, and the bound that `unstir likelihood` computed."""
    num = 1 + min(int(of_split.df) for of_split in (at.bits, at.bits_train) if of_split)
    text = f"by an estimate of the bound from {num:,} images or more of each split"
    of = likelihoods.get("held_out")
    if of is None or (known := _bound(of)) is None:
        return text
    return (
        f"{text} (`unstir likelihood`, {terms_of(of['protocol'])}, over {of.get('num', 0):,} held-out images: "
        f"{with_error(*known[:2])})"
    )


def _gap(pair: Pair) -> Estimate:
    """The held-out bits less the training bits, with the degrees of freedom of the lesser known of them."""
    (a, a_error, a_df), (b, b_error, b_df) = pair
    return Estimate(a - b, math.hypot(a_error, b_error), min(a_df, b_df))


def _likelihoods(by_split: dict[str, dict[str, Any]], newest: int) -> tuple[int, Pair] | None:
    """The step and the bits, where both splits are of one step, not before ``newest``, and of one variance."""
    held_out, train = by_split.get("held_out"), by_split.get("train")
    if held_out is None or train is None:
        return None
    protocols = [each.get("protocol", {}) for each in (held_out, train)]
    alike = all(protocols[0].get(key) == protocols[1].get(key) for key in ("step", "variance", "clip", "ema"))
    of_held_out, of_train, step = _bound(held_out), _bound(train), protocols[0].get("step")
    if not alike or step is None or step < newest or of_held_out is None or of_train is None:
        return None
    return step, (of_held_out, of_train)


def _bound(of: dict[str, Any]) -> Estimate | None:
    if of.get("standard_error") is None:
        return None
    return Estimate(of["bits_per_dim"], of["standard_error"], max(of.get("num", 2) - 1.0, 1.0))


def _estimate(at: Measurement) -> Pair | None:
    if at.bits is None or at.bits_train is None:
        return None
    return at.bits, at.bits_train
