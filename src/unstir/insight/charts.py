"""The charts of a page, made from `Facts`: matplotlib figures; an empty list where there is nothing to draw."""

import html
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstir.chain import title
from unstir.errors import printable
from unstir.insight.facts import Facts, same_features
from unstir.insight.gather import gather
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.figures import Figure
from unstir.metrics.likelihood import drawn
from unstir.pictures.charts import (
    COLOURS,
    INK,
    PANELS,
    Lines,
    Point,
    bars,
    draw_bits,
    draw_by_time,
    draw_losses,
    draw_metric,
    images_axis,
    log_axis,
    save_figure,
    style,
)
from unstir.runs import build
from unstir.runs.files import check_writable, make_folder, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MatplotlibFigure

BESIDE = 0.02  # how far apart samplers of equally many calls stand, in shares of the width
WIDTH, HEIGHT = 4.4, 2.9  # inches: as wide as a telephone, where labels are still read
_ID = re.compile(r'(\bid="|url\(#|href="#)')

_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True, eq=False)
class Chart:
    """A matplotlib ``figure``, called ``name``; ``label`` is what it shows, for those who cannot see."""

    name: str
    label: str
    figure: "MatplotlibFigure"

    def __html__(self) -> str:
        """An SVG element whose ids begin with the name: nothing in it styles the page, and two charts share no id."""
        buffer = io.StringIO()
        with style():
            self.figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
        text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", buffer.getvalue(), flags=re.S)
        text = _ID.sub(lambda match: f"{match[1]}{self.name}-", text[text.index("<svg") :])
        head, rest = text.replace(INK, "currentColor").replace("xlink:href", "href").split(">", 1)
        (view,), title = re.findall(r'viewBox="[^"]*"', head), html.escape(self.label)
        return f'<svg {view} xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{title}" class="chart">{rest}'


def charts(run: str | Path) -> "dict[str, MatplotlibFigure]":
    """Every chart of the run in a folder as a matplotlib figure, by name, as far as there is anything to draw.

    They are loss, grad_norm, lr and ema_decay (of the log), loss-by-images, bits and loss-by-time (of fixed images),
    likelihood (of held-out images), quality, precision and calls (of evaluations), and signal and snr (of the
    schedule). Raises UserError where there is no run.
    """
    return _charts(gather(run, samples=False))


def _charts(facts: Facts) -> "dict[str, MatplotlibFigure]":
    parts = curves(facts), losses(facts), loss_by_time(facts), quality(facts), calls(facts), forward(facts)
    figures = {chart.name: chart.figure for part in parts for chart in part}
    return figures | ({} if facts.bound is None else {"likelihood": drawn({"held_out": facts.bound})})


def save_charts(runs: Sequence[Facts], folder: Path, format: str) -> list[Path]:
    """Write the `charts` of runs as "png", "svg" or "pdf" into a folder, of several each into one of its name."""
    check_writable(folder, "charts")
    files = []
    for facts in runs:
        place = make_folder(folder / facts.name if len(runs) > 1 else folder)
        for name, figure in _charts(facts).items():
            files.append(place / f"{name}.{format}")
            with replacing(files[-1]) as unfinished:
                save_figure(figure, unfinished, format)
    return files


def curves(facts: Facts) -> list[Chart]:
    """Loss, gradient norm, learning rate and decay of the average by images seen in training."""
    lines = facts.lines
    logged = [pair for pair in PANELS if sum(line.get(pair[0]) is not None for line in lines) > 1]
    return [curve([(facts.name, lines)], *pair) for pair in logged if pair[0] not in ("mse", "bits")]


def curve(runs: Sequence[tuple[str, Lines]], key: str, title: str) -> Chart:
    """A column of metrics.jsonl by images seen in training, a line for each (name of a run, its lines)."""
    with style():
        axes = _axes(title)
        draw_metric(axes, [(_plain(name), lines) for name, lines in runs], key)
        return _chart(axes, key, f"{title} by images seen in training")


def losses(facts: Facts) -> list[Chart]:
    """Loss and bits per dimension of fixed training and held-out images by images seen."""
    lines = [line for line in facts.held_out if line["step"] > 0]
    if len(lines) < 2:
        return []
    bits = [("bits", draw_bits)] if any(line.get("bits") is not None for line in lines) else []
    return [_of_log(lines, *panel) for panel in (("loss-by-images", draw_losses), *bits)]


def loss_by_time(facts: Facts) -> list[Chart]:
    """Loss by timestep at a few steps, of held-out images where there are any."""
    lines = [line for line in facts.held_out if line["step"] > 0]
    there = any(line.get("held_out") or line.get("train") for line in lines)
    return [_of_log(lines, "loss-by-time", draw_by_time)] if there else []


def _of_log(lines: Lines, name: str, draw: Callable[["Axes", Lines], None]) -> Chart:
    with style():
        axes = _axes("")
        draw(axes, lines)
        return _chart(axes, name, f"{axes.get_title()}, with error bars")


def quality(facts: Facts) -> list[Chart]:
    """The main distance, and precision and recall, by images seen in training."""
    if facts.last is None or len(facts.by_step) < 2:
        return []
    key, main = facts.last.main_key, facts.last.main()
    points = by_value((item.images, item.figures[key]) for item in facts.by_step)
    label = f"{main.name} of samples by images seen in training, with error bars"
    distance = by_images({main.name: points}, f"{main.name} ({main.better} is better)", "quality", label, main)
    return distance + _precision_and_recall(facts.by_step)


