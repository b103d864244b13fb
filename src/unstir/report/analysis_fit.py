"""Over- and under-fitting: held-out images against training images, over the run, by time t, and in bits."""

from collections.abc import Sequence
from typing import Any

from unstir.report.facts import Facts
from unstir.report.looks import Look, before_repeats, half_way, read
from unstir.report.statement import Statement, Verdict, not_measured
from unstir.report.statistics import Effect, adjusted, difference, paired, two_sample
from unstir.report.wording import count, percent, with_error
from unstir.train.held_out import BITS_SHARE

WORTH = 0.01
"""A fall over the last stretch, or a gap between splits, of less than this share of the loss is not worth acting on."""


def fit(facts: Facts) -> list[Statement]:
    """Sentences on how the network fits images it was trained on and images it was not."""
    looks, _ = read(facts.looks)
    found = []
    if len(looks) >= 2:
        found += _rise(looks)
        found += _gap(looks, facts.data.counts.get("train", 0))
        found += _under_fitted(looks)
    if looks:
        found += [*_gap_by_time(looks[-1]), *_loss_by_time(looks[-1], facts.config.diffusion.predict)]
    else:
        text = "Whether the network over-fits was not measured: the loss of held-out images was not followed; "
        text += "`unstir likelihood RUN --split both` compares both splits at the end."
        found.append(not_measured("gap", "fit", "losses", text))
    return found + _bits(facts, looks)


def _rise(looks: Sequence[Look]) -> list[Statement]:
    """Whether the held-out loss rose again since its lowest look, while that of training images did not."""
    last, lowest = looks[-1], min(looks, key=lambda look: look.loss)
    if lowest is last or lowest.step == 0:
        return []
    rise = paired(lowest.held_out, last.held_out, choices=len(looks) - 1)
    size = f"{with_error(rise.value, rise.error)} ({percent(rise.value / lowest.loss)})"
    if not rise.decided:
        text = f"The held-out loss was lowest at step {lowest.step:,}; whether it rose since is undecided, by {size}."
        return [_made("over-fitted", text, "losses", "undecided", rise)]
    text = f"The held-out loss was lowest at step {lowest.step:,} ({count(lowest.images, 'image')}) and rose since "
    text += f"by {size}"
    on_train = paired(lowest.train, last.train) if last.train else None
    if on_train is None:
        return [_made("worse", f"{text}.", "losses", "bad", rise)]
    both = f"that of training images changed by {with_error(on_train.value, on_train.error, sign=True)}"
    if on_train.decided and on_train.value > 0:
        return [
            _made(
                "worse", f"{text}, but {both}: the network became worse, it does not over-fit.", "losses", "bad", rise
            )
        ]
    return [_made("over-fitted", f"{text}, while {both}: it over-fits.", "losses", "bad", rise)]


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
    text = f"The loss of held-out images is {percent(share)} higher than that of training images ({size}): "
    text += "some of the training images are learned by heart"
    verdict: Verdict = "bad" if share >= WORTH else "neutral"
    found = [
        _made("gap", f"{text}{'.' if verdict == 'bad' else ', though not enough to matter.'}", "losses", verdict, now)
    ]
    if half is not None and half is not before:
        growth = _against(half, last)
        size = with_error(growth.value, growth.error, sign=True)
        if growth.decided and growth.value > 0:
            text = (
                f"Since {count(half.images, 'image')} that gap has grown by {with_error(growth.value, growth.error)}."
            )
            found.append(_made("gap grows", text, "losses", "bad", growth))
        elif not growth.decided:
            text = f"Whether that gap grows is undecided: since {count(half.images, 'image')} it changed by {size}."
            found.append(_made("gap grows", text, "losses", "undecided", growth))
    return found


def _against(before: Look | None, last: Look) -> Effect:
    if before is None:
        return two_sample(last.train, last.held_out)
    return adjusted(before.train, last.train, before.held_out, last.held_out)


