"""Figures as CSV, Markdown and LaTeX: read back, they are what was measured; no name from outside is markup."""

import csv
import io
import re
from dataclasses import replace

import pytest

from refusals import mistake, refusing
from runs import chains, evaluation, facts, good
from unstir.insight import tables
from unstir.metrics.figures import in_rows

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


@pytest.mark.parametrize("name", ["a.xlsx", "figures.pdf", "a.txt"])
def test_a_file_of_another_kind_is_refused(name, tmp_path):
    assert "is no" in str(mistake(tables.targets, tmp_path / name))


def test_a_folder_gets_all_three_and_a_file_of_no_kind_is_refused(tmp_path):
    names = [path.name for path in tables.export(tmp_path / "out", [known()])]
    assert names == ["figures.csv", "figures.md", "figures.tex"]
    assert tables.export(tmp_path / "own.tex", [known()]) == [tmp_path / "own.tex"]
    (tmp_path / "plain").touch()
    with refusing("exported", tmp_path / "plain"):
        tables.targets(tmp_path / "plain")
