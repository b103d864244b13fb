"""Bits per dimension of held-out and of training images, and whether they are further apart than early in the run."""

import math
from collections.abc import Sequence
from typing import Any

from unstir.report.facts import Facts
from unstir.report.looks import Look, before_repeats
from unstir.report.statement import Statement, Verdict, not_measured
from unstir.report.wording import with_error
from unstir.significance import Effect, Estimate, difference
from unstir.train.held_out import BITS_SHARE

Pair = tuple[Estimate, Estimate]
"""Bits per dimension of held-out images and of training images."""


def bits(facts: Facts, looks: Sequence[Look]) -> Statement:
    """A sentence by what `unstir likelihood` wrote of the newest weights, or by the last look that has bits."""
    with_bits = [(look, pair) for look in looks if (pair := _of_look(look)) is not None]
    newest = with_bits[-1][0].step if with_bits else 0
    likelihoods = facts.likelihoods or {}
    bound = _likelihoods(likelihoods, newest)
    step, pair = bound or (newest, with_bits[-1][1] if with_bits else None)
    if pair is None:
        text = "How many bits per dimension the model needs for held-out and for training images was not measured; "
        return not_measured("bits", "fit", "losses", f"{text}`unstir likelihood RUN --split both` does it.")
    held_out, train = pair
    gap = difference(train, held_out)
    text = f"At step {step:,} held-out images cost {with_error(*held_out[:2])} bits per dimension and training images "
    text += f"{with_error(*train[:2])}, {_measured_by(likelihoods, with_bits, bound is not None)}; "
    if not gap.decided:
        text += f"whether they differ is undecided ({with_error(gap.value, gap.error, sign=True)})."
        return _made(text, "undecided", gap)
    text += f"held-out ones cost {with_error(abs(gap.value), gap.error)} "
    if gap.value < 0:
        return _made(f"{text}less: held-out images are the easier ones.", "neutral", gap)
    before = before_repeats([*(look for look, _ in with_bits if look.step < step), *looks[-1:]], _num_train(facts))
    earlier = None if before is None else _of_look(before)
    if before is None or earlier is None:
        return _made(f"{text}more, which they may by nature: no earlier look tells.", "neutral", gap)
    growth = _growth(earlier, pair)
    grown = f"since step {before.step:,} that has grown by"
    if growth.decided and growth.value > 0:
        text += f"more, and {grown} {with_error(growth.value, growth.error)}: by likelihood it over-fits."
        return _made(text, "bad", gap)
    text += f"more, which they may by nature: whether {grown} anything is undecided "
    return _made(f"{text}({with_error(growth.value, growth.error, sign=True)}).", "neutral", gap)


def _measured_by(likelihoods: dict[str, dict[str, Any]], looks: Sequence[tuple[Look, Pair]], bound: bool) -> str:
    """Which of the two figures in bits this is: the bound itself, or its estimate, beside the bound where there is."""
    if bound:
        num = min(int(likelihoods[split].get("num", 0)) for split in ("held_out", "train"))
        return f"by the bound over {num:,} images or more of each split (`unstir likelihood`)"
    look = looks[-1][0]
    num = min(_num_bits(images) for images in (look.held_out, look.train))
    text = f"by an estimate of the bound from {num:,} images or more of each split"
    of = likelihoods.get("held_out")
    if of is None or (known := _bound(of)) is None:
        return text
    return f"{text} (the bound itself, over {of.get('num', 0):,} held-out images, is {with_error(*known[:2])})"


def _num_bits(images: Sequence[float]) -> int:
    return max(len(images) // BITS_SHARE, 2)


def _growth(earlier: Pair, pair: Pair) -> Effect:
    """By how much the gap in bits grew.

    Bits of the same images have errors in common, which are taken for independent here: the error is too large.
    """
    return difference(_gap(earlier), _gap(pair))


def _gap(pair: Pair) -> Estimate:
    """The held-out bits less the training bits, with the degrees of freedom of the lesser known of them."""
    (a, a_error, a_df), (b, b_error, b_df) = pair
    return Estimate(a - b, math.hypot(a_error, b_error), min(a_df, b_df))


def _num_train(facts: Facts) -> int:
    return facts.data.counts.get("train", 0)


def _likelihoods(by_split: dict[str, dict[str, Any]], newest: int) -> tuple[int, Pair] | None:
    """The step and the bits, where both splits are of one step, not before ``newest``, and of one variance."""
    held_out, train = by_split.get("held_out"), by_split.get("train")
    if held_out is None or train is None:
        return None
    protocols = [each.get("protocol", {}) for each in (held_out, train)]
    alike = all(protocols[0].get(key) == protocols[1].get(key) for key in ("step", "variance", "clip", "ema"))
    known = [_bound(each) for each in (held_out, train)]
    step = protocols[0].get("step")
    if not alike or step is None or step < newest or known[0] is None or known[1] is None:
        return None
    return step, (known[0], known[1])


def _bound(of: dict[str, Any]) -> Estimate | None:
    if of.get("standard_error") is None:
        return None
    return Estimate(of["bits_per_dim"], of["standard_error"], max(of.get("num", 2) - 1.0, 1.0))


def _of_look(look: Look) -> Pair | None:
    if look.bits is None or look.bits_train is None:
        return None
    df = [_num_bits(images) - 1.0 for images in (look.held_out, look.train)]
    return Estimate(*look.bits, df[0]), Estimate(*look.bits_train, df[1])


def _made(text: str, verdict: Verdict, effect: Effect) -> Statement:
    return Statement(name="bits", topic="fit", text=text, figure="losses", verdict=verdict, effect=effect)