def _under_fitted(looks: Sequence[Look]) -> list[Statement]:
    """Whether the loss was still falling when the run ended, on both splits and by an amount that matters."""
    last, half = looks[-1], half_way(looks)
    if half is None:
        return []
    change = paired(half.held_out, last.held_out)
    if not change.decided or change.value > 0 or -change.value < WORTH * half.loss:
        return []
    text = (
        f"The network is not trained out: from {half.images:,} to {last.images:,} images the loss of held-out images "
    )
    text += f"fell by {percent(-change.value / half.loss)} ({with_error(change.value, change.error, sign=True)})"
    if last.train:
        on_train = paired(half.train, last.train)
        if not on_train.decided or on_train.value > 0:
            return []
        text += f", that of training images by {with_error(-on_train.value, on_train.error)}"
    return [_made("under-fitted", f"{text}.", "losses", "bad", change)]


def _gap_by_time(look: Look) -> list[Statement]:
    """At which time the gap between the splits is surest."""
    rows = [(t, h, he, r, re) for t, h, he, r, re in look.by_time if r is not None and re is not None]
    if len(rows) < 2:
        return []
    df = len(look.held_out) - 1.0, len(look.train) - 1.0
    gaps = [(t, h, difference((r, re, df[1]), (h, he, df[0]), choices=len(rows))) for t, h, he, r, re in rows]
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
    return [_made("gap by time", text, "loss-by-time", "bad", gap)]


def _loss_by_time(look: Look, predicted: str) -> list[Statement]:
    """Where the loss is high and where it is low, which says how much of it is detail."""
    if len(look.by_time) < 2:
        return []
    df = len(look.held_out) - 1.0
    high = max(look.by_time, key=lambda row: row[1])
    low = min(look.by_time, key=lambda row: row[1])
    pairs = len(look.by_time) * (len(look.by_time) - 1) // 2
    apart = difference((low[1], low[2], df), (high[1], high[2], df), choices=pairs)
    if not apart.decided:
        return []
    text = f"The loss is highest at t = {high[0]} ({with_error(high[1], high[2])}) and lowest at t = {low[0]} "
    text += f"({with_error(low[1], low[2])})"
    if high[0] < low[0] and predicted == "eps":
        text += "; what is left at small t is mostly detail that the noise has wiped out and no network can foretell"
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


def _bits(facts: Facts, looks: Sequence[Look]) -> list[Statement]:
    """Bits a value of held-out images against training images, by what `unstir likelihood` wrote or the last look."""
    pair = _likelihoods(facts.likelihoods or {}) or (_of_look(looks[-1]) if looks else None)
    if pair is None:
        text = "How many bits a value the model needs for held-out and for training images was not measured; "
        return [not_measured("bits", "fit", "losses", f"{text}`unstir likelihood RUN --split both` does it.")]
    held_out, train = pair
    gap = difference(train, held_out)
    text = (
        f"Held-out images cost {with_error(*held_out[:2])} bits a value and training images {with_error(*train[:2])}; "
    )
    size = with_error(gap.value, gap.error, sign=True)
    if not gap.decided:
        return [_made("bits", f"{text}whether they differ is undecided ({size}).", "losses", "undecided", gap)]
    verdict: Verdict = "bad" if gap.value > 0 else "neutral"
    what = "more: by likelihood it over-fits" if gap.value > 0 else "less: held-out images are the easier ones"
    return [
        _made(
            "bits", f"{text}held-out ones cost {with_error(abs(gap.value), gap.error)} {what}.", "losses", verdict, gap
        )
    ]


def _likelihoods(by_split: dict[str, dict[str, Any]]) -> tuple[tuple[float, float, float], ...] | None:
    """Held-out and training bits with errors, where both are of one step and variance."""
    both = [by_split.get("held_out"), by_split.get("train")]
    found = []
    for each in both:
        if each is None or each.get("standard_error") is None:
            return None
        found.append((each["bits_per_dim"], each["standard_error"], max(each.get("num", 2) - 1.0, 1.0)))
    protocols = [each.get("protocol", {}) for each in both if each is not None]
    alike = all(protocols[0].get(key) == protocols[1].get(key) for key in ("step", "variance", "clip", "ema"))
    return tuple(found) if alike else None


def _of_look(look: Look) -> tuple[tuple[float, float, float], ...] | None:
    if look.bits is None or look.bits_train is None:
        return None
    df = [max(len(images) // BITS_SHARE, 2) - 1.0 for images in (look.held_out, look.train)]
    return (*look.bits, df[0]), (*look.bits_train, df[1])


def _made(name: str, text: str, figure: Any, verdict: Verdict, effect: Effect) -> Statement:
    return Statement(name=name, topic="fit", text=text, figure=figure, verdict=verdict, effect=effect)
