"""Charts that everyone can read, and figures as CSV, Markdown and LaTeX, which read back are what was measured."""

import csv
import io
import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

import unstir
from refusals import refusing
from runs import chains, evaluation, facts, good, metrics
from unstir.chain import DEFAULTS
from unstir.insight import charts, tables
from unstir.metrics.figures import in_rows
from unstir.metrics.likelihood import Protocol, save_likelihood
from unstir.pictures.charts import DASHES, MARKERS, draw_bits, log_axis

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


@pytest.mark.parametrize(("bits", "scale"), [([3.0, 2.0], "log"), ([1.4, -3.2], "linear"), ([None, 2.0], "log")])
def test_bits_of_densities_may_be_negative_and_are_drawn(bits, scale):
    axes = Figure().subplots()
    draw_bits(axes, [{"images": 10**at, "bits": value, "bits_error": 0.1} for at, value in enumerate(bits, 1)])
    assert axes.get_yscale() == scale


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


NASTY = "50% of_A & B$#{x}~^\\ | <i>*`[2]`*<i>\nnext\x1b[31m \udce9"
"""A run's name with what is special to each format, a line end, a terminal's escape and no UTF-8."""


def known(name="first"):
    by_step = good().by_step
    return facts(name=name, by_step=by_step, by_chain=chains())


def number_of_figures(of):
    return sum(len(each.figures) for each in {each.name(): each for each in (*of.by_step, *of.by_chain)}.values())


def cells_of_markdown(line):
    inner = re.split(r"(?<!\\)\|", line)[1:-1]
    return [re.sub(r"\\(.)", r"\1", cell).strip() for cell in inner]


LATEX = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"$\pm$": "±",
    "{[}": "[",
    "{*}": "*",
    **{f"\\{c}": c for c in "&%$#_{}"},
}


def text_of_latex(text):
    """What LaTeX would set; raises AssertionError for a special character that is not escaped."""
    found, at = [], 0
    while at < len(text):
        command = next((c for c in sorted(LATEX, key=len, reverse=True) if text.startswith(c, at)), None)
        assert command or text[at] not in "\\&%$#_{}~^<>|[*", f"{text[at : at + 10]!r} is not escaped"
        found.append(LATEX[command] if command else text[at])
        at += len(command or text[at])
    return "".join(found).strip()


def cells_of_latex(line):
    inner = re.split(r"(?<!\\) & ", line.removesuffix(r" \\"))
    return [text_of_latex(cell) for cell in inner]


def test_a_csv_has_every_number_in_full_and_the_whole_protocol():
    of = known(NASTY)
    table = list(csv.DictReader(io.StringIO(tables.to_csv(tables.of_runs([of])))))
    assert len(table) == number_of_figures(of) > 20
    first, main = table[0], of.by_step[0].main()
    assert float(first["value"]) == main.value and float(first["standard_error"]) == main.error
    assert float(first["real_images"]) == main.floor and float(first["noise"]) == main.ceiling
    assert first["run"].startswith("50% of_A & B$#{x}~^\\ | <i>") and "\x1b" not in first["run"]
    protocol = {key: first[f"protocol.{key}"] for key in of.by_step[0].protocol}
    assert protocol == {key: str(value) for key, value in of.by_step[0].protocol.items()}


def test_markdown_is_one_table_and_the_protocols_and_nothing_in_it_is_markup():
    of = known(NASTY)
    head, rule, *rest = tables.to_markdown(tables.of_runs([of])).splitlines()
    assert cells_of_markdown(head) == list(tables.HEADS) and set(rule) == set("| -:")
    body = [cells_of_markdown(line) for line in rest if line.startswith("|")]
    assert len(body) == number_of_figures(of) and {len(row) for row in body} == {len(tables.HEADS)}
    assert body[0][0].startswith("50% of_A & B$#{x}~^\\ | <i>*`[2]`*<i>\\nnext")
    assert re.fullmatch(r"[\d.,]+ ± [\d.,]+", body[0][6])
    assert not re.search(r"(?<!\\)[<*`_\[]", "".join(rest))
    assert sum(1 for line in rest if re.match(r"Protocol \d+: num", line)) == 1


def test_latex_is_one_tabular_in_which_every_special_character_is_escaped():
    of = known(NASTY)
    text = tables.to_latex(tables.of_runs([of]))
    table, below = text.split("\\end{tabular}\n")
    comment, begin, *lines = table.splitlines()
    assert comment.startswith("% ")
    assert re.fullmatch(r"\\begin\{tabular\}\{[lr]+\}", begin)
    columns = len(begin.removeprefix("\\begin{tabular}{").removesuffix("}"))
    rows = [cells_of_latex(line) for line in lines if line != "\\hline"]
    assert all(line.endswith(" \\\\") for line in lines if line != "\\hline")
    assert rows[0] == list(tables.HEADS) and {len(row) for row in rows} == {columns}
    assert len(rows) - 1 == number_of_figures(of)
    assert rows[1][0].startswith("50% of_A & B$#{x}~^\\ | <i>*`[2]`*<i>\\nnext")
    assert text_of_latex(below.strip().removeprefix("\\par ")).startswith("Protocol 1: num 300, ")


def test_a_floor_of_another_number_of_images_says_of_how_many():
    made = evaluation()
    fewer = {key: replace(figure, num_floor=150) for key, figure in made.figures.items()}
    assert " (n = 150)" in tables.to_markdown(tables.of_runs([facts(by_step=(replace(made, figures=fewer),))]))
    assert in_rows(fewer.values(), 300)[0][2].endswith(" (n = 150)")
    assert "(n =" not in tables.to_markdown(tables.of_runs([facts(by_step=(made,))]))


def test_protocols_that_differ_have_numbers_of_their_own():
    few = facts(name="few", by_step=(evaluation(num=100),))
    table = tables.of_runs([known(), few])
    numbers = {(row[0], row[-1]) for row in table.cells}
    assert numbers == {("first", "1"), ("few", "2")} and len(table.notes) == 2
    assert table.notes[1].startswith("Protocol 2: num 100, seeds 3")


def test_without_figures_the_files_are_empty_tables():
    table = tables.of_runs([facts()])
    texts = {suffix: write(table) for suffix, write in tables.WRITERS.items()}
    assert not table.cells and all(tables.is_ours(suffix, text.encode()) for suffix, text in texts.items())


def test_a_folder_gets_all_three_and_a_file_of_no_kind_is_refused(tmp_path):
    names = [path.name for path in tables.export(tmp_path / "out", [known()])]
    assert names == ["figures.csv", "figures.md", "figures.tex"]
    assert tables.export(tmp_path / "own.tex", [known()]) == [tmp_path / "own.tex"]
    (tmp_path / "plain").touch()
    with refusing("exported", tmp_path / "plain"):
        tables.targets(tmp_path / "plain")
