"""The charts of a page, made from `Facts`: matplotlib figures; an empty list where there is nothing to draw."""

import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstir.chain import title
from unstir.errors import printable
from unstir.insight.facts import Facts, same_features
from unstir.insight.gather import gather
from unstir.insight.wording import count
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.figures import Figure
from unstir.metrics.likelihood import drawn
from unstir.pictures.charts import evenly, held_out_figure, log_axis, save_figure, training_curves
from unstir.runs import build
from unstir.runs.files import check_writable, make_folder, replacing
from unstir.significance import mean_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

INK = "#010203"  # stands for the colour of text while a figure is drawn; becomes ``currentColor``
COLOURS = ("#1f6fd0", "#d9520c", "#0a9a78", "#ad6cab", "#857000", "#6b7480")
"""Series colours: the first four distinguished by the colour-blind, all 3:1 against white and against near-black."""

MARKERS = ("o", "s", "^", "D", "v", "X")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1.5)), (0, (8, 2, 1, 1, 1, 2)))
"""A series has a marker and a dash of its own too, for paper and for those who see no colour."""

WIDTH, HEIGHT = 4.4, 2.9  # inches: so narrow a chart is as wide as a telephone, where its labels are still read
STYLE = Path(__file__).parent / "templates" / "chart.mplstyle"
_ID = re.compile(r'(\bid="|url\(#|href="#)')

_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}

Point = tuple[float, float, float]  # x, a value, and its standard error


@dataclass(frozen=True, eq=False)
class Chart:
    """A matplotlib ``figure``, called ``name``; ``label`` is what it shows, for those who cannot see."""

    name: str
    label: str
    figure: "MatplotlibFigure"

    def __html__(self) -> str:
        """An SVG element whose ids begin with the name: nothing in it styles the page, and two charts share no id."""
        buffer = io.StringIO()
        with _style():
            self.figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
        text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", buffer.getvalue(), flags=re.S)
        text = _ID.sub(lambda match: f"{match[1]}{self.name}-", text[text.index("<svg") :])
        head, rest = text.replace(INK, "currentColor").replace("xlink:href", "href").split(">", 1)
        (view,), title = re.findall(r'viewBox="[^"]*"', head), html.escape(self.label)
        return f'<svg {view} xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{title}" class="chart">{rest}'


def charts(run: str | Path) -> "dict[str, MatplotlibFigure]":
    """Every chart of the run in a folder as a matplotlib figure, by name, as far as there is anything to draw.

    Those of its files are curves, losses and likelihood (of held-out images). Those of its page are loss, grad_norm, lr
    and ema_decay (of the log), loss-by-images, bits and loss-by-time (of fixed images), quality, precision and calls
    (of evaluations), and signal and snr (of the schedule). Raises UserError where there is no run.
    """
    return _charts(gather(run, samples=False))


def _charts(facts: Facts) -> "dict[str, MatplotlibFigure]":
    parts = curves(facts), losses(facts), loss_by_time(facts), quality(facts), calls(facts), forward(facts)
    figures = {chart.name.removeprefix("fig-"): chart.figure for part in parts for chart in part}
    figures |= {"curves": training_curves(facts.lines)} if facts.lines else {}
    figures |= {"losses": held_out_figure(facts.held_out)} if facts.held_out else {}
    return figures | ({} if facts.bound is None else {"likelihood": drawn({"held_out": facts.bound})})


def save_charts(runs: Sequence[Facts], folder: Path, format: str = "png") -> list[Path]:
    """Write the `charts` of runs into a folder, several each into one of its name, and return the files.

    They are "png", "svg" or "pdf".
    """
    check_writable(folder, "charts")
    files = []
    for facts in runs:
        place = make_folder(folder / facts.name if len(runs) > 1 else folder)
        for name, figure in _charts(facts).items():
            files.append(place / f"{name}.{format}")
            with replacing(files[-1]) as unfinished:
                save_figure(figure, unfinished, format)
    return files


CURVES = (
    ("loss", "training loss", True),
    ("grad_norm", "gradient norm before clipping", True),
    ("lr", "learning rate", False),
    ("ema_decay", "decay of the averaged weights", False),
)
TIMES_SHOWN = 5  # steps of training that are shown by timestep
MARKED = 0.15  # a curve of many points has a marker at every such share of its length
BESIDE = 0.02  # samplers of equally many calls stand side by side, so far apart in shares of the width


def curves(facts: Facts) -> list[Chart]:
    """Loss, gradient norm, learning rate and decay of the average by images seen in training."""
    panels = [panel for panel in CURVES if len(_finite(facts.lines, panel[0])[0]) > 1]
    return [curve([(facts.name, facts.lines)], *panel) for panel in panels]


