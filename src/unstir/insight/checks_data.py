"""Checks of the images: their range, copies, leaks, refusals, and whether there are enough of them."""

import math
import shlex
from collections.abc import Iterator

import torch

from unstir.data import SPLITS, Store
from unstir.data.packing import FAINT, NARROW, SPREAD, weakness
from unstir.insight.facts import Facts, Lines, rise
from unstir.insight.findings import Finding, Severity, check
from unstir.insight.image_stats import ImageStats
from unstir.runs.config import Config
from unstir.significance import LEVEL

# Thresholds; docs/doctor.md explains them.
SMALLEST_CLASS, UNEQUAL, ONE_CLASS = 10, 20.0, 0.95
OVERFIT = 0.1  # rise of the held-out loss over its best, as a share, that makes the warning a problem


def _again(facts: Facts) -> str:
    return f"pack it again from {facts.config.data.source}, and begin a new run"


@check("store")
def _store(facts: Facts) -> Iterator[Finding]:
    if facts.store_problem:
        data = facts.config.data
        remedy = "put it back, name its folder as `store`, or correct data.store in config.toml; else delete what is "
        remedy += f"left of {data.store}, and `unstir train out=RUN` packs {data.source} again"
        if facts.run.shipped:
            remedy = "name the folder of its packed images as `store`"
        says = "the data cannot be used" if facts.store is None else "the data has changed"
        severity: Severity = "warning" if facts.finished and facts.store is None else "problem"
        yield Finding(severity, facts.store_problem, remedy, 1.0, 0.0, says=says)


@check("value-range")
def _value_range(facts: Facts, images: ImageStats) -> Iterator[Finding]:
    width, says = images.most - images.least, weakness(images.least, images.most, images.std)
    values = f"values lie in {images.least}..{images.most} of 0..255, with a deviation of {images.std:.3f} in [-1, 1]"
    evidence = f"{values}; a width of at least {NARROW} and a deviation of {FAINT} are usual"
    spread = "give `data.scale`, the values that become -1 and 1" if facts.data.scale.is_float else SPREAD
    remedy = f"{spread}; {_again(facts)}"
    if says:
        narrow = width < NARROW
        figure, threshold = (float(width), float(NARROW)) if narrow else (images.std, FAINT)
        yield Finding("problem" if narrow else "warning", evidence, remedy, figure, threshold, says=says)


def _of_share(
    counts: tuple[int, int], limits: tuple[float, float], which: str, remedy: str, note: bool = False
) -> Iterator[Finding]:
    """A finding of the share of ``counts``, (number, total): a warning above the first limit, a problem above both."""
    (count, total), (warning, problem) = counts, limits
    share = count / max(total, 1)
    if count and (note or share > warning):
        severity: Severity = "problem" if share > problem else "warning" if share > warning else "note"
        evidence = f"{count} of {total} ({share:.2%}) {which}; at most {warning:.0%} is harmless"
        yield Finding(severity, evidence, remedy, share, warning)


@check("copies", "images are in the data more than once")
def _copies(facts: Facts, images: ImageStats) -> Iterator[Finding]:
    which = "training images equal an earlier one, byte for byte; what is seen often is what a network remembers"
    remedy = f"take the copies out of the source; {_again(facts)}"
    yield from _of_share((images.copies, images.num), (0.01, 0.1), which, remedy)


@check("leak", "held-out images are trained on")
def _leak(facts: Facts, images: ImageStats) -> Iterator[Finding]:
    which = "held-out images are in the training split, byte for byte; their likelihoods and distances look too good"
    remedy = f"take the copies out of the source; {_again(facts)}"
    yield from _of_share((images.leaked, images.held_out), (0.0, 0.01), which, remedy)


@check("refused", "files of the source were refused")
def _refused(facts: Facts, store: Store) -> Iterator[Finding]:
    bad = len(store.refused)
    counts = bad, bad + sum(map(store.count, SPLITS))
    which = "files could not be packed" + "".join(f", the first {file}: {why}" for file, why in store.refused[:1])
    listed = f"`unstir data inspect {shlex.quote(str(store.path))}` lists them with reasons"
    yield from _of_share(counts, (0.01, 0.5), which, f"{listed}; mend them and {_again(facts)}", note=True)


@check("classes", "classes are of very unequal size")
def _classes(facts: Facts, store: Store) -> Iterator[Finding]:
    labels = store.labels("train")
    if labels is None or not len(labels):
        return
    if not 0 <= int(labels.min()) <= int(labels.max()) < len(store.classes):  # which "store" finds
        return
    counts = torch.bincount(labels, minlength=len(store.classes)).tolist()
    least, most, total = min(counts), max(counts), sum(counts)
    smallest, largest = (store.classes[counts.index(count)] for count in (least, most))
    labelled = facts.config.model.num_classes
    if len(counts) > 1 and most > ONE_CLASS * total:
        share, says = most / total, "nearly all images are of one class"
        evidence = f"{largest} has {most} of {total} training images ({share:.1%}); at most {ONE_CLASS:.0%} is usual"
        remedy = f"add images of the other classes, or take {largest} alone as the data; {_again(facts)}"
        yield Finding("problem", evidence, remedy, share, ONE_CLASS, says=says)
    elif most > UNEQUAL * least or (labelled and least < SMALLEST_CLASS):
        usual = f"{SMALLEST_CLASS} or more, and up to {UNEQUAL:g} times as many, are usual"
        evidence = f"{smallest} has {least} training images, {largest} {most}; {usual}"
        remedy = f"add images of {smallest} or leave the class out; {_again(facts)}"
        yield Finding("warning" if labelled else "note", evidence, remedy, most / max(least, 1), UNEQUAL)


@check("overfit", "the network begins to remember its training images", of_training=True)
def _overfit(facts: Facts, held_out: Lines) -> Iterator[Finding]:
    result = rise(facts.measured)
    if result is None or not result.over_fits:
        return
    of, more, step, before = result.held_out, result.more, result.lowest.step, result.lowest.loss
    needed = math.sqrt(LEVEL**2 + 2 * math.log(result.choices))  # errors that decide the largest of so many effects
    rose = f"rose from {before:.4g} by {of.value:.4g} ({of.errors:.0f} standard errors)"
    less = f"changed by {result.train.value:+.4f}, {more.value:.4f} less ({more.errors:.0f} standard errors)"
    evidence = f"since step {step} the held-out loss {rose}; that of training images {less}; {needed:.2g} errors decide"
    remedy = f"sample from step {step} (`checkpoint={step}`, or the nearest); in a new run {more_images(facts.config)}"
    severity: Severity = "problem" if of.value > OVERFIT * before else "warning"
    yield Finding(severity, evidence, remedy, min(of.errors, more.errors), needed)


def more_images(config: Config) -> str:
    """What keeps a network from memorising its images: more of them, mirrored ones, more dropout, fewer steps."""
    mirrored = "" if config.data.flip else "`data.flip=True` where mirror images are right, "
    return f"more images, {mirrored}more dropout or fewer steps"
