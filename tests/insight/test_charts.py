"""Charts that everyone can read: colours on any ground and for the colour-blind, a mark and a dash for each series."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

import unstir
from runs import chains, facts, good, metrics
from unstir.chain import DEFAULTS
from unstir.insight import charts
from unstir.metrics.likelihood import Protocol, save_likelihood
from unstir.pictures.charts import DASHES, MARKERS, log_axis

GROUNDS = {"light": "#fdfdfc", "dark": "#16181b"}

SEEN = {  # Machado, Oliveira & Fernandes 2009, table 1: severity 1, on linear RGB
    "everyone": np.eye(3),
    "protanopes": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopes": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def linear(colour):
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def luminance(colour):
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def lab(rgb):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.clip(to_xyz @ rgb / [0.9505, 1.0, 1.089], 1e-6, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("ground", GROUNDS)
def test_every_series_stands_out_from_the_ground(ground):
    for colour in charts.COLOURS:
        dark, light = sorted((luminance(colour), luminance(GROUNDS[ground])))
        assert (light + 0.05) / (dark + 0.05) >= 3, colour


@pytest.mark.parametrize("eyes", SEEN)
def test_the_first_four_colours_are_told_apart(eyes):
    seen = [lab(np.clip(SEEN[eyes] @ linear(colour), 0, 1)) for colour in charts.COLOURS[:4]]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) > 20


def test_series_differ_in_marker_and_dash_where_no_colour_is_seen():
    assert len(charts.COLOURS) == len(set(MARKERS)) == len(set(DASHES))


def test_two_series_of_a_chart_differ_in_more_than_colour():
    lines = [("first", metrics(seed=0)), ("second", metrics(seed=1))]
    drawn = charts.curve(lines, "loss", "training loss").__html__()
    styles = re.findall(r'<path d="M[^"]*L[^"]*" clip-path="[^"]*" style="([^"]*)"', drawn)
    series = [style for style in styles if any(colour in style for colour in charts.COLOURS)]
    assert len(series) == 2
    assert ["dasharray" in style for style in series] == [False, True]
    assert len(set(re.findall(r'<use href="#([^"]*)"[^>]*style="fill: #', drawn))) >= 2


def test_precision_and_recall_are_drawn_over_training_as_far_as_they_were_measured():
    known = good()
    found = charts.quality(known)
    assert len(found) == 2
    assert all(name in found[1].__html__() for name in ("precision", "recall"))
    assert charts.quality(facts(by_step=known.by_step[-1:])) == []


def test_samplers_of_equal_calls_hide_none_of_each_other():
    known = chains(known=(("ancestral", 50, 0.3), ("ddim", 10, 0.9), ("ddim", 50, 0.3), ("unipc", 50, 0.3)))
    whole = [replace(each, protocol={**DEFAULTS, "spacing": "trailing", **each.protocol}) for each in known]
    drawn = charts.calls(facts(by_chain=tuple(whole)))[0].__html__()
    at = {}
    for x, colour in re.findall(r'<use href="[^"]*" x="([\d.]+)" y="[\d.]+" style="fill: (#\w+)', drawn):
        at.setdefault(colour, set()).add(float(x))
    ancestral, ddim, unipc = (max(at[colour]) for colour in charts.COLOURS[:3])
    assert ancestral + 4 < ddim < unipc - 4


def test_two_evaluations_of_one_sampler_and_equally_many_calls_are_both_drawn():
    known = [replace(each, protocol={**DEFAULTS, **each.protocol}) for each in chains(known=(("ddim", 40, 0.9),) * 2)]
    merged = [replace(each, protocol={**each.protocol, "spacing": "log_snr"}) for each in known]  # of 50 and 60 steps
    drawn = charts.calls(facts(by_chain=tuple(merged)))[0].__html__()
    assert (
        len(set(re.findall(rf'<use href="[^"]*" x="([\d.]+)" y="[\d.]+" style="fill: {charts.COLOURS[0]}', drawn))) == 3
    )


def test_an_axis_of_decades_has_few_labels_and_one_of_a_part_of_a_decade_has_some():
    lows, highs = (1.2, 3, 1, 10, 0.9, 7, 0.12, 0.03, 2e-6, 3), (1.9, 40, 1e3, 1e9, 1.3, 15, 0.95, 1, 3e-6, 3)
    for low, high in zip(lows, highs, strict=True):
        axes = Figure().subplots()
        axes.plot([low, high], [low, high])
        for name, axis, ends in (("x", axes.xaxis, axes.get_xlim), ("y", axes.yaxis, axes.get_ylim)):
            log_axis(axes, name)
            inside = [tick for tick in axis.get_majorticklocs() if ends()[0] <= tick <= ends()[1]]
            assert 2 <= len(inside) <= 10, (low, high, inside)
            assert len({"e" in text.get_text() for text in axis.get_ticklabels()}) == 1


def test_a_run_with_one_line_of_its_log_is_seen_beside_others():
    lines = metrics(seed=0)
    both = charts.curve([("first", lines), ("second", lines[:1])], "loss", "training loss").__html__()
    alone = charts.curve([("first", lines)], "loss", "training loss").__html__()
    of_second = [
        len(re.findall(rf'<use href="#[^"]*"[^>]*style="fill: {charts.COLOURS[1]}', drawn)) for drawn in (both, alone)
    ]
    assert of_second[0] == 2 and of_second[1] == 0  # in the legend, and its only point


def test_the_charts_of_a_run_are_figures_by_name_and_files_of_any_kind(trained, command, tmp_path):
    run, store = trained(log__held_out_images=8)
    result = save_likelihood(run.model(), store, protocol=Protocol(num=2, calls=2))[0]["held_out"]
    drawn = unstir.charts(run.path)
    assert {"loss", "lr", "grad_norm", "signal", "snr", "likelihood"} <= drawn.keys()
    assert list(drawn["likelihood"].axes[0].lines[0].get_xdata()) == [1, *result.times]
    assert all(isinstance(figure, Figure) for figure in drawn.values())
    x, y = drawn["loss"].axes[0].lines[0].get_data()
    lines = [line for line in run.metrics() if line["loss"] is not None]
    assert list(x) == [line["images"] for line in lines] and list(y) == [line["loss"] for line in lines]
    asked = "--no-measure", "--charts", tmp_path / "charts", "--format", "pdf"
    assert command.done("report", run.path, *asked).count(".pdf") == len(drawn)
    assert {path.name for path in (tmp_path / "charts").iterdir()} == {f"{name}.pdf" for name in drawn}