def curve(lines: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], key: str, title: str, log: bool) -> Chart:
    """A column of metrics.jsonl by images seen in training, a line a (name of a run, its lines)."""
    with _style():
        axes = _axes(title)
        for place, (name, of) in enumerate(lines):
            x, y = _finite(of, key)
            every = (MARKED * place / len(lines), MARKED) if len(x) > 1 else None  # shares of no length mark nothing
            axes.plot(x, y, label=_plain(name), markevery=every)
        if log:
            log_axis(axes, "y")
        _images_axis(axes, logarithmic=False)
        return _chart(axes, f"fig-{key}", f"{title} by images seen in training")


def losses(facts: Facts) -> list[Chart]:
    """Loss and bits per dimension of fixed training and held-out images by images seen, with error bars."""
    lines = [line for line in facts.held_out if line["step"] > 0]
    if len(lines) < 2:
        return []
    loss = {"training images": mean_losses(lines, "train"), "held-out images": mean_losses(lines, "held_out")}
    bits = {
        name: [(it["images"], it[key], it[f"{key}_error"]) for it in lines if it.get(key) is not None]
        for key, name in (("bits_train", "training images"), ("bits", "held-out images"))
    }
    of_loss = by_images(loss, "loss with the sampling weights", "fig-loss-by-images")
    return of_loss + by_images(bits, "bits per dimension (bound)", "fig-bits")


def loss_by_time(facts: Facts) -> list[Chart]:
    """Loss by timestep at a few steps, of held-out images where there are any; the newest in another colour."""
    key = "held_out" if facts.held_out and facts.held_out[-1].get("held_out") else "train"
    lines = [line for line in facts.held_out if line["step"] > 0 and line.get(key)]
    if not lines:
        return []
    chosen = [lines[i] for i in evenly(len(lines), TIMES_SHOWN)]
    split = key.replace("_", "-").replace("train", "training")
    with _style():
        axes = _axes(f"loss of {split} images by timestep", "timestep t (small: details, large: layout)")
        for place, line in enumerate(chosen, 1):
            points = list(zip(line["times"], line[key], line[f"{key}_error"], strict=True))
            how = {"color": COLOURS[place == len(chosen)], "alpha": 0.3 + 0.7 * place / len(chosen)}
            bars(axes, points, f"after {count(line['images'], 'image')}", **how)
        log_axis(axes, "y")
        return [_chart(axes, "fig-loss-by-time", f"Loss of {split} images by timestep at several steps")]


def quality(facts: Facts) -> list[Chart]:
    """The main distance, and precision and recall, by images seen in training, with error bars and real images'."""
    if facts.last is None or len(facts.by_step) < 2:
        return []
    key, main = facts.last.main_key, facts.last.main()
    points = by_value((item.images, item.figures[key]) for item in facts.by_step)
    label = f"{main.name} of samples by images seen in training, with error bars"
    distance = by_images({main.name: points}, f"{main.name} ({main.better} is better)", "fig-quality", label, main)
    return distance + _precision_and_recall(facts.by_step)


def _precision_and_recall(by_step: Sequence[Evaluation]) -> list[Chart]:
    result = {
        name: [(item.images, figure) for item in by_step if (figure := same_features(item, name)) is not None]
        for name in ("precision", "recall")
    }
    if not all(result.values()):
        return []
    with _style():
        axes = _axes("precision and recall (higher is better)")
        for (name, points), colour in zip(result.items(), COLOURS, strict=False):
            bars(axes, by_value(points), name)
            if (floor := points[-1][1].floor) is not None:
                axes.axhline(floor, linestyle=":", linewidth=1, color=colour, label=f"{name} of real images")
        axes.set_ylim(-0.03, 1.03)
        _images_axis(axes)
        return [_chart(axes, "fig-precision", "Precision and recall by images seen in training, with error bars")]


def calls(facts: Facts) -> list[Chart]:
    """The main distance by network calls, one line per sampler; of equally many calls none hides another."""
    if len(facts.by_chain) < 2:
        return []
    key, main = facts.by_chain[-1].main_key, facts.by_chain[-1].main()
    at: dict[int, list[Evaluation]] = {}
    for item in facts.by_chain:
        at.setdefault(item.protocol["calls"], []).append(item)
    ticks = sorted(at)
    with _style():
        axes = _axes(f"{main.name} ({main.better} is better)", "network calls per image")
        for name in dict.fromkeys(title(item.protocol) for item in facts.by_chain):
            points = [
                (calls, place - (len(at[calls]) - 1) / 2, item.figures[key])
                for calls in ticks
                for place, item in enumerate(at[calls])
                if title(item.protocol) == name
            ]
            width = max(ticks[-1] / ticks[0], 2)
            bars(axes, by_value((calls * width ** (BESIDE * aside), figure) for calls, aside, figure in points), name)
        _bounds(axes, main, ceiling=False)
        log_axis(axes, "y")
        log_axis(axes, "x")
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.xaxis.minorticks_off()
        return [_chart(axes, "fig-calls", f"{main.name} by network calls, one line per sampler")]


