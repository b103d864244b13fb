"""The head of a page in plain words: what the run is, what it learned from and for how long, and how good it is."""

import re
from collections.abc import Iterable, Sequence

from unstir.insight.analysis_samples import MEANINGS
from unstir.insight.facts import Facts
from unstir.insight.statement import Statement
from unstir.insight.wording import count
from unstir.progress import duration

GOODNESS = {
    ("excess", "bad"): "By the figures its images can still be told from real ones.",
    ("excess", "undecided"): "The samples are too few to say whether its images can be told from real ones.",
    ("excess", "not compared"): "Too few real images were held out to say whether its images can be told from them.",
    ("near", "good"): "By the figures its images are close to real ones.",
    ("too near", "bad"): "By the figures its images are nearer to the training images than new ones can be: they may "
    "be copies.",
}  # fmt: skip
"""What a statement about the main figure says, by its name and verdict; "not compared" is one without an effect."""

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
    if facts.config.imported:
        return [what, f"Its weights were imported from {facts.config.imported}.", _goodness(facts, statements)]
    train, held_out = facts.data.counts["train"], facts.data.counts["held_out"]
    kept = f"; {held_out:,} others were held out, to compare with" if held_out else ""
    source = f"It was trained on {count(train, 'image')} of `{facts.config.data.source}`{kept}."
    if facts.config.distilled:
        teacher = f"the run `{facts.config.train.init}`"
        source = f"It was distilled: it learned from {teacher} to make in one call what that makes in many."
    where = f"Training is at step {facts.step:,} of {facts.run.length:,}."
    if facts.finished:
        where = f"Training finished after {count(facts.step, 'step')}."
    if facts.cost.images:
        name, num, how = facts.images_seen
        where += f" It took {duration(facts.cost.seconds)}; {name}: {num}, {how}."
    return [what, source, where, _goodness(facts, statements)]


def _goodness(facts: Facts, statements: Sequence[Statement]) -> str:
    """Whether its images are good, by the statement about the main figure and, against it, those on others."""
    if facts.last is None:
        return "Whether its images are good was not measured: see them below, or measure it with `unstir evaluate RUN`."
    keys = ((it.name, "not compared" if it.effect is None else it.verdict) for it in statements)
    main = next(key for key in keys if key in GOODNESS)
    text = GOODNESS[main]
    worse = [it.name for it in statements if it.name in OTHERS and it.verdict == "bad"]
    if worse and main[1] != "bad":
        text += f" By other figures they can be told from real ones (below: {', '.join(worse)})."
    return f"{text} They are {facts.older}." if facts.older else text


def explained(texts: Iterable[str]) -> str:
    """What the terms in these texts mean; "" where there are none."""
    text = " ".join(texts)
    return " ".join(meaning for pattern, meaning in TERMS if re.search(pattern, text))
