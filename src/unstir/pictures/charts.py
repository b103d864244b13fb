"""Charts of a run's figures, whose lines differ for all eyes and on grey paper: by colour, by marker and by dashes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstir.pictures.grid import SIGNED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = ".png", ".svg", ".pdf"
_MOST_NAMED = 16  # steps in the legend of held_out_figure; of more, as many, evenly chosen

_PANELS = (
    ("loss", "loss"),
    ("mse", "mean squared error"),
    ("bits", "bound, bits per dimension"),
    ("grad_norm", "gradient norm before clipping"),
    ("lr", "learning rate"),
)

_SPLITS = (("train", "bits_train", "training images", "o"), ("held_out", "bits", "held-out images", "s"))
"""A split, the key of its bound in held_out.jsonl, and its name and marker."""

_PLAIN = (1e-4, 1e6)  # the labels of an axis that stays between these are written without an exponent
_TICKS = ((1,), (1, 3), (1, 2, 5))  # the labels of a decade: the first that give three labels or more

MARKERS = ("o", "s", "^", "D", "v", "X", "P", "<", "*", "h")
DASHES = ("-", "--", "-.", ":")
_PALETTE = "petroff10"  # of matplotlib; to be distinguished under all common forms of colour blindness (Petroff 2021)


def evenly(count: int, limit: int) -> list[int]:
    """At most ``limit`` >= 2 of the numbers 0..count-1, evenly spread, with both ends; rising, none twice."""
    if count <= limit:
        return list(range(count))
    return [round(i * (count - 1) / (limit - 1)) for i in range(limit)]


def series(place: int) -> dict[str, Any]:
    """What matplotlib draws line ``place`` with: of as many neighbours as `MARKERS` no two share colour or marker."""
    from matplotlib import color_sequences

    every = {"color": color_sequences[_PALETTE], "marker": MARKERS, "linestyle": DASHES}
    return {name: values[place % len(values)] for name, values in every.items()}


def training_curves(metrics: Sequence[Mapping[str, Any]]) -> "Figure":
    """Loss, gradient norm and learning rate against images seen, from the lines of metrics.jsonl.

    Where what is minimised is not the squared error itself, that error and the bound are drawn too, if they are there.
    """
    from matplotlib.figure import Figure  # takes half a second to import
    from matplotlib.ticker import EngFormatter, MaxNLocator

    panels = [(key, title) for key, title in _PANELS if metrics and key in metrics[-1]]
    figure = Figure(figsize=(3.7 * len(panels), 3.2), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        lines = [line for line in metrics if line[key] is not None]
        options: dict[str, Any] = {"marker": "o" if len(lines) < 20 else None, "markersize": 3, "linewidth": 1}
        axes.plot([line["images"] for line in lines], [line[key] for line in lines], **options)
        plain = key == "loss" and "mse" not in metrics[-1]
        axes.set_title("loss (mean squared error)" if plain else title, fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if key != "lr" and any(0 < line[key] < math.inf for line in lines):
            log_axis(axes, "y")
    return _labelled(figure, "images seen in training")


def held_out_figure(lines: Sequence[Mapping[str, Any]]) -> "Figure":
    """The losses of training and held-out images, from the lines of held_out.jsonl.

    The mean loss over times of both splits against images seen; where it was estimated, the bound of both; the held-out
    loss by time t at each step measured, and that of the training images at the last, dashed.
    """
    from matplotlib.figure import Figure

    bits = any(_is_number(line.get(key)) for line in lines for _, key, *_ in _SPLITS)
    figure = Figure(figsize=(13.6 if bits else 10.4, 3.8), layout="constrained")
    course, *bound, by_time = figure.subplots(1, 3 if bits else 2)
    first = next((line["images"] for line in lines if line["images"]), 1)
    _draw_course(course, bound, lines)
    for axes in (course, *bound):
        _images_axis(axes, first)
    _draw_by_time(by_time, lines)
    for axes in (course, *bound, by_time):
        log_axis(axes, "y")
        axes.grid(alpha=0.3)
    by_time.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    course.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), borderaxespad=0, ncols=2)
    return figure


def _draw_course(course: "Axes", bound: Sequence["Axes"], lines: Sequence[Mapping[str, Any]]) -> None:
    """The loss of both splits and, on the one or no panel ``bound``, their bound, against images seen."""
    import numpy as np

    course.set_title("mean squared error, mean over t", fontsize=10)
    for split, key, name, marker in _SPLITS:
        options: dict[str, Any] = {"marker": marker, "markersize": 3, "linewidth": 1, "capsize": 2, "label": name}
        if measured := [line for line in lines if line[split] is not None]:
            values = [np.asarray(line[f"of_{split}"]) for line in measured]
            errors = [losses.std(ddof=1) / len(losses) ** 0.5 for losses in values]
            means = [losses.mean() for losses in values]
            course.errorbar([line["images"] for line in measured], means, errors, **options)
        estimated = [line for line in lines if _is_number(line.get(key))]
        for axes in bound if estimated else ():
            seen, means, errors = ([line[k] for line in estimated] for k in ("images", key, f"{key}_error"))
            axes.errorbar(seen, means, errors, **options)
            axes.set_title("bound, bits per dimension (estimate)", fontsize=10)


def _draw_by_time(axes: "Axes", lines: Sequence[Mapping[str, Any]]) -> None:
    """The loss at each time t, a curve per step measured, from light to dark."""
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.ticker import EngFormatter

    shown = "train" if all(line["held_out"] is None for line in lines) else "held_out"
    colours = colormaps["viridis_r"](np.linspace(1, 0.05, len(lines)))[::-1]  # one alone is the newest
    named = evenly(len(lines), _MOST_NAMED)
    for i, (line, colour) in enumerate(zip(lines, colours, strict=True)):
        label = EngFormatter(sep="")(line["images"]) if i in named else None
        if line[shown] is not None:
            axes.plot(line["times"], line[shown], color=colour, linewidth=1, marker="o", markersize=2, label=label)
    if (train := lines[-1]["train"]) is not None and shown == "held_out":
        options: dict[str, Any] = {"color": colours[-1], "linewidth": 1, "marker": _lone(train), "markersize": 3}
        axes.plot(lines[-1]["times"], train, "--", label="training, last", **options)
    axes.set_title(f"{'held-out' if shown == 'held_out' else 'training'} images at t, by images seen", fontsize=10)
    axes.set_xlabel("t")


def _lone(points: Sequence[Any]) -> str:
    """The marker of a curve that has none: a curve of one point would not be seen."""
    return "s" if len(points) == 1 else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def likelihood_curves(
    curves: Mapping[str, tuple[Sequence[int], Sequence[float], float, Sequence[float]]],
) -> "Figure":
    """Where the bits go: each L_{t-1} by t, and their sum from the decoder upwards.

    ``curves`` gives, by name, rising times, terms in bits per dimension at these times, the decoder's L_0, which stands
    at t = 1, and the sum of all terms up to each time. Where the times are but some of 2..T, as in an estimate, the
    terms are points and the sum, which is estimated too, goes up in steps.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    single, total = figure.subplots(1, 2)
    for place, (name, (times, terms, decoder, summed)) in enumerate(curves.items()):
        t = [1, *times]
        line = {**series(place), "marker": _lone(t), "linewidth": 1, "label": name}
        terms_as = line
        if list(times) != list(range(2, len(times) + 2)):
            terms_as = {**series(place), "linestyle": "", "markersize": 3, "label": f"{name}, those drawn"}
            line = {**line, "drawstyle": "steps-post", "label": f"{name}, estimated"}
        single.plot(t, [decoder, *terms], **terms_as)
        total.plot(t, [decoder, *summed], **line)
    log_axis(single, "y")
    single.set_title("one term of the bound (t = 1: the decoder)")
    total.set_title("terms up to t, summed")
    for axes in (single, total):
        log_axis(axes, "x")
        axes.set_ylabel("bits per dimension")
        axes.legend(fontsize=8)
    return _labelled(figure, "t")


