"""Over- and under-fitting: held-out images against training images, over the run and by time t."""

from collections.abc import Sequence
from typing import Any

from unstir.report.analysis_bits import bits
from unstir.report.facts import Facts
from unstir.report.looks import Look, before_repeats, half_way, read
from unstir.report.statement import Statement, Verdict, not_measured
from unstir.report.wording import count, percent, with_error
from unstir.significance import Effect, Estimate, adjusted, contrast, difference, paired, two_sample

WORTH = 0.01
"""A gap between splits of less than this share of the loss is not worth acting on."""


def fit(facts: Facts) -> list[Statement]:
    """Sentences on how the network fits images it was trained on and images it was not."""
    looks, _ = read(facts.looks)
    found = []
    if len(looks) >= 2:
        found += _rise(looks)
        found += _gap(looks, facts.data.counts.get("train", 0))
    if looks:
        memorised = any(each.name == "gap" and each.verdict == "bad" for each in found)
        found += [*_gap_by_time(looks[-1], memorised), *_loss_by_time(looks[-1], facts.config.diffusion.predict)]
    else:
        text = "Whether the network over-fits was not measured: the loss of held-out images was not followed; "
        text += "`unstir likelihood RUN --split both` compares both splits at the end."
        found.append(not_measured("gap", "fit", "losses", text))
    return [*found, bits(facts, looks)]


def _rise(looks: Sequence[Look]) -> list[Statement]:
    """Whether the held-out loss rose again since its lowest look, and more than that of training images."""
    last, lowest = looks[-1], min(looks, key=lambda look: look.loss)
    if lowest is last or lowest.step == 0:
        return []
    choices = len(looks) - 1
    rise = paired(lowest.held_out, last.held_out, choices)
    size = f"{with_error(rise.value, rise.error)} ({percent(rise.value / lowest.loss)})"
    if not rise.decided:
        text = f"The held-out loss was lowest at step {lowest.step:,}; whether it rose since is undecided, by {size}."
        return [_made("over-fitted", text, "losses", "undecided", rise)]
    text = f"The held-out loss was lowest at step {lowest.step:,} ({count(lowest.images, 'image')}) and rose since "
    text += f"by {size}"
    if len(last.train) < 2:
        text += "; whether it over-fits is not known, for the loss of training images was not measured."
        return [_made("rose", text, "losses", "bad", rise)]
    on_train, more = paired(lowest.train, last.train), _more(lowest, last, choices)
    text += f", while that of training images changed by {with_error(on_train.value, on_train.error, sign=True)}"
    if on_train.decided and on_train.value > 0:
        text += ": the network became worse on both, and does not over-fit only."
        return [_made("worse", text, "losses", "bad", rise)]
    if more.decided and more.value > 0:
        return [_made("over-fitted", f"{text}: it over-fits.", "losses", "bad", rise)]
    text += ", too near to tell whether it over-fits or became worse on both."
    return [_made("rose", text, "losses", "bad", rise)]


def _more(before: Look, after: Look, choices: int = 1) -> Effect:
    """By how much more log(loss) rose on held-out than on training images: a difference of changes (Welch's t)."""
    on_train, on_held_out = (
        contrast([-1, 1], rows) for rows in ((before.train, after.train), (before.held_out, after.held_out))
    )
    return difference(on_train, on_held_out, choices, "difference in differences")


def _grown(before: Look, after: Look) -> Effect:
    """By how much the gap between the splits grew: their mean changes compared by Welch's t."""
    on_train, on_held_out = (
        [b - a for a, b in zip(*rows, strict=True)]
        for rows in ((before.train, after.train), (before.held_out, after.held_out))
    )
    return two_sample(on_train, on_held_out, test="difference in differences")


def _gap(looks: Sequence[Look], num_train: int) -> list[Statement]:
    """The gap between the splits at the end, allowing for images that are hard by nature; and whether it grows."""
    last = looks[-1]
    if len(last.train) < 2:
        text = "The loss of training images was not measured beside that of held-out ones, so the gap is not known."
        return [not_measured("gap", "fit", "losses", text)]
    before, half = before_repeats(looks, num_train), half_way(looks)
    now = _against(before, last)
    share = abs(now.value) / last.loss
    allowed = "" if before is None else f", allowing for how hard they were at step {before.step:,}"
    size = f"{with_error(now.value, now.error, sign=True)}{allowed}"
    if not now.decided:
        text = f"Whether held-out images have a higher loss than training images is undecided ({size})."
        return [_made("gap", text, "losses", "undecided", now)]
    if now.value < 0:
        text = f"Held-out images have a lower loss than training images ({size}): they are the easier ones."
        return [_made("gap", text, "losses", "neutral", now)]
    text = f"The loss of held-out images is {percent(share)} higher than that of training images ({size})"
    if before is None or not _memorised(before, last):
        text += ", which they may be by nature: that they are not takes an earlier look to tell, and a gap that grew."
        return [_made("gap", text, "losses", "neutral", now)]
    text += ": some of the training images are memorised"
    if share < WORTH:
        return [_made("gap", f"{text}, though not enough to matter.", "losses", "neutral", now)]
    found = [_made("gap", f"{text}.", "losses", "bad", now)]
    return found if half is None or half is before else found + _growth(half, last)


