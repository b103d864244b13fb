"""Charts of a run's figures."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PANELS = (
    ("loss", "loss"),
    ("mse", "mean squared error"),
    ("bits", "bound, bits a value"),
    ("grad_norm", "gradient norm before clipping"),
    ("lr", "learning rate"),
)


def training_curves(metrics: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss, gradient norm and learning rate against images seen, from the lines of metrics.jsonl, as a PNG.

    Where what is minimised is not the squared error itself, that error and the bound are drawn too, if they are there.
    """
    from matplotlib.figure import Figure  # takes half a second to import
    from matplotlib.ticker import EngFormatter, MaxNLocator

    panels = [(key, title) for key, title in PANELS if metrics and key in metrics[-1]]
    figure = Figure(figsize=(3.7 * len(panels), 3.2), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        if key == "loss" and "mse" not in metrics[-1]:
            title = "loss (mean squared error)"
        lines = [line for line in metrics if line[key] is not None]
        marker = "o" if len(lines) < 20 else None
        axes.plot(
            [line["images"] for line in lines], [line[key] for line in lines], marker=marker, markersize=3, linewidth=1
        )
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("training images seen")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
        if key != "lr" and lines:
            axes.set_yscale("log")
    figure.savefig(path, dpi=110, format="png")


def likelihood_curves(curves: Mapping[str, tuple[Sequence[int], Sequence[float], float]], path: Path) -> None:
    """Draw where the bits go, as a PNG: each L_{t-1} by t, and their sum from the decoder upwards.

    ``curves`` gives, by name, rising times, terms in bits a value at these times, and the decoder's L_0, which stands
    at t = 1. Where the times are but some of 2..T, as in an estimate, there is no sum to draw.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    single, total = figure.subplots(1, 2)
    for name, (times, terms, decoder) in curves.items():
        t = [1, *times]
        values = [decoder, *terms]
        whole = list(times) == list(range(2, len(times) + 2))
        single.plot(t, values, "-" if whole else ".", linewidth=1, markersize=3, label=name)
        if whole:
            total.plot(t, list(itertools.accumulate(values)), linewidth=1, label=name)
        else:
            total.plot([], [], ".", label=f"{name}: some of the terms alone")
    single.set(xscale="log", yscale="log", title="one term of the bound (t = 1: the decoder)", ylabel="bits a value")
    total.set(xscale="log", title="terms up to t, summed", ylabel="bits a value")
    for axes in (single, total):
        axes.set_xlabel("t")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110, format="png")
