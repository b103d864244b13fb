"""The forward and the reverse process as one picture: schedules, coefficients, and a real image dissolving.

Usage: python benchmarks/theory_picture.py docs/images/theory.png
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from unstir import randomness
from unstir.data.embedded import load_embedded
from unstir.pictures.charts import log_axis, save_figure
from unstir.pixels import from_uint8, to_uint8
from unstir.theory.process import Process
from unstir.theory.schedule import NoiseSchedule, cosine, linear, sigmoid, zero_terminal_snr

_SHOWN = (0, 10, 50, 100, 200, 300, 400, 500, 600, 800, 1000)


def theory_figure() -> Figure:
    """The picture: abar, SNR, the posterior's coefficients and variances by t, and strips of x_t."""
    schedules = {"linear": linear(), "cosine": cosine(), "sigmoid": sigmoid()}
    schedules["linear, zero terminal SNR"] = zero_terminal_snr(schedules["linear"])
    x_0 = from_uint8(torch.from_numpy(load_embedded("digits")[0][0].copy()))
    x_0 = x_0.reshape(1, -1, *x_0.shape[-2:])
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1])
    curves, strips = parts
    _draw_curves(curves.subplots(1, 4), schedules)
    rows = strips.subplots(4, len(_SHOWN))
    for row, (name, schedule) in zip(rows, schedules.items(), strict=True):
        _draw_strip(row, name, schedule, x_0)
    for axes, t in zip(rows[0], _SHOWN, strict=True):
        axes.set_title(f"t = {t}", fontsize=8)
    return figure


def _draw_curves(panels: Iterable[Any], schedules: dict[str, NoiseSchedule]) -> None:
    signal, ratio, coefficients, variances = panels
    for name, schedule in schedules.items():
        T = schedule.T
        signal.plot(range(T + 1), [schedule.abar(t) for t in range(T + 1)], linewidth=1, label=name)
        visible = [t for t in range(1, T + 1) if schedule.abar(t) > 0]
        ratio.plot(visible, [schedule.log_snr(t) for t in visible], linewidth=1, label=name)
    process, times = Process(schedules["linear"]), range(2, schedules["linear"].T + 1)
    steps = [process.posterior_coefficients(t, t - 1) for t in times]
    coefficients.plot(times, [at_x_t for at_x_t, _, _ in steps], linewidth=1, label="of x_t")
    coefficients.plot(times, [at_x_0 for _, at_x_0, _ in steps], linewidth=1, label="of x_0")
    variances.plot(times, [process.schedule.beta(t) for t in times], linewidth=1, label="beta (large)")
    variances.plot(times, [var for _, _, var in steps], linewidth=1, label="beta~ (small, the posterior's)")
    for axes in (coefficients, variances):
        log_axis(axes, "x")
        log_axis(axes, "y")
    titles = ["abar_t: share of the variance that is signal", "log SNR_t"]
    titles += ["mean of q(x_t-1 | x_t, x_0), linear", "variance of a step, linear"]
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("t")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)


def _draw_strip(row: Sequence[Any], name: str, schedule: NoiseSchedule, x_0: Tensor) -> None:
    eps = randomness.normal(randomness.Key(0, "strip", 0, torch.zeros(1, dtype=torch.int64)), tuple(x_0.shape[1:]))
    for axes, t in zip(row, _SHOWN, strict=True):
        x_t = to_uint8(Process(schedule).diffuse(x_0, t, eps))[0]
        axes.imshow(x_t.permute(1, 2, 0).expand(-1, -1, 3).numpy(), interpolation="nearest")
        axes.set(xticks=[], yticks=[])
    row[0].set_ylabel(name.replace(", ", ",\n"), fontsize=8, rotation=0, ha="right", va="center")


if __name__ == "__main__":
    save_figure(theory_figure(), Path(sys.argv[1]))
