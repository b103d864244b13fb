"""Figures with their errors and protocols as files for spreadsheets and papers: CSV, Markdown, LaTeX."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unstir.errors import UserError, printable
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.evaluation import shown as shown_value
from unstir.metrics.figures import Figure
from unstir.report.facts import Facts
from unstir.report.tables import figures
from unstir.runs.files import make_folder, write_text

STEM = "figures"  # in a folder the files are figures.csv, figures.md and figures.tex
HEADS = ("run", "step", "sampler", "steps", "calls", "figure", "value", "real images", "noise", "better", "protocol")
"""The columns of a table to be read; "value" has its standard error."""

IN_COLUMNS = ("sampler", "steps", "calls")  # keys of a protocol; the rest of it stands below, by a number

_LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {"[": "{[}", "*": "{*}"}  # after the end of a line they would be its options
    | {character: f"\\{character}" for character in "&%$#_{}"}
)


@dataclass(frozen=True)
class Row:
    """A figure of an evaluation of a run, and the number of what of its protocol is not in columns, from 1."""

    run: str
    evaluation: Evaluation
    figure: Figure
    protocol: int


def targets(path: Path) -> list[Path]:
    """The files of an export to ``path``: itself, or one per format in a folder. Raises UserError for other names."""
    if path.suffix.lower() in WRITERS and not path.is_dir():
        return [path]
    kinds = ", ".join(WRITERS)
    if path.suffix and not path.is_dir():
        raise UserError(f"--export {path} is no {kinds} file; name one of these, or a folder for all three")
    if path.exists() and not path.is_dir():
        raise UserError(f"--export {path} is a file; name a folder, or a file that ends in {kinds}")
    return [path / f"{STEM}{suffix}" for suffix in WRITERS]


def export(path: Path, runs: Sequence[Facts]) -> list[Path]:
    """Write the figures of some runs to a file or folder and return the files. Raises UserError as `targets`."""
    files, rows = targets(path), rows_of(runs)
    for file in files:
        make_folder(file.absolute().parent)
        write_text(file, WRITERS[file.suffix.lower()](rows))
    return files


def rows_of(runs: Sequence[Facts]) -> list[Row]:
    """A row per figure of every evaluation that the pages of these runs show; protocols alike in the rest are one."""
    protocols, rows = list[dict[str, Any]](), []
    for facts in runs:
        for each in {each.name(): each for each in (*facts.by_step, *facts.by_chain)}.values():
            rest = {key: value for key, value in each.protocol.items() if key not in IN_COLUMNS}
            if rest not in protocols:
                protocols.append(rest)
            number = protocols.index(rest) + 1
            rows += [Row(printable(facts.name), each, figure, number) for figure in each.figures.values()]
    return rows


def to_csv(rows: Sequence[Row]) -> str:
    """A line per figure, every number in full, the whole protocol in columns of its own."""
    table, stream = [_record(row) for row in rows], io.StringIO()
    heads = list(dict.fromkeys(key for record in table for key in record)) or ["run"]
    writer = csv.DictWriter(stream, heads, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return stream.getvalue()


def to_markdown(rows: Sequence[Row]) -> str:
    """A table, and the protocols below it."""
    lines = [HEADS, ["---"] * len(HEADS), *(map(_markdown, cells) for cells in _cells(rows))]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return table + "".join(f"\n{number}. {_markdown(text)}\n" for number, text in _protocols(rows))


def to_latex(rows: Sequence[Row]) -> str:
    """A tabular without packages, and the protocols below it, to be read with \\input."""
    lines = [map(_latex, HEADS), *(map(_latex, cells) for cells in _cells(rows))]
    head, *body = (f"{' & '.join(line)} \\\\\n" for line in lines)
    table = f"\\begin{{tabular}}{{lrlrrlrrrlr}}\n\\hline\n{head}\\hline\n{''.join(body)}\\hline\n\\end{{tabular}}\n"
    return table + "".join(f"\n\\par Protocol {number}: {_latex(text)}\n" for number, text in _protocols(rows))


WRITERS: dict[str, Callable[[Sequence[Row]], str]] = {".csv": to_csv, ".md": to_markdown, ".tex": to_latex}


def _record(row: Row) -> dict[str, Any]:
    """A line of the CSV."""
    it, of = row.figure, row.evaluation
    infinite, infinite_error = it.infinite or (None, None)
    return {
        "run": row.run,
        "step": of.step,
        "images_seen": of.images,
        "figure": it.name,
        "value": it.value,
        "standard_error": it.error,
        "real_images": it.floor,
        "real_images_error": it.floor_error,
        "num_real_images": it.num_floor or None,
        "noise": it.ceiling,
        "infinite_n": infinite,
        "infinite_n_error": infinite_error,
        "better": it.better,
        "weights": of.weights,
        **{f"protocol.{key}": _in_a_cell(value) for key, value in of.protocol.items()},
    }


def _in_a_cell(value: Any) -> Any:
    return "; ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else value


def _cells(rows: Sequence[Row]) -> Iterable[list[str]]:
    for row in rows:
        how = row.evaluation.protocol
        (name, *cells), *_ = figures([row.figure], how["num"])
        chain = (str(how[key]) for key in IN_COLUMNS)
        yield [row.run, str(row.evaluation.step), *chain, name, *cells, str(row.protocol)]


def _protocols(rows: Sequence[Row]) -> list[tuple[int, str]]:
    """Each protocol once, by its number, in words."""

    def in_words(how: dict[str, Any]) -> str:
        return ", ".join(f"{key} {shown_value(value)}" for key, value in how.items() if key not in IN_COLUMNS)

    return list({row.protocol: in_words(row.evaluation.protocol) for row in rows}.items())


def _markdown(text: str) -> str:
    """Text in which nothing is markup, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$&!])", r"\\\1", " ".join(text.split()))


def _latex(text: str) -> str:
    """Text in which nothing is a command, on one line."""
    return " ".join(text.split()).translate(_LATEX)
