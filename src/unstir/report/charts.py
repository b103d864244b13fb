"""The charts of a report, each an inline SVG made from `Facts`; None where there is nothing to draw."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from unstir.metrics.evaluation import Evaluation, Figure
from unstir.report import svg
from unstir.report.facts import Facts
from unstir.runs import build

CURVES = (
    ("loss", "training loss", True),
    ("grad_norm", "gradient norm before clipping", True),
    ("lr", "learning rate", False),
    ("ema_decay", "decay of the averaged weights", False),
)
LOOKS_SHOWN = 5


def curves(facts: Facts) -> str | None:
    """Loss, gradient norm, learning rate and decay of the average by training images seen."""
    panels = [panel for panel in CURVES if len(svg.finite(facts.metrics, panel[0])[0]) > 1]
    if not panels:
        return None
    rows = math.ceil(len(panels) / 2)
    with svg.style():
        drawn = svg.figure(9, 2.4 * rows)
        places = list(drawn.subplots(rows, 2).flat)
        for axes, (key, title, log) in zip(places, panels, strict=False):
            axes.plot(*svg.finite(facts.metrics, key))
            axes.set_title(title)
            if log:
                axes.set_yscale("log")
            svg.images_axis(axes)
        for axes in places[len(panels) :]:
            axes.remove()
        return svg.inline(drawn, "fig-curves", "Loss, gradient norm, learning rate and EMA decay by images seen")


def losses(facts: Facts) -> str | None:
    """Loss on fixed training and held-out images at each look, with error bars."""
    looks = [look for look in facts.looks if look["step"] > 0]
    if len(looks) < 2:
        return None
    with svg.style():
        drawn = svg.figure(9, 3)
        loss, bits = drawn.subplots(1, 2)
        for key, name in (("train", "training images"), ("held_out", "held-out images")):
            of = [(look["images"], *mean_of(look[f"of_{key}"])) for look in looks if look.get(f"of_{key}")]
            bars(loss, of, name)
        for key, name in (("bits_train", "training images"), ("bits", "held-out images")):
            bars(bits, [(k["images"], k[key], k[f"{key}_error"]) for k in looks if k.get(key) is not None], name)
        loss.set_title("loss with the sampling weights")
        bits.set_title("bound on the likelihood, bits a value")
        for axes in (loss, bits):
            axes.set_yscale("log")
            svg.images_axis(axes, log=True)
            svg.legend(axes)
        return svg.inline(drawn, "fig-losses", "Loss and bits per dimension of training and held-out images, by look")


def loss_by_time(facts: Facts) -> str | None:
    """Loss by timestep at a few looks, of held-out images where there are any; the newest in another colour."""
    key = "held_out" if facts.looks and facts.looks[-1].get("held_out") else "train"
    looks = [look for look in facts.looks if look["step"] > 0 and look.get(key)]
    if not looks:
        return None
    last = len(looks) - 1
    chosen = sorted({round(i * last / (LOOKS_SHOWN - 1)) for i in range(LOOKS_SHOWN)})
    with svg.style():
        drawn = svg.figure(9, 3)
        axes = drawn.subplots()
        for place, look in enumerate(looks[i] for i in chosen):
            newest = place == len(chosen) - 1
            points = list(zip(look["times"], look[key], look[f"{key}_error"], strict=True))
            how = {"color": svg.COLOURS[1 if newest else 0], "alpha": 0.3 + 0.7 * (place + 1) / len(chosen)}
            bars(axes, points, f"after {images(look['images'])}", **how)
        axes.set(yscale="log", xlabel="timestep t (small: details, large: layout)", ylabel="loss")
        svg.legend(axes)
        split = "held-out" if key == "held_out" else "training"
        return svg.inline(drawn, "fig-loss-by-time", f"Loss of {split} images by timestep at several moments")


def quality(facts: Facts) -> str | None:
    """The main distance by training images seen, with error bars, floor and ceiling."""
    if len(facts.by_step) < 2:
        return None
    key = facts.by_step[-1].main_key
    with svg.style():
        drawn = svg.figure(9, 3)
        axes = drawn.subplots()
        name = facts.by_step[-1].main().name
        bars(axes, by_value((each.images, each.figures[key]) for each in facts.by_step), name)
        bounds(axes, facts.by_step[-1].main())
        axes.set(yscale="log", ylabel=name)
        svg.images_axis(axes, log=True)
        svg.legend(axes)
        return svg.inline(drawn, "fig-quality", f"{name} of samples by training images seen, with error bars")


def calls(facts: Facts) -> str | None:
    """The main distance by network calls, a line a sampler."""
    if len(facts.by_chain) < 2:
        return None
    key, main = facts.by_chain[-1].main_key, facts.by_chain[-1].main()
    with svg.style():
        drawn = svg.figure(9, 3.2)
        axes = drawn.subplots()
        for name in dict.fromkeys(map(chain_name, facts.by_chain)):
            own = [each for each in facts.by_chain if chain_name(each) == name]
            bars(axes, sorted(by_value((each.protocol["calls"], each.figures[key]) for each in own)), name)
        bounds(axes, main, ceiling=False)
        axes.set(xscale="log", yscale="log", xlabel="network calls an image", ylabel=main.name)
        ticks = sorted({each.protocol["calls"] for each in facts.by_chain})
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.xaxis.minorticks_off()
        svg.legend(axes, columns=2)
        return svg.inline(drawn, "fig-calls", f"{main.name} by network calls, a line a sampler")


def forward(facts: Facts) -> str:
    """The share of signal and the log signal-to-noise ratio of the run's own schedule."""
    schedule = build.schedule(facts.config.diffusion)
    times = range(1, schedule.T + 1)
    seen = [t for t in times if schedule.abar(t) > 0]
    with svg.style():
        drawn = svg.figure(9, 2.4)
        signal, ratio = drawn.subplots(1, 2)
        signal.plot([0, *times], [schedule.abar(t) for t in (0, *times)])
        ratio.plot(seen, [schedule.log_snr(t) for t in seen])
        ratio.axhline(0, linewidth=0.8, linestyle=":", color=svg.INK)
        signal.set(title="share of the variance that is signal, abar_t", xlabel="t")
        ratio.set(title="log SNR_t (0: as much noise as signal)", xlabel="t")
        return svg.inline(drawn, "fig-forward", "Share of signal and log signal-to-noise ratio by timestep")