def forward(facts: Facts) -> list[Chart]:
    """The share of signal and the log signal-to-noise ratio of the run's own schedule."""
    schedule = build.schedule(facts.config.diffusion)
    times = range(1, schedule.T + 1)
    seen = [t for t in times if schedule.abar(t) > 0]
    with _style():
        signal = _axes("share of the variance that is signal", "t")
        signal.plot([0, *times], [schedule.abar(t) for t in (0, *times)], marker="")
        ratio = _axes("log SNR (0: as much noise as signal)", "t")
        ratio.plot(seen, [schedule.log_snr(t) for t in seen], marker="")
        ratio.axhline(0, linewidth=0.8, linestyle=":", color=INK)
        return [
            _chart(signal, "fig-signal", "Share of signal by timestep"),
            _chart(ratio, "fig-snr", "Log signal-to-noise ratio by timestep"),
        ]


def by_images(
    series: Mapping[str, Sequence[Point]],
    title: str,
    id_: str,
    label: str = "",
    bounded: Figure | None = None,
) -> list[Chart]:
    """A chart of named series by images seen in training, both axes logarithmic; [] without points."""
    if not any(series.values()):
        return []
    with _style():
        axes = _axes(title)
        for name, points in series.items():
            bars(axes, points, _plain(name))
        if bounded is not None:
            _bounds(axes, bounded)
        log_axis(axes, "y")
        _images_axis(axes)
        return [_chart(axes, id_, label or f"{title} by images seen in training, with error bars")]


def bars(axes: Any, points: Sequence[Point], name: str, **how: Any) -> None:
    """A line of points, if there are any."""
    if points:
        x, y, errors = zip(*points, strict=True)
        axes.errorbar(x, y, errors, capsize=2, label=name, **how)


def by_value(points: Iterable[tuple[float, Figure]]) -> list[Point]:
    """Figures at each x as points; an unknown error has no bar."""
    return [(x, figure.value, figure.error or 0.0) for x, figure in points]


def mean_losses(lines: Iterable[Mapping[str, Any]], split: str) -> list[Point]:
    """The mean loss over the images of a split by images seen in training, from the lines of held_out.jsonl."""
    result = [(line["images"], line[f"of_{split}"]) for line in lines if line["step"] and line.get(f"of_{split}")]
    return [(seen, *mean_of(item)[:2]) for seen, item in result]


def _bounds(axes: Any, figure: Figure, ceiling: bool = True) -> None:
    if figure.floor is not None:
        axes.axhline(figure.floor, linestyle=":", linewidth=1, color=INK, label="real images (floor)")
    if ceiling and figure.ceiling is not None:
        axes.axhline(figure.ceiling, linestyle="--", linewidth=1, color=INK, label="noise (ceiling)")


def _axes(title: str, xlabel: str = "") -> Any:
    """The axes of a new chart; draw on them inside ``with _style():``, then pass them to `_chart`."""
    from matplotlib.figure import Figure  # takes half a second to import

    axes = Figure(figsize=(WIDTH, HEIGHT), layout="constrained").subplots()
    axes.set_title(title)
    axes.set_xlabel(xlabel)
    return axes


def _style() -> Any:
    import matplotlib as mpl
    from cycler import cycler

    series: Any = cycler(color=COLOURS) + cycler(marker=MARKERS) + cycler(linestyle=DASHES)
    settings = mpl.rc_params_from_file(STYLE, use_default_template=False)
    return mpl.rc_context({**settings, "axes.prop_cycle": series})


def _chart(axes: Any, name: str, label: str) -> Chart:
    """The chart of what was drawn on some axes. Where it has several series, a legend below them hides none."""
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.figure.legend(loc="outside lower center", ncols=2)
    return Chart(name, label, axes.figure)


def _images_axis(axes: Any, logarithmic: bool = True) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.set_xlabel("images seen in training")
    if logarithmic:
        log_axis(axes, "x")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _plain(text: str) -> str:
    """A text from outside as a label: its dollars are no formula, and no underscore at its head hides it."""
    return printable(f"run {text}" if text.startswith("_") else text).replace("$", r"\$")


def _finite(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    kept = [line for line in lines if line.get(key) is not None]
    return [line["images"] for line in kept], [line[key] for line in kept]
