"""The chart of held-out losses where there is little to draw: one time, or one snapshot."""

import pytest

from unstir.pictures.charts import held_out_figure

LINE = {"images": 100, "times": [10, 50, 90], "train": [1.0, 0.5, 0.1], "held_out": [1.0, 0.6, 0.2]}
LINE |= {"of_train": [0.5, 0.6], "of_held_out": [0.6, 0.7]}


def test_curves_of_one_point_have_a_marker():
    one = {"images": 100, "times": [50], "train": [0.5], "held_out": [0.6]}
    one |= {"of_train": [0.5, 0.6], "of_held_out": [0.6, 0.7]}
    figure = held_out_figure([one])
    for axes in figure.axes:
        for line in axes.lines:
            assert len(line.get_xdata()) > 1 or line.get_marker() not in ("", "None"), line.get_label()


def test_a_snapshot_alone_is_drawn_in_the_colour_of_the_newest():
    first, newest = (held_out_figure(lines).axes for lines in ([LINE], [LINE, {**LINE, "images": 1000}]))
    assert first[1].lines[0].get_color() == pytest.approx(newest[1].lines[1].get_color())
