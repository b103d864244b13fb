"""A run that was never trained, and what a check finds in it."""

from pathlib import Path

from unstir.insight.doctor import CHECKS
from unstir.insight.facts import Facts
from unstir.insight.image_stats import ImageStats
from unstir.runs.card import DataCard
from unstir.runs.run import Run
from unstir.runs.toml import from_dict

STATS = ImageStats(1000, 1000, 0.0, 0.5, 0, 255, 0, 0)


def facts(num=600, shape=(1, 2, 2), step=100, **changes):
    """A run of 100 steps that is at ``step``; keys with __ are settings, the others parts of the facts."""
    values = {"data": {"source": "digits", "channels": 1}, "model": {"in_channels": 1}}
    values["train"] = {"length": "100 steps", "warmup": "0 steps", "batch_size": 10}
    for key in [key for key in changes if "__" in key]:
        section, name = key.split("__")
        values.setdefault(section, {})[name] = changes.pop(key)
    run = Run(Path("run"), from_dict(values, "test"), DataCard(shape, (), {"train": num, "held_out": 0}, "h"))
    line = {"step": step, "loss": 1.0, "skipped": 0, "images_per_second": 0.0}
    lines = (line,) * (step > 0)
    return Facts(run=run, **{"lines": lines, **changes})


def said(name, of, *parts):
    """The severity, the figure and the threshold of what a check finds; None where that is nothing."""
    found = [(each.severity, each.figure, each.threshold) for each in CHECKS[name].find(of, *parts)]
    return found[0] if found else None
