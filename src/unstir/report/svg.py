"""Charts as inline SVG that takes the page's text colour, so that one drawing serves light, dark and paper."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

INK = "#010203"
"""Stands for the colour of text while a figure is drawn; becomes ``currentColor``."""

COLOURS = ("#2f7fc1", "#d9772b", "#3a9e5f", "#c2497c", "#8a6fc4", "#a08a1f", "#2a9d9d", "#8c6d5a")
"""Series colours of about equal weight on white and on near-black."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 10,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.transparent": True,
    "svg.hashsalt": "unstir",
}

_ID = re.compile(r'(\bid="|url\(#|href="#)')


def figure(width: float, height: float) -> Any:
    """A matplotlib figure in inches; draw on it inside ``with style():``, then pass it to `inline`."""
    from matplotlib.figure import Figure  # takes half a second to import

    return Figure(figsize=(width, height), layout="constrained")


def style() -> Any:
    """The context in which figures are drawn and written."""
    import matplotlib as mpl
    from cycler import cycler

    settings: Any = {**STYLE, "axes.prop_cycle": cycler(color=COLOURS)}
    return mpl.rc_context(settings)


def inline(drawn: Any, name: str, label: str) -> str:
    """A figure as an SVG element whose ids begin with ``name``; ``label`` is what it shows, for those who cannot see.

    Nothing in it styles the page around it, and two figures of one page share no id.
    """
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = _ID.sub(lambda match: f"{match[1]}{name}-", text)
    text = text.replace(INK, "currentColor").replace("xlink:href", "href")
    head, rest = text.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    assert view is not None
    title = _escape(label)
    return f'<svg {view[0]} xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{title}" class="chart">{rest}'


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def images_axis(axes: Any, log: bool = False) -> None:
    """Label the x axis as training images seen, with k and M."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.set_xlabel("training images seen")
    if log:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def plain(text: str) -> str:
    """A text from outside as a label: its dollars are no formula, and no underscore at its head hides it."""
    return (f"run {text}" if text.startswith("_") else text).replace("$", r"\$")


def legend(axes: Any, columns: int = 1) -> None:
    """A legend, where there is anything to name."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(ncols=columns)


def finite(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """The images seen and the values of ``key``, of the lines that have a value."""
    kept = [line for line in lines if line.get(key) is not None]
    return [line["images"] for line in kept], [line[key] for line in kept]
