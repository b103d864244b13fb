"""Charts as inline SVG that takes the page's text colour, so that one drawing serves light, dark and paper."""

import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unstir.errors import printable
from unstir.pictures.charts import log_axis

INK = "#010203"  # stands for the colour of text while a figure is drawn; becomes ``currentColor``
COLOURS = ("#1f6fd0", "#d9520c", "#0a9a78", "#ad6cab", "#857000", "#6b7480")
"""Series colours: the first four distinguished by the colour-blind, all 3:1 against white and against near-black."""

MARKERS = ("o", "s", "^", "D", "v", "X")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1.5)), (0, (8, 2, 1, 1, 1, 2)))
"""A series has a marker and a dash of its own too, for paper and for those who see no colour."""

WIDTH, HEIGHT = 4.4, 2.9  # inches: so narrow a chart is as wide as a telephone, where its labels are still read
STYLE = Path(__file__).parent / "templates" / "chart.mplstyle"
_ID = re.compile(r'(\bid="|url\(#|href="#)')


def axes(title: str, xlabel: str = "") -> Any:
    """The axes of a new chart; draw on them inside ``with style():``, then pass them to `inline`."""
    from matplotlib.figure import Figure  # takes half a second to import

    made = Figure(figsize=(WIDTH, HEIGHT), layout="constrained").subplots()
    made.set_title(title)
    made.set_xlabel(xlabel)
    return made


def style() -> Any:
    """The context in which charts are drawn and written."""
    import matplotlib as mpl
    from cycler import cycler

    series: Any = cycler(color=COLOURS) + cycler(marker=MARKERS) + cycler(linestyle=DASHES)
    settings = mpl.rc_params_from_file(STYLE, use_default_template=False)
    return mpl.rc_context({**settings, "axes.prop_cycle": series})


def inline(drawn: Any, name: str, label: str) -> str:
    """A chart as an SVG element whose ids begin with ``name``; ``label`` is what it shows, for those who cannot see.

    Where it has several series, a legend below the axes names them and hides none. Nothing in it styles the page
    around it, and two charts of one page share no id.
    """
    buffer = io.StringIO()
    if len(drawn.get_legend_handles_labels()[0]) > 1:
        drawn.figure.legend(loc="outside lower center", ncols=2)
    drawn.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", buffer.getvalue(), flags=re.S)
    text = _ID.sub(lambda match: f"{match[1]}{name}-", text[text.index("<svg") :])
    head, rest = text.replace(INK, "currentColor").replace("xlink:href", "href").split(">", 1)
    (view,), title = re.findall(r'viewBox="[^"]*"', head), html.escape(label)
    return f'<svg {view} xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{title}" class="chart">{rest}'


def images_axis(axes: Any, logarithmic: bool = True) -> None:
    """Label the x axis as images seen in training, with k and M."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.set_xlabel("images seen in training")
    if logarithmic:
        log_axis(axes, "x")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def plain(text: str) -> str:
    """A text from outside as a label: its dollars are no formula, and no underscore at its head hides it."""
    return printable(f"run {text}" if text.startswith("_") else text).replace("$", r"\$")


def finite(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """The images seen and the values of ``key``, of the lines that have a value."""
    kept = [line for line in lines if line.get(key) is not None]
    return [line["images"] for line in kept], [line[key] for line in kept]