def _precision_and_recall(by_step: Sequence[Evaluation]) -> list[Chart]:
    result = {
        name: [(item.images, figure) for item in by_step if (figure := same_features(item, name)) is not None]
        for name in ("precision", "recall")
    }
    if not all(result.values()):
        return []
    with style():
        axes = _axes("precision and recall (higher is better)")
        for (name, points), colour in zip(result.items(), COLOURS, strict=False):
            bars(axes, by_value(points), name)
            if (floor := points[-1][1].floor) is not None:
                axes.axhline(floor, linestyle=":", linewidth=1, color=colour, label=f"{name} of real images")
        axes.set_ylim(-0.03, 1.03)
        images_axis(axes, min((item.images for item in by_step if item.images), default=0))
        return [_chart(axes, "precision", "Precision and recall by images seen in training, with error bars")]


def calls(facts: Facts) -> list[Chart]:
    """The main distance by network calls, one line per sampler; of equally many calls none hides another."""
    if len(facts.by_chain) < 2:
        return []
    key, main = facts.by_chain[-1].main_key, facts.by_chain[-1].main()
    at: dict[int, list[Evaluation]] = {}
    for item in facts.by_chain:
        at.setdefault(item.protocol["calls"], []).append(item)
    ticks = sorted(at)
    aside = max(ticks[-1] / ticks[0], 2) ** BESIDE
    with style():
        axes = _axes(f"{main.name} ({main.better} is better)", "network calls per image")
        for name in dict.fromkeys(title(item.protocol) for item in facts.by_chain):
            points = [
                (calls * aside ** (place - (len(at[calls]) - 1) / 2), item.figures[key])
                for calls in ticks
                for place, item in enumerate(at[calls])
                if title(item.protocol) == name
            ]
            bars(axes, by_value(points), name)
        _bounds(axes, main, ceiling=False)
        log_axis(axes, "y")
        log_axis(axes, "x")
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.xaxis.minorticks_off()
        return [_chart(axes, "calls", f"{main.name} by network calls, one line per sampler")]


def forward(facts: Facts) -> list[Chart]:
    """The share of signal and the log signal-to-noise ratio of the run's own schedule."""
    schedule = build.schedule(facts.config.diffusion)
    times = range(1, schedule.T + 1)
    seen = [t for t in times if schedule.abar(t) > 0]
    with style():
        signal = _axes("share of the variance that is signal", "t")
        signal.plot([0, *times], [schedule.abar(t) for t in (0, *times)], marker="")
        ratio = _axes("log SNR (0: as much noise as signal)", "t")
        ratio.plot(seen, [schedule.log_snr(t) for t in seen], marker="")
        ratio.axhline(0, linewidth=0.8, linestyle=":", color=INK)
        return [
            _chart(signal, "signal", "Share of signal by timestep"),
            _chart(ratio, "snr", "Log signal-to-noise ratio by timestep"),
        ]


def by_images(
    series: Mapping[str, Sequence[Point]], title: str, id_: str, label: str = "", bounded: Figure | None = None
) -> list[Chart]:
    """A chart of named series by images seen in training, both axes logarithmic; [] without points."""
    if not any(series.values()):
        return []
    with style():
        axes = _axes(title)
        for name, points in series.items():
            bars(axes, points, _plain(name))
        if bounded is not None:
            _bounds(axes, bounded)
        log_axis(axes, "y")
        images_axis(axes, min((x for points in series.values() for x, *_ in points if x), default=0))
        return [_chart(axes, id_, label or f"{title} by images seen in training, with error bars")]


def by_value(points: Iterable[tuple[float, Figure]]) -> list[Point]:
    """Figures at each x as points; an unknown error has no bar."""
    return [(x, figure.value, figure.error or 0.0) for x, figure in points]


def _bounds(axes: Any, figure: Figure, ceiling: bool = True) -> None:
    if figure.floor is not None:
        axes.axhline(figure.floor, linestyle=":", linewidth=1, color=INK, label="real images (floor)")
    if ceiling and figure.ceiling is not None:
        axes.axhline(figure.ceiling, linestyle="--", linewidth=1, color=INK, label="noise (ceiling)")


def _axes(title: str, xlabel: str = "") -> Any:
    """The axes of a new chart; draw on them inside ``with style():``, then pass them to `_chart`."""
    from matplotlib.figure import Figure  # takes half a second to import

    axes = Figure(figsize=(WIDTH, HEIGHT), layout="constrained").subplots()
    axes.set_title(title)
    axes.set_xlabel(xlabel)
    return axes


def _chart(axes: Any, name: str, label: str) -> Chart:
    """The chart of what was drawn on some axes. Where it has several series, a legend below them hides none."""
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.figure.legend(loc="outside lower center", ncols=2)
    return Chart(name, label, axes.figure)


def _plain(text: str) -> str:
    """A text from outside as a label: its dollars are no formula, and no underscore at its head hides it."""
    return printable(f"run {text}" if text.startswith("_") else text).replace("$", r"\$")
