"""Charts whose lines all eyes can tell apart, and no panel without anything in it."""

import itertools
import re

import pytest

from unstir.pictures.charts import held_out_figure, likelihood_curves, save_figure, training_curves
from unstir.runs.files import words_of


@pytest.mark.parametrize("times", [tuple(range(2, 21)), (2, 5, 11, 17)])
def test_both_panels_of_a_likelihood_have_every_curve(times):
    terms = [1 / t for t in times]
    summed = list(itertools.accumulate(terms, initial=0.5))[1:]
    curves = dict.fromkeys(("train", "held_out"), (times, terms, 0.5, summed))
    figure = likelihood_curves(curves)
    for axes in figure.axes:
        assert len(axes.lines) == 2
        for line in axes.lines:
            assert list(line.get_xdata()) == [1, *times] and len(line.get_ydata()) == len(times) + 1
    assert [line.get_ydata()[-1] for line in figure.axes[1].lines] == [summed[-1]] * 2
    assert figure.axes[0].lines[0].get_color() != figure.axes[0].lines[1].get_color()


def test_every_axis_of_losses_has_two_plain_labels_or_more(tmp_path):
    metrics = [{"images": 100 * i, "loss": 0.9 / i, "grad_norm": 1.1 / i, "lr": 2e-4} for i in range(1, 5)]
    drawn = [training_curves(metrics)]
    line = {"times": [10, 50, 90], "train": [1.0, 0.5, 0.3], "held_out": [1.0, 0.6, 0.4]}
    line |= {f"of_{split}": [0.95, 1.25] for split in ("train", "held_out")}
    line |= {"bits": 7.0, "bits_error": 0.5, "bits_train": 6.0, "bits_train_error": 0.5}
    drawn += [held_out_figure([{**line, "images": images} for images in (0, 256, 90_000)])]
    times, curve = [2, 3, 4], [0.9, 0.5, 0.3]
    drawn += [likelihood_curves({"train": (times, curve, 0.5, curve)})]
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for figure, (kind, start) in zip(drawn, starts.items(), strict=True):
        save_figure(figure, tmp_path / f"chart.{kind}", kind, run="r")
        assert (tmp_path / f"chart.{kind}").read_bytes().startswith(start)
    assert words_of(tmp_path / "chart.png")["run"] == "r"
    panels = [axes for figure in drawn for axes in figure.axes]
    assert len(panels) == 8
    for axis, ends in [
        pair for axes in panels for pair in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))
    ]:
        found = zip(axis.get_majorticklabels(), axis.get_majorticklocs(), strict=True)
        labels = [text.get_text() for text, place in found if ends[0] <= place <= ends[1]]
        assert len(labels) >= 2 and all(re.fullmatch(r"[−-]?[\d.]+[kM]?", label) for label in labels), labels


LINE = {"images": 100, "times": [10, 50, 90], "train": [1.0, 0.5, 0.1], "held_out": [1.0, 0.6, 0.2]}
LINE |= {"of_train": [0.5, 0.6], "of_held_out": [0.6, 0.7]}


def test_curves_of_one_point_have_a_marker():
    one = {**LINE, "times": [50], "train": [0.5], "held_out": [0.6]}
    for axes in held_out_figure([one]).axes:
        for line in axes.lines:
            assert len(line.get_xdata()) > 1 or line.get_marker() not in ("", "None"), line.get_label()


def test_a_snapshot_alone_is_drawn_in_the_colour_of_the_newest():
    first, newest = (held_out_figure(lines).axes for lines in ([LINE], [LINE, {**LINE, "images": 1000}]))
    colour = lambda axes: axes.containers[-1].lines[0].get_color()
    assert colour(first[1]) == colour(newest[1]) != newest[1].containers[0].lines[0].get_color()
