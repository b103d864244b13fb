"""The charts of a report, each an inline SVG made from `Facts`; an empty list where there is nothing to draw."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unstir.chain import title
from unstir.insight import svg
from unstir.insight.facts import Facts, same_features
from unstir.insight.wording import count
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.figures import Figure
from unstir.pictures.animation import evenly
from unstir.pictures.charts import log_axis
from unstir.runs import build
from unstir.significance import mean_of

Point = tuple[float, float, float]  # x, a value, and its standard error

CURVES = (
    ("loss", "training loss", True),
    ("grad_norm", "gradient norm before clipping", True),
    ("lr", "learning rate", False),
    ("ema_decay", "decay of the averaged weights", False),
)
TIMES_SHOWN = 5  # steps of training that are shown by timestep
MARKED = 0.15  # a curve of many points has a marker at every such share of its length
BESIDE = 0.02  # samplers of equally many calls stand side by side, so far apart in shares of the width


def curves(facts: Facts) -> list[str]:
    """Loss, gradient norm, learning rate and decay of the average by images seen in training."""
    panels = [panel for panel in CURVES if len(svg.finite(facts.lines, panel[0])[0]) > 1]
    return [curve([(facts.name, facts.lines)], *panel) for panel in panels]


def curve(lines: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], key: str, title: str, log: bool) -> str:
    """A column of metrics.jsonl by images seen in training, a line a (name of a run, its lines)."""
    with svg.style():
        axes = svg.axes(title)
        for place, (name, of) in enumerate(lines):
            x, y = svg.finite(of, key)
            every = (MARKED * place / len(lines), MARKED) if len(x) > 1 else None  # shares of no length mark nothing
            axes.plot(x, y, label=svg.plain(name), markevery=every)
        if log:
            log_axis(axes, "y")
        svg.images_axis(axes, logarithmic=False)
        return svg.inline(axes, f"fig-{key}", f"{title} by images seen in training")


def losses(facts: Facts) -> list[str]:
    """Loss and bits per dimension of fixed training and held-out images by images seen, with error bars."""
    lines = [line for line in facts.held_out if line["step"] > 0]
    if len(lines) < 2:
        return []
    loss, bits = dict[str, list[Point]](), dict[str, list[Point]]()
    for split, key, name in (("train", "bits_train", "training images"), ("held_out", "bits", "held-out images")):
        loss[name] = mean_losses(lines, split)
        known = [line for line in lines if line.get(key) is not None]
        bits[name] = [(line["images"], line[key], line[f"{key}_error"]) for line in known]
    drawn = by_images(loss, "loss with the sampling weights", "fig-losses")
    return drawn + by_images(bits, "bits per dimension (bound)", "fig-bits")


def loss_by_time(facts: Facts) -> list[str]:
    """Loss by timestep at a few steps, of held-out images where there are any; the newest in another colour."""
    key = "held_out" if facts.held_out and facts.held_out[-1].get("held_out") else "train"
    lines = [line for line in facts.held_out if line["step"] > 0 and line.get(key)]
    if not lines:
        return []
    chosen = [lines[i] for i in evenly(len(lines), TIMES_SHOWN)]
    split = key.replace("_", "-").replace("train", "training")
    with svg.style():
        axes = svg.axes(f"loss of {split} images by timestep", "timestep t (small: details, large: layout)")
        for place, line in enumerate(chosen, 1):
            points = list(zip(line["times"], line[key], line[f"{key}_error"], strict=True))
            how = {"color": svg.COLOURS[place == len(chosen)], "alpha": 0.3 + 0.7 * place / len(chosen)}
            bars(axes, points, f"after {count(line['images'], 'image')}", **how)
        log_axis(axes, "y")
        return [svg.inline(axes, "fig-loss-by-time", f"Loss of {split} images by timestep at several steps")]


def quality(facts: Facts) -> list[str]:
    """The main distance, and precision and recall, by images seen in training, with error bars and real images'."""
    if facts.last is None or len(facts.by_step) < 2:
        return []
    key, main = facts.last.main_key, facts.last.main()
    points = by_value((item.images, item.figures[key]) for item in facts.by_step)
    label = f"{main.name} of samples by images seen in training, with error bars"
    drawn = by_images({main.name: points}, f"{main.name} ({main.better} is better)", "fig-quality", label, main)
    return drawn + _precision_and_recall(facts.by_step)