def chain_name(evaluation: Evaluation) -> str:
    """The sampler of an evaluation with what is unusual about it: "ddim, eta 1, log_snr"."""
    how = evaluation.protocol
    unusual = [f"eta {how['eta']:g}"] if how["eta"] else []
    unusual += [str(how["variance"])] if how["variance"] != "auto" else []
    unusual += [str(how["spacing"])] if how["spacing"] != "trailing" else []
    return ", ".join([str(how["sampler"]), *unusual])


def bars(axes: Any, points: Sequence[tuple[float, float, float]], name: str, **how: Any) -> None:
    """A line of (x, value, standard error), if there are any."""
    if points:
        x, y, errors = zip(*points, strict=True)
        axes.errorbar(x, y, errors, marker="o", markersize=3, capsize=2, label=name, **how)


def by_value(points: Iterable[tuple[float, Figure]]) -> list[tuple[float, float, float]]:
    """Figures as (x, value, standard error); an unknown error has no bar."""
    return [(x, figure.value, figure.error or 0.0) for x, figure in points]


def bounds(axes: Any, figure: Figure, ceiling: bool = True) -> None:
    """The floor and the ceiling of a figure as lines."""
    if figure.floor is not None:
        axes.axhline(figure.floor, linestyle=":", linewidth=1, color=svg.INK, label="real images (floor)")
    if ceiling and figure.ceiling is not None:
        axes.axhline(figure.ceiling, linestyle="--", linewidth=1, color=svg.INK, label="noise (ceiling)")


def images(count: int) -> str:
    """A number of images: "1.5 M images"."""
    for unit, size in (("M", 1_000_000), ("k", 1000)):
        if count >= size:
            return f"{count / size:.3g} {unit} images"
    return f"{count} images"


def mean_of(values: Sequence[float]) -> tuple[float, float]:
    """The mean of values and its standard error."""
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1))
    return mean, spread / math.sqrt(len(values))
