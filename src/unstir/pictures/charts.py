"""Charts of a run's figures, of one look on paper and on a page: a colour, a marker and a dash for each series."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstir.pictures.grid import SIGNED
from unstir.significance import mean_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = (
    ("loss", "training loss"),
    ("mse", "mean squared error"),
    ("bits", "bound, bits per dimension"),
    ("grad_norm", "gradient norm before clipping"),
    ("lr", "learning rate"),
    ("ema_decay", "decay of the averaged weights"),
)
"""The columns of metrics.jsonl that are drawn, and what they are."""

SPLITS = (("train", "bits_train", "training images"), ("held_out", "bits", "held-out images"))
"""A split, the key of its bound in held_out.jsonl, and its name."""

INK = "#010203"  # of text: on a page it becomes the text's own colour
COLOURS = ("#1f6fd0", "#d9520c", "#0a9a78", "#ad6cab", "#857000", "#6b7480")
"""Series colours: the first four distinguished by the colour-blind, all 3:1 against white and against near-black."""

MARKERS = ("o", "s", "^", "D", "v", "X")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1.5)), (0, (8, 2, 1, 1, 1, 2)))
"""A series has a marker and a dash of its own too, for paper and for those who see no colour."""

STYLE = Path(__file__).parent / "chart.mplstyle"
TIMES_SHOWN = 5  # steps of training that are shown by timestep
MARKED = 0.15  # a curve of many points has a marker at every such share of its length

_PLAIN = (1e-4, 1e6)  # the labels of an axis that stays between these are written without an exponent
_TICKS = ((1,), (1, 3), (1, 2, 5))  # the labels of a decade: the first that give three labels or more

Lines = Sequence[Mapping[str, Any]]  # of a log
Point = tuple[float, float, float]  # x, a value, and its standard error


def evenly(count: int, limit: int) -> list[int]:
    """At most ``limit`` >= 2 of the numbers 0..count-1, evenly spread, with both ends; rising, none twice."""
    if count <= limit:
        return list(range(count))
    return [round(i * (count - 1) / (limit - 1)) for i in range(limit)]


def style() -> Any:
    """The context in which charts are drawn."""
    import matplotlib as mpl
    from cycler import cycler

    cycle: Any = cycler(color=COLOURS) + cycler(marker=MARKERS) + cycler(linestyle=DASHES)
    settings = mpl.rc_params_from_file(STYLE, use_default_template=False)
    return mpl.rc_context({**settings, "axes.prop_cycle": cycle})


def training_curves(metrics: Lines) -> "Figure":
    """The `PANELS` that are there by images seen, from the lines of metrics.jsonl."""
    from matplotlib.figure import Figure  # takes half a second to import

    panels = [(key, title) for key, title in PANELS if metrics and key in metrics[-1]]
    with style():
        figure = Figure(figsize=(3.7 * len(panels), 3.2), layout="constrained")
        for axes, (key, title) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            draw_metric(axes, [("", metrics)], key)
            axes.set_title(title)
    return figure


def held_out_figure(lines: Lines) -> "Figure":
    """Losses of both splits by images seen, their bounds where estimated, and losses by time t at some steps."""
    from matplotlib.figure import Figure

    bits = any(_is_number(line.get(key)) for line in lines for _, key, _ in SPLITS)
    with style():
        figure = Figure(figsize=(13.6 if bits else 10.4, 3.8), layout="constrained")
        course, *bound, by_time = figure.subplots(1, 3 if bits else 2)
        draw_losses(course, lines)
        for axes in bound:
            draw_bits(axes, lines)
        draw_by_time(by_time, lines)
        by_time.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
        course.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), borderaxespad=0, ncols=2)
    return figure


def draw_metric(axes: "Axes", runs: Sequence[tuple[str, Lines]], key: str) -> None:
    """A column of metrics.jsonl by images seen in training, a line for each run by its name."""
    values = []
    for place, (name, lines) in enumerate(runs):
        kept = [line for line in lines if line.get(key) is not None]
        values += [line[key] for line in kept]
        every = (MARKED * place / len(runs), MARKED) if len(kept) > 1 else None  # shares of no length mark nothing
        axes.plot([line["images"] for line in kept], [line[key] for line in kept], label=name, markevery=every)
    if key not in ("lr", "ema_decay") and any(0 < value < math.inf for value in values):
        log_axis(axes, "y")
    images_axis(axes)


def draw_losses(axes: "Axes", lines: Lines) -> None:
    """The loss of the images of each split, mean over times, by images seen, with the error over images."""
    for split, _, name in SPLITS:
        bars(axes, mean_losses(lines, split), name)
    axes.set_title("loss of fixed images, mean over t")
    _of_snapshots(axes, lines)


def draw_bits(axes: "Axes", lines: Lines) -> None:
    """The bound on each split where it was estimated, by images seen."""
    for _, key, name in SPLITS:
        bars(axes, [(it["images"], it[key], it[f"{key}_error"]) for it in lines if _is_number(it.get(key))], name)
    axes.set_title("bound, bits per dimension (estimate)")
    above = all((it.get(key) or 1) > 0 for it in lines for _, key, _ in SPLITS)  # those of densities may be negative
    _of_snapshots(axes, lines, above)


def draw_by_time(axes: "Axes", lines: Lines) -> None:
    """The loss at each time t at some steps, of held-out images where there are any; the newest in another colour."""
    key = "held_out" if lines[-1].get("held_out") else "train"
    shown = [line for line in lines if line.get(key)]
    shown = [shown[i] for i in evenly(len(shown), TIMES_SHOWN)]
    for place, line in enumerate(shown, 1):
        how = {"color": COLOURS[place == len(shown)], "alpha": 0.3 + 0.7 * place / len(shown)}
        errors = line.get(f"{key}_error") or [0.0] * len(line["times"])
        bars(axes, list(zip(line["times"], line[key], errors, strict=True)), f"after {line['images']:,} images", **how)
    log_axis(axes, "y")
    axes.set_title(f"loss of {'held-out' if key == 'held_out' else 'training'} images by timestep")
    axes.set_xlabel("timestep t (small: details, large: layout)")


def _of_snapshots(axes: "Axes", lines: Lines, logarithmic: bool = True) -> None:
    if logarithmic:
        log_axis(axes, "y")
    images_axis(axes, min((line["images"] for line in lines if line["images"]), default=1))


def bars(axes: "Axes", points: Sequence[Point], name: str, **how: Any) -> None:
    """A line of points with their errors, if there are any."""
    if points:
        x, y, errors = zip(*points, strict=True)
        axes.errorbar(x, y, errors, capsize=2, label=name, **how)


def mean_losses(lines: Iterable[Mapping[str, Any]], split: str) -> list[Point]:
    """The mean loss over the images of a split by images seen in training, from the lines of held_out.jsonl."""
    return [(line["images"], *mean_of(line[f"of_{split}"])[:2]) for line in lines if line.get(f"of_{split}")]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def likelihood_curves(curves: Mapping[str, tuple[Sequence[int], Sequence[float], float, Sequence[float]]]) -> "Figure":
    """Where the bits go: each L_{t-1} by t, and their sum from the decoder upwards.

    ``curves`` gives, by name, rising times, terms in bits per dimension at these times, the decoder's L_0, which stands
    at t = 1, and the sum of all terms up to each time. Where the times are but some of 2..T, the terms are points and
    the sum goes up in steps.
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        single, total = figure.subplots(1, 2)
        for name, (times, terms, decoder, summed) in curves.items():
            t, exact = [1, *times], list(times) == list(range(2, len(times) + 2))
            of_terms: dict[str, Any] = {"marker": "", "label": name}
            of_sum: dict[str, Any] = {"marker": "", "label": name}
            if not exact:
                of_terms = {"linestyle": "", "label": f"{name}, those drawn"}
                of_sum |= {"drawstyle": "steps-post", "label": f"{name}, estimated"}
            single.plot(t, [decoder, *terms], **of_terms)
            total.plot(t, [decoder, *summed], **of_sum)
        log_axis(single, "y")
        single.set_title("one term of the bound (t = 1: the decoder)")
        total.set_title("terms up to t, summed")
        for axes in (single, total):
            log_axis(axes, "x")
            axes.set_ylabel("bits per dimension")
            axes.set_xlabel("t")
            axes.legend()
    return figure


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
    """Two or more round numbers from ``low`` > 0 to ``high`` with room for labels: powers of ten, else even steps."""
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


def images_axis(axes: "Axes", first: float = 0) -> None:
    """Make the x axis that of images seen in training; logarithmic from the ``first`` on, as snapshots are spaced."""
    from matplotlib.ticker import EngFormatter, FixedLocator, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5))
    if first:
        axes.set_xscale("symlog", linthresh=first)
        axes.autoscale(axis="x")  # its limits were perhaps settled on a linear axis
        low, high = axes.get_xlim()
        ticks = _ticks(first, high) if high >= 2 * first else [first]
        axes.xaxis.set_major_locator(FixedLocator([0, *ticks] if low <= 0 else ticks))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("images seen in training")


def save_figure(figure: "Figure", path: Path, format: str = "png", **words: str) -> None:
    """Write a figure as a file of a format, "png" (which has the ``words`` as text), "svg" or "pdf", on white."""
    of_format = {"svg": {"Creator": "unstir", "Date": None}, "pdf": {"Creator": "unstir", "CreationDate": None}}
    metadata = of_format.get(format, {**SIGNED, **words})
    figure.savefig(path, dpi=110, format=format, metadata=metadata, facecolor="white")