def _precision_and_recall(by_step: Sequence[Evaluation]) -> list[str]:
    """Precision and recall of each step evaluated, with error bars; dotted lines are those of real images."""
    result = {
        name: [(item.images, figure) for item in by_step if (figure := same_features(item, name)) is not None]
        for name in ("precision", "recall")
    }
    if not all(result.values()):
        return []
    with svg.style():
        axes = svg.axes("precision and recall (higher is better)")
        for (name, points), colour in zip(result.items(), svg.COLOURS, strict=False):
            bars(axes, by_value(points), name)
            if (floor := points[-1][1].floor) is not None:
                axes.axhline(floor, linestyle=":", linewidth=1, color=colour, label=f"{name} of real images")
        axes.set_ylim(-0.03, 1.03)
        svg.images_axis(axes)
        return [svg.inline(axes, "fig-precision", "Precision and recall by images seen in training, with error bars")]


def calls(facts: Facts) -> list[str]:
    """The main distance by network calls, one line per sampler; of equally many calls none hides another."""
    if len(facts.by_chain) < 2:
        return []
    key, main = facts.by_chain[-1].main_key, facts.by_chain[-1].main()
    at: dict[int, list[Evaluation]] = {}
    for item in facts.by_chain:
        at.setdefault(item.protocol["calls"], []).append(item)
    ticks = sorted(at)
    with svg.style():
        axes = svg.axes(f"{main.name} ({main.better} is better)", "network calls per image")
        for name in dict.fromkeys(title(item.protocol) for item in facts.by_chain):
            own = [
                (calls, place - (len(at[calls]) - 1) / 2, item.figures[key])
                for calls in ticks
                for place, item in enumerate(at[calls])
                if title(item.protocol) == name
            ]
            width = max(ticks[-1] / ticks[0], 2)
            bars(axes, by_value((calls * width ** (BESIDE * aside), figure) for calls, aside, figure in own), name)
        bounds(axes, main, ceiling=False)
        log_axis(axes, "y")
        log_axis(axes, "x")
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.xaxis.minorticks_off()
        return [svg.inline(axes, "fig-calls", f"{main.name} by network calls, one line per sampler")]


def forward(facts: Facts) -> list[str]:
    """The share of signal and the log signal-to-noise ratio of the run's own schedule."""
    schedule = build.schedule(facts.config.diffusion)
    times = range(1, schedule.T + 1)
    seen = [t for t in times if schedule.abar(t) > 0]
    with svg.style():
        signal = svg.axes("share of the variance that is signal", "t")
        signal.plot([0, *times], [schedule.abar(t) for t in (0, *times)], marker="")
        ratio = svg.axes("log SNR (0: as much noise as signal)", "t")
        ratio.plot(seen, [schedule.log_snr(t) for t in seen], marker="")
        ratio.axhline(0, linewidth=0.8, linestyle=":", color=svg.INK)
        return [
            svg.inline(signal, "fig-signal", "Share of signal by timestep"),
            svg.inline(ratio, "fig-snr", "Log signal-to-noise ratio by timestep"),
        ]


def by_images(
    series: Mapping[str, Sequence[Point]],
    title: str,
    id_: str,
    label: str = "",
    bounded: Figure | None = None,
) -> list[str]:
    """A chart of named series by images seen in training, both axes logarithmic; [] without points."""
    if not any(series.values()):
        return []
    with svg.style():
        axes = svg.axes(title)
        for name, points in series.items():
            bars(axes, points, svg.plain(name))
        if bounded is not None:
            bounds(axes, bounded)
        log_axis(axes, "y")
        svg.images_axis(axes)
        return [svg.inline(axes, id_, label or f"{title} by images seen in training, with error bars")]


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


def bounds(axes: Any, figure: Figure, ceiling: bool = True) -> None:
    """The floor and the ceiling of a figure as lines."""
    if figure.floor is not None:
        axes.axhline(figure.floor, linestyle=":", linewidth=1, color=svg.INK, label="real images (floor)")
    if ceiling and figure.ceiling is not None:
        axes.axhline(figure.ceiling, linestyle="--", linewidth=1, color=svg.INK, label="noise (ceiling)")