def log_axis(axes: "Axes", which: str) -> None:
    """Make the "x" or "y" axis logarithmic, its labels all written alike; after its data is drawn."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log"})
    low, high = axis.get_view_interval()
    plain = low >= _PLAIN[0] and high < _PLAIN[1]
    axis.set_major_locator(FixedLocator(_ticks(low, high)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if plain else _with_exponent(value)))
    axis.set_minor_formatter(NullFormatter())


def _ticks(low: float, high: float) -> list[float]:
    """Two round numbers or more from ``low`` > 0 to ``high``, so few that their labels leave each other room: powers of
    ten, or parts of them, or, where the axis is too short for these, equally spaced ones.
    """
    from matplotlib.ticker import MaxNLocator

    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for parts in _TICKS:
        ticks = [float(f"{part}e{decade}") for decade in decades for part in parts]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3:
            return ticks[:: -(-len(ticks) // 7)]
    return [tick for tick in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low <= tick <= high]


def _with_exponent(value: float) -> str:
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _images_axis(axes: "Axes", first: int) -> None:
    """Make the x axis that of images seen, logarithmic from ``first`` on, as snapshots are spaced, and linear to 0."""
    from matplotlib.ticker import EngFormatter, FixedLocator

    axes.set_xscale("symlog", linthresh=first)
    high = axes.get_xlim()[1]
    axes.xaxis.set_major_locator(FixedLocator([0, *(_ticks(first, high) if high >= 2 * first else [first])]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("images seen in training")


def _labelled(figure: "Figure", xlabel: str) -> "Figure":
    for axes in figure.axes:
        axes.set_xlabel(xlabel)
        axes.grid(alpha=0.3)
    return figure


def save_figure(figure: "Figure", path: Path, format: str = "png", **words: str) -> None:
    """Write a figure as a file of a format, "png" (which has the ``words`` as text), "svg" or "pdf", on white."""
    of_format = {"svg": {"Creator": "unstir", "Date": None}, "pdf": {"Creator": "unstir", "CreationDate": None}}
    metadata = of_format.get(format, {**SIGNED, **words})
    figure.savefig(path, dpi=110, format=format, metadata=metadata, facecolor="white")