def _memorised(before: Look, last: Look) -> bool:
    """Whether a gap is more than the hardness of images, be it a term of their loss or a factor of it.

    A term leaves the gap as it was ``before``, a factor leaves its share of the loss. Covariance allows for what each
    image had before, but for too little of it where a look is noisy, so the gap has to have grown in both senses.
    """
    return all(each.decided and each.value > 0 for each in (_grown(before, last), _more(before, last)))


def _growth(half: Look, last: Look) -> list[Statement]:
    """Whether the gap still grew over the last stretch."""
    growth = _grown(half, last)
    size = with_error(growth.value, growth.error, sign=True)
    if not growth.decided:
        text = f"Whether that gap grows is undecided: since {count(half.images, 'image')} it changed by {size}."
        return [_made("gap grows", text, "losses", "undecided", growth)]
    if growth.value < 0:
        return []
    text = f"Since {count(half.images, 'image')} that gap has grown by {with_error(growth.value, growth.error)}."
    return [_made("gap grows", text, "losses", "bad", growth)]


def _against(before: Look | None, last: Look) -> Effect:
    if before is None:
        return two_sample(last.train, last.held_out)
    return adjusted(before.train, last.train, before.held_out, last.held_out)


def _gap_by_time(look: Look, memorised: bool) -> list[Statement]:
    """At which time the gap between the splits is surest; a bad one only where images were memorised."""
    rows = [(t, h, he, r, re) for t, h, he, r, re in look.by_time if r is not None and re is not None]
    if len(rows) < 2:
        return []
    df = len(look.held_out) - 1.0, len(look.train) - 1.0
    gaps = [
        (t, h, difference(Estimate(r, re, df[1]), Estimate(h, he, df[0]), choices=len(rows)))
        for t, h, he, r, re in rows
    ]
    t, loss, gap = max(gaps, key=lambda each: each[2].z or 0.0)
    size = with_error(gap.value, gap.error, sign=True)
    if not gap.decided or gap.value < 0:
        gap = max((each[2] for each in gaps), key=lambda each: abs(each.z or 0.0))
        if gap.decided:
            return []
        text = f"At none of the {len(rows)} times looked at is a gap between held-out and training images decided "
        return [
            _made(
                "gap by time",
                f"{text}(the surest is {with_error(gap.value, gap.error, sign=True)}).",
                "loss-by-time",
                "undecided",
                gap,
            )
        ]
    text = f"By time the gap is surest at t = {t} ({size}, {percent(gap.value / loss)} of the loss there): "
    text += f"{_meaning(t, rows[-1][0])}."
    return [_made("gap by time", text, "loss-by-time", "bad" if memorised else "neutral", gap)]


def _loss_by_time(look: Look, predicted: str) -> list[Statement]:
    """Where the loss is high and where it is low, which says how much of it is detail."""
    if len(look.by_time) < 2:
        return []
    df = len(look.held_out) - 1.0
    high = max(look.by_time, key=lambda row: row[1])
    low = min(look.by_time, key=lambda row: row[1])
    pairs = len(look.by_time) * (len(look.by_time) - 1) // 2
    apart = difference(Estimate(low[1], low[2], df), Estimate(high[1], high[2], df), choices=pairs)
    if not apart.decided:
        return []
    text = f"The loss is highest at t = {high[0]} ({with_error(high[1], high[2])}) and lowest at t = {low[0]} "
    text += f"({with_error(low[1], low[2])})"
    if high[0] < low[0] and predicted == "eps":
        text += "; what is left at small t is mostly detail that the noise has wiped out and no network can predict"
    return [_made("loss by time", f"{text}.", "loss-by-time", "neutral", apart)]


def _meaning(t: int, most: int) -> str:
    """What the network settles at a time, of at most ``most``."""
    if t <= most / 4:
        return "at small t, where detail is settled"
    return (
        "at large t, where layout and colours are settled"
        if t >= 0.6 * most
        else "at middle t, where shapes are settled"
    )


def _made(name: str, text: str, figure: Any, verdict: Verdict, effect: Effect) -> Statement:
    return Statement(name=name, topic="fit", text=text, figure=figure, verdict=verdict, effect=effect)
