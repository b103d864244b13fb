"""Charts of a run's figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PANELS = (
    ("loss", "loss (mean squared error)"),
    ("grad_norm", "gradient norm before clipping"),
    ("lr", "learning rate"),
)


def training_curves(metrics: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss, gradient norm and learning rate against images seen, from the lines of metrics.jsonl, as a PNG."""
    from matplotlib.figure import Figure  # takes half a second to import
    from matplotlib.ticker import EngFormatter, MaxNLocator

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
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
