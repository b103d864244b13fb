"""Pictures with the names of classes, and charts whose axes and curves can be read."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from unstir.generate.drawing import Job
from unstir.generate.folder import drawn_classes, save_images
from unstir.pictures.charts import held_out_figure, likelihood_curves, save_figure, training_curves
from unstir.pictures.grid import GAP, LINE, grid, named_grid
from unstir.runs.files import words_of


def images(num, channels=1):
    return torch.randint(0, 200, (num, channels, 8, 8), generator=torch.Generator().manual_seed(0)).byte()


def without_names(sheet, num, nrow, strips):
    """The sheet with the strips above the rows numbered ``strips`` cut out."""
    pixels, row = np.asarray(sheet), 48 + GAP
    tops = [LINE * (1 + i) + strip * row for i, strip in enumerate(sorted(strips))]
    keep = np.ones(len(pixels), dtype=bool)
    for top in tops:
        keep[top - LINE : top] = False
    return pixels[keep]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("num", "nrow", "classes", "strips"),
    [(20, 10, 10, {0}), (16, 8, 10, {0, 1}), (13, 5, 5, {0}), (7, 4, 3, {0, 1}), (3, 8, 3, {0}), (1, 1, 1, {0})],
)
def test_names_stand_where_they_change_and_move_no_pixel_of_an_image(channels, num, nrow, classes, strips):
    made = images(num, channels)
    sheet = named_grid(made, nrow, [f"c{i % classes}" for i in range(num)])
    plain = np.asarray(grid(made, nrow))
    assert sheet.height == len(plain) + LINE * len(strips) and sheet.width == plain.shape[1]
    assert np.array_equal(without_names(sheet, num, nrow, strips), plain)
    assert (np.asarray(sheet)[:LINE] < 128).any()  # something is written
    assert np.array_equal(np.asarray(named_grid(made, nrow, None)), plain)


def test_grids_of_a_run_with_classes_have_their_names(trained, tmp_path):
    changes = {"grids__num": 20, "grids__nrow": 10, "train__length": "2 steps"}
    run, _ = trained("classes", model__num_classes=10, **changes)
    plain, _ = trained("plain", **changes)
    names = sorted(path.name for path in run.samples.iterdir())
    assert names == sorted(path.name for path in plain.samples.iterdir())
    sizes = {}
    for each in (run, plain):
        from PIL import Image

        for name in names:
            with Image.open(each.samples / name) as picture:
                sizes[each.path.name, name] = picture.size
    assert all(sizes["plain", name] == sizes["plain", "noise.png"] == (502, 102) for name in names)
    assert all(sizes["classes", name] == (502, 102 if name == "noise.png" else 102 + LINE) for name in names)
    job = Job(num=20, chain=run.chain(), batch_size=20)
    assert len(drawn_classes(run.model(), job, 8)) == 8 and drawn_classes(plain.model(), job, 8) == []
    assert drawn_classes(run.model(), replace(job, label=3), 8) == ["3"]
    save_images(run.model(), job, tmp_path / "made")
    with Image.open(tmp_path / "made/grid.png") as picture, Image.open(run.samples / names[1]) as in_training:
        assert picture.tobytes() == in_training.tobytes()
    assert run.labels.captions(run.labels.of(torch.arange(3))) == ["0", "1", "2"]
    other = replace(run, data=replace(run.data, classes=("Wald", "日本", *run.data.classes[2:])))
    assert other.labels.captions(torch.arange(3)) == ["Wald", "1: 日本", "2"]


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


LOGGED = {"images": 100, "times": [10, 50, 90], "train": [1.0, 0.5, 0.1], "held_out": [1.0, 0.6, 0.2]}
LOGGED |= {"of_train": [0.5, 0.6], "of_held_out": [0.6, 0.7]}


def test_curves_of_one_point_have_a_marker():
    one = {**LOGGED, "times": [50], "train": [0.5], "held_out": [0.6]}
    for axes in held_out_figure([one]).axes:
        for line in axes.lines:
            assert len(line.get_xdata()) > 1 or line.get_marker() not in ("", "None"), line.get_label()


def test_a_snapshot_alone_is_drawn_in_the_colour_of_the_newest():
    first, newest = (held_out_figure(lines).axes for lines in ([LOGGED], [LOGGED, {**LOGGED, "images": 1000}]))
    colour = lambda axes: axes.containers[-1].lines[0].get_color()
    assert colour(first[1]) == colour(newest[1]) != newest[1].containers[0].lines[0].get_color()
