"""Checks of the images: their range, copies, leaks, refusals, and whether there are enough of them."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unstir.data import SPLITS
from unstir.doctor.facts import ImageStats, RunFacts
from unstir.doctor.finding import Check, Finding
from unstir.doctor.near import NEAR
from unstir.runs import memory
from unstir.significance import LEVEL, paired, two_sample

NARROW = 32
"""Levels of 255 from the darkest value to the lightest. Photographs and drawings: 255."""

FAINT = 0.1
"""Standard deviation of the values in [-1, 1]. Digits have 0.75, photographs 0.5; at 0.1 the SNR is 50 times less."""

COPIES_WARNING, COPIES_PROBLEM = 0.01, 0.1
NEAR_WARNING, NEAR_PROBLEM = 0.1, 0.3
LEAK_PROBLEM = 0.01
FLAT_WARNING, FLAT_PROBLEM = 0.01, 0.2
REFUSED_WARNING, REFUSED_PROBLEM = 0.01, 0.5
SMALLEST_CLASS, UNEQUAL, ONE_CLASS = 10, 20.0, 0.95
FEW, FAR_TOO_FEW = 500, 100
"""Training images. The digits, 1,498 and trained on for 128 epochs, show no sign of being remembered."""

OVERFIT = 0.1
"""Rise of the held-out loss over its best, as a share, that makes the warning a problem."""


def _images(facts: RunFacts) -> ImageStats:
    assert facts.images is not None
    return facts.images


def _again(facts: RunFacts) -> str:
    return f"pack it anew from {facts.run.config.data.source}, and begin a new run"


def store_whole(facts: RunFacts) -> Finding | None:
    """A store that has gone, is damaged, or is not the one that the run began with."""
    if not facts.store_problem:
        return None
    return Finding(
        "store",
        "warning" if facts.finished and facts.store is None else "problem",
        "the data cannot be used" if facts.store is None else "the data has changed",
        facts.store_problem,
        f"give its folder with --store, or put it back; else delete what is left of {facts.run.config.data.store}, "
        f"and unstir train --out {facts.run.path} packs {facts.run.config.data.source} again",
        1.0,
        0.0,
    )


def value_range(facts: RunFacts) -> Finding | None:
    """Values that fill a small part of 0..255, as masks of 0 and 1 do, so that all images are black for a network."""
    data = _images(facts)
    width = data.most - data.least
    if width >= NARROW and data.std >= FAINT:
        return None
    narrow = width < NARROW
    figure, threshold = (float(width), float(NARROW)) if narrow else (data.std, FAINT)
    return Finding(
        "value-range",
        "problem" if narrow else "warning",
        "the images use a small part of the range" if narrow else "the images have hardly any contrast",
        f"their values lie in {data.least}..{data.most} of 0..255, mean {data.mean:+.2f} and standard deviation "
        f"{data.std:.3f} in [-1, 1]; a width of at least {NARROW} and a deviation of at least {FAINT} are usual",
        "spread the values over 0..255 before packing (a mask of 0 and 1: times 255); " + _again(facts),
        figure,
        threshold,
    )


def flat_images(facts: RunFacts) -> Finding | None:
    """Images of a single colour."""
    data = _images(facts)
    return _share(
        facts,
        ("flat-images", "images of a single colour"),
        (data.flat, data.num),
        (FLAT_WARNING, FLAT_PROBLEM),
        "training images are of one colour",
        "look at the contact sheet of unstir data inspect and take them out of the source; " + _again(facts),
    )


def copies(facts: RunFacts) -> Finding | None:
    """Training images that are byte for byte an earlier one."""
    data = _images(facts)
    return _share(
        facts,
        ("copies", "images are in the data more than once"),
        (data.copies, data.num),
        (COPIES_WARNING, COPIES_PROBLEM),
        "training images equal an earlier one, byte for byte; what is seen often is what a network remembers",
        "take the copies out of the source; " + _again(facts),
    )


def near_copies(facts: RunFacts) -> Finding | None:
    """Training images that other ones nearly equal, among those looked at."""
    near = _images(facts).near
    return _share(
        facts,
        ("near-copies", "images are in the data more than once, nearly equal"),
        (near.count, near.num),
        (NEAR_WARNING, NEAR_PROBLEM),
        f"training images looked at differ from another one by at most {NEAR} of 255 levels anywhere, and from all "
        "others by far more; what is seen often is what a network remembers",
        "keep one of each in the source (frames of one film, shots of one scene); " + _again(facts),
    )


def leak(facts: RunFacts) -> Finding | None:
    """Held-out images that are in the training split, so that no figure of theirs says what is new."""
    data = _images(facts)
    return _share(
        facts,
        ("leak", "held-out images are trained on"),
        (data.leaked, data.held_out),
        (0.0, LEAK_PROBLEM),
        "held-out images are in the training split, byte for byte; likelihoods and distances of theirs look too good",
        "take the copies out of the source, or give folders named train and test; " + _again(facts),
    )


def refused(facts: RunFacts) -> Finding | None:
    """Files of the source that could not be packed."""
    store = facts.store
    assert store is not None
    bad, packed = len(store.refused), sum(store.count(split) for split in ("train", "held_out"))
    first = f", the first {store.refused[0][0]}: {store.refused[0][1]}" if bad else ""
    return _share(
        facts,
        ("refused", "files of the source were refused"),
        (bad, bad + packed),
        (REFUSED_WARNING, REFUSED_PROBLEM),
        f"files could not be packed{first}",
        f"unstir data inspect {store.path} lists them with reasons; mend them and {_again(facts)}",
        note=True,
    )


def _share(
    facts: RunFacts,
    names: tuple[str, str],
    counts: tuple[int, int],
    limits: tuple[float, float],
    what: str,
    remedy: str,
    note: bool = False,
) -> Finding | None:
    """A finding where a share exceeds the first of ``limits``, a problem above the second; less is a note if asked."""
    count, total = counts
    share = count / max(total, 1)
    if not count or (share <= limits[0] and not note):
        return None
    severity = "problem" if share > limits[1] else "warning" if share > limits[0] else "note"
    evidence = f"{count} of {total} ({share:.2%}) {what}; at most {limits[0]:.0%} is harmless"
    return Finding(names[0], severity, names[1], evidence, remedy, share, limits[0])  # type: ignore[arg-type]


def classes(facts: RunFacts) -> Finding | None:
    """Classes of very unequal size, which matter to a network that is told them and to what is drawn without."""
    store = facts.store
    assert store is not None
    labels = store.labels("train")
    if labels is None or not 0 <= int(labels.min()) <= int(labels.max()) < len(store.classes):  # which "store" finds
        return None
    counts = torch.bincount(labels, minlength=len(store.classes)).tolist()
    least, most = min(counts), max(counts)
    told = facts.run.config.model.num_classes > 0
    if len(counts) > 1 and most > ONE_CLASS * sum(counts):
        return _one_class(facts, store.classes[counts.index(most)], most, sum(counts))
    if most <= UNEQUAL * least and (least >= SMALLEST_CLASS or not told):
        return None
    name = store.classes[counts.index(least)]
    return Finding(
        "classes",
        "warning" if told else "note",
        "classes are of very unequal size",
        f"{name} has {least} training images, {store.classes[counts.index(most)]} {most}; up to {UNEQUAL:g} times as "
        f"many, and {SMALLEST_CLASS} or more of each, are usual",
        f"add images of {name} or leave the class out; {_again(facts)}",
        most / max(least, 1),
        UNEQUAL,
    )


def _one_class(facts: RunFacts, name: str, most: int, total: int) -> Finding:
    """Nearly all images are of one class: what is drawn will be, and the others are seen too seldom to be learned."""
    return Finding(
        "classes",
        "problem",
        "nearly all images are of one class",
        f"{name} has {most} of {total} training images ({most / total:.1%}); at most {ONE_CLASS:.0%} is usual",
        f"add images of the other classes, or take {name} alone as the data; {_again(facts)}",
        most / total,
        ONE_CLASS,
    )


def few_images(facts: RunFacts) -> Finding | None:
    """So few images that a network can remember them all; advice, for held-out images alone can prove it."""
    num = facts.run.data.counts["train"]
    if num >= FEW:
        return None
    parameters = memory.parameters(facts.run.config)
    flip = "" if facts.run.config.data.flip else "; --data.flip doubles photographs (not writing)"
    return Finding(
        "few-images",
        "warning" if num < FAR_TOO_FEW else "note",
        "there are few images for a network to learn from",
        f"{num} training images ({num * math.prod(facts.run.data.shape):,} values) for {parameters:,} parameters; "
        f"{FEW} images or more are usual",
        f"add images, or a smaller network (--model.channels) for fewer steps{flip}",
        num,
        FEW,
    )


def overfit(facts: RunFacts) -> Finding | None:
    """A held-out loss that has risen since its best, and more than that of training images, both beyond their errors.

    Each change is of the same images, so that it is paired; those of the two splits are compared by Welch's test.
    Where the loss of training images has risen for sure too, the network fails at both and remembers nothing.
    """
    looks = [look for line in facts.held_out if (look := _look(line))]
    if not looks:
        return None
    last = looks[-1]
    alike = [look for look in looks if look.like(last)]
    best, choices = min(alike, key=lambda look: look.held_out.mean().item()), max(len(alike) - 1, 1)
    before = best.held_out.mean().item()
    rise = paired(best.held_out.tolist(), last.held_out.tolist(), choices)
    change = paired(best.train.tolist(), last.train.tolist())
    more = two_sample((last.train - best.train).tolist(), (last.held_out - best.held_out).tolist(), choices)
    if not rise.positive or not more.positive or change.positive:
        return None
    return Finding(
        "overfit",
        "problem" if rise.value > OVERFIT * before else "warning",
        "the network begins to remember its training images",
        f"since step {best.step} the held-out loss rose from {before:.4g} by {rise.value:.4g} "
        f"({rise.errors:.0f} standard errors); that of training images changed by {change.value:+.4f}, which is "
        f"{more.value:.4f} less ({more.errors:.0f} standard errors; {LEVEL:g} of either are needed)",
        f"sample from step {best.step} (--checkpoint {best.step}, or the nearest saved); in a new run more images, "
        "--data.flip where mirror images are right, --model.dropout 0.1, or fewer steps",
        min(rise.errors, more.errors),
        LEVEL,
    )


@dataclass(frozen=True, eq=False)
class _Look:
    """A line of held_out.jsonl: losses of training and of held-out images, float64 [n] and [m], over these times."""

    step: int
    times: object
    train: Tensor
    held_out: Tensor

    def like(self, other: "_Look") -> bool:
        """Whether both are of the same images and times, which may change when a run goes on."""
        sizes = [(len(look.train), len(look.held_out)) for look in (self, other)]
        return sizes[0] == sizes[1] and self.times == other.times


def _look(line: dict[str, Any]) -> _Look | None:
    """A line with a loss of each image; None where one is no finite number, or there are no two of a split."""
    try:
        train, held_out = (torch.tensor(line[f"of_{split}"], dtype=torch.float64) for split in SPLITS)
    except (KeyError, TypeError, ValueError, RuntimeError):
        return None
    sound = all(losses.ndim == 1 and len(losses) > 1 and losses.isfinite().all() for losses in (train, held_out))
    return _Look(line["step"], line.get("times"), train, held_out) if sound else None


CHECKS = (
    Check("store", "whether the packed data is there and unchanged", store_whole),
    Check("value-range", "the range and contrast of the images", value_range, ("images",)),
    Check("flat-images", "images of one colour", flat_images, ("images",)),
    Check("copies", "equal images in the training split", copies, ("images",)),
    Check("near-copies", "nearly equal images in the training split", near_copies, ("images",)),
    Check("leak", "held-out images in the training split", leak, ("images",)),
    Check("refused", "files that could not be packed", refused, ("store",)),
    Check("classes", "sizes of the classes", classes, ("store",)),
    Check("few-images", "number of training images", few_images),
    Check("overfit", "held-out loss against that of training images", overfit, ("held_out",)),
)
