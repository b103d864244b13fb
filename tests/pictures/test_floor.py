"""The floor of the training loss in the charts: below the losses, named, and never so deep that they lie flat."""

import pytest

from unstir.pictures.charts import FLOOR_NAME, held_out_figure
from unstir.theory.loss_floor import LossFloor

LINE = {"images": 100, "times": [10, 50, 90], "train": [1.0, 0.5, 0.1], "held_out": [1.0, 0.6, 0.2]}
LINE |= {"of_train": [0.5, 0.6], "of_held_out": [0.6, 0.7]}


@pytest.mark.parametrize(("least", "bottoms"), [(0.04, (0.1, 0.032)), (1e-12, (0.1, 0.02)), (0.15, (0.12, 0.04))])
def test_the_floor_is_drawn_by_time_and_over_the_run_down_to_a_fifth_of_the_losses(least, bottoms):
    floor = LossFloor((10, 50, 90), (0.05, 0.2, least), (0.001,) * 3, (0.1, 0.1) if least < 0.1 else (0.15, 0.15))
    figure = held_out_figure([LINE, {**LINE, "images": 1000}], floor)
    figure.draw_without_rendering()
    course, by_time = figure.axes
    for axes, bottom, most in zip((course, by_time), bottoms, (0.65, 1.0), strict=True):
        assert FLOOR_NAME in [text.get_text() for text in axes.get_legend().get_texts()]
        assert axes.get_yscale() == "log" and axes.get_ylim()[0] == pytest.approx(bottom)
        assert most < axes.get_ylim()[1] < 1.5 * most
    drawn = [line for line in by_time.lines if line.get_linestyle() == ":"]
    assert [list(line.get_ydata()) for line in drawn] == [list(floor.values)]
    (level,) = (line for line in course.lines if line.get_linestyle() == ":")
    assert set(level.get_ydata()) == {floor.mean}
    assert all(FLOOR_NAME not in axes.get_legend_handles_labels()[1] for axes in held_out_figure([LINE]).axes)


def test_a_floor_far_below_the_losses_of_a_run_is_named_with_its_value():
    for mean, named in ((0.05, f"{FLOOR_NAME}: 0.05, below"), (0.2, FLOOR_NAME)):
        floor = LossFloor((10, 50, 90), (mean,) * 3, (0.001,) * 3, (mean, mean))
        course, by_time = held_out_figure([LINE, {**LINE, "images": 1000}], floor).axes
        assert named in course.get_legend_handles_labels()[1] and FLOOR_NAME in by_time.get_legend_handles_labels()[1]
        assert (mean < course.get_ylim()[0]) == (named != FLOOR_NAME)


def test_curves_of_one_point_have_a_marker():
    one = {"images": 100, "times": [50], "train": [0.5], "held_out": [0.6]}
    one |= {"of_train": [0.5, 0.6], "of_held_out": [0.6, 0.7]}
    figure = held_out_figure([one], LossFloor((50,), (0.1,), (0.001,), (0.1, 0.1)))
    for axes in figure.axes:
        for line in axes.lines:
            assert len(line.get_xdata()) > 1 or line.get_marker() not in ("", "None"), line.get_label()


def test_a_snapshot_alone_is_drawn_in_the_colour_of_the_newest_and_below_the_edge():
    floor = LossFloor((10, 50, 90), (0.05, 0.2, 0.04), (0.001,) * 3, (0.1, 0.1))
    first, newest = (held_out_figure(lines, floor).axes for lines in ([LINE], [LINE, {**LINE, "images": 1000}]))
    assert first[1].lines[0].get_color() == pytest.approx(newest[1].lines[1].get_color())
    highest = max(y for line in first[0].lines for y in line.get_ydata())
    assert first[0].get_ylim()[1] >= 1.09 * highest
