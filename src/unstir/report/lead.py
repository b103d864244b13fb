"""The head of a page in plain words: what the run is, what it learned from and for how long, and how good it is."""

import re
from collections.abc import Iterable, Sequence

from unstir.progress import duration
from unstir.report.analysis_quality import MEANINGS
from unstir.report.facts import Facts
from unstir.report.statement import Statement
from unstir.report.wording import count, passes

NOT_COMPARED = "not compared"  # in the place of a verdict, where held-out images are fewer than the samples of a set
GOODNESS = {
    ("excess", "bad"): "By the figures its images can still be told from real ones.",
    ("excess", "undecided"): "The samples are too few to say whether its images can be told from real ones.",
    ("excess", NOT_COMPARED): "Too few real images were held out to say whether its images can be told from them.",
    ("near", "good"): "By the figures its images are close to real ones.",
    ("too near", "bad"): "By the figures its images are nearer to the training images than new ones can be: they may "
    "be copies.",
}  # fmt: skip
"""What a statement about the main figure says, by its name and verdict."""

OTHERS = ("class accuracy", "classes", *MEANINGS)  # statements on figures beside the main one

TERMS = (
    (r"[Hh]eld[- ]out", "Held-out images are real images that training never used."),
    (r"\bloss\b", "The loss is the mean squared error of what the network predicts: lower is better."),
    (r"\bFD-|\bFID\b|Wasserstein", "A distance (FD, FID, sliced Wasserstein) says how far the samples, as a set, are "
     "from real images: lower is better."),
    (r"\bbits\b", "Bits per dimension (bits/dim) are what the model needs to store one value of a pixel: lower is "
     "better, and without a model it takes 8."),
)  # fmt: skip
"""Terms of the field by a pattern, each with its explanation."""


def lead(facts: Facts, statements: Sequence[Statement]) -> list[str]:
    """Three sentences or so for a reader who knows no term of the field, commands in backticks."""
    height, width = facts.data.shape[1:]
    kind = "grey" if facts.data.shape[0] == 1 else "colour"
    what = f"A diffusion model: a network that turns noise into new {kind} images of {width}x{height} pixels."
    if not facts.config.kind.trained_here:
        return [what, f"Its weights were imported from {facts.config.kind.origin}.", _goodness(facts, statements)]
    return [what, _learned_from(facts), _length(facts), _goodness(facts, statements)]


def _learned_from(facts: Facts) -> str:
    if facts.config.kind.has_teacher:
        teacher = f"the run `{facts.config.train.init}`"
        return f"It was distilled: it learned from {teacher} to make in one call what that makes in many."
    train, held_out = facts.data.counts["train"], facts.data.counts["held_out"]
    kept = f"; {held_out:,} others were held out, to compare with" if held_out else ""
    return f"It was trained on {count(train, 'image')} of `{facts.config.data.source}`{kept}."


def _length(facts: Facts) -> str:
    """How far training has come, in steps, images and time."""
    where = f"Training is at step {facts.step:,} of {facts.length:,}"
    if facts.step >= facts.length:
        where = f"Training finished after {count(facts.step, 'step')}"
    if not facts.cost.images:
        return f"{where}."
    if facts.config.kind.has_teacher:
        return (
            f"{where}. It took {duration(facts.cost.seconds)}, with {count(facts.cost.images, 'image')} in its batches."
        )
    seen = passes(facts.cost.images, facts.data.counts["train"])
    return f"{where}. It took {duration(facts.cost.seconds)} and saw {count(facts.cost.images, 'image')}, {seen}."


def _goodness(facts: Facts, statements: Sequence[Statement]) -> str:
    """Whether its images are good, by the statement about the main figure and, against it, those on others."""
    if facts.last is None:
        return "Whether its images are good was not measured: see them below, or measure it with `unstir evaluate RUN`."
    keys = ((each.name, NOT_COMPARED if each.effect is None else each.verdict) for each in statements)
    main = next(key for key in keys if key in GOODNESS)
    worse = [each.name for each in statements if each.name in OTHERS and each.verdict == "bad"]
    said = GOODNESS[main]
    if worse and main[1] != "bad":
        said += f" By other figures they can be told from real ones (below: {', '.join(worse)})."
    return f"{said} They are {facts.older}." if facts.older else said


def explained(texts: Iterable[str]) -> str:
    """What the terms in these texts mean; "" where there are none."""
    text = " ".join(texts)
    return " ".join(meaning for pattern, meaning in TERMS if re.search(pattern, text))
