"""The tables and cards of a report as texts in rows, and its figures as files for spreadsheets and papers.

Runs that differ in the seed alone are one setting: the mean of each figure over trainings, and its deviation.
"""

import csv
import io
import itertools
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unstir.chain import title
from unstir.data import Store
from unstir.errors import UserError, printable
from unstir.insight.facts import Facts, Reported, chain_key, same_features
from unstir.insight.statement import brief, count, shown
from unstir.metrics.evaluation import Evaluation, check_alike, of_images, saved
from unstir.metrics.evaluation import shown as shown_value
from unstir.metrics.figures import Figure, in_rows
from unstir.metrics.likelihood import terms_of
from unstir.pixels import pictured
from unstir.progress import counted, duration
from unstir.runs import build, toml
from unstir.runs.config import MAY_CHANGE
from unstir.runs.files import is_number, make_folder, write_text
from unstir.runs.named import PREFIX, names
from unstir.runs.run import Run
from unstir.significance import with_error

STEM = "figures"  # of the files in a folder
HEADS = ("run", "step", "sampler", "steps", "calls", "figure", "value", "real images", "noise", "better", "protocol")

FIRST, TEX = ("setting", "trainings"), "% by unstir report"
"""The first columns of a table with a row for each setting, and how any table begins in LaTeX."""

ALIGNED = "lrlrrlrrrlr"  # of each of these columns: left or right

IN_COLUMNS = ("sampler", "steps", "calls")  # keys of a protocol; the rest stands below

LEARNING = {"train.length", "train.lr_period"}  # may change in a run, and change the weights
MEANING = "± is the standard deviation over trainings"

_LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {"[": "{[}", "*": "{*}"}  # after the end of a line they would be its options
    | {character: f"\\{character}" for character in "&%$#_{}"}
)


def cards(facts: Facts) -> list[tuple[str, str, str]]:
    """The figures to see first: name, value, and what to hold it against."""
    cards = []
    if (last := facts.last) is not None:
        main, accuracy = last.main(), last.figures.get("classifier/accuracy")
        floor = "" if main.floor is None else f"real images {main.floor:.3g}"
        cards.append((main.name, shown(main), floor))
        if accuracy is not None:
            floor = "" if accuracy.floor is None else f"real images {accuracy.floor:.1%}"
            cards.append(("class accuracy", f"{accuracy.value:.1%}", floor))
    line = facts.held_out[-1] if facts.held_out else {}
    if (bound := facts.bound) is not None:
        value, note = with_error(bound.bits_per_dim, bound.standard_error), f"the bound, {terms_of(bound.protocol)}"
        cards.append(("bits/dim, held out", value, f"{note}, of step {bound.protocol['step']:,}"))
    elif is_number(line.get("bits")):
        note = f"an estimate of the bound, of step {line['step']:,}"
        cards.append(("bits/dim, held out", with_error(line["bits"], line["bits_error"]), note))
    return cards


def samplers(facts: Facts) -> list[tuple[str, str, str, str]]:
    """A row per sampler evaluated, by rising calls: name and steps, calls, main figure, and seconds per image."""
    timed = {} if facts.speed is None else facts.speed.seconds
    rows = []
    for item in sorted(facts.by_chain, key=lambda item: (item.protocol["calls"], title(item.protocol))):
        seconds = timed.get(chain_key(item.protocol["sampler"], item.protocol["calls"]))
        cost = "" if seconds is None else brief(seconds)
        name = f"{title(item.protocol)}, {count(item.protocol['steps'], 'step')}"
        rows.append((name, f"{item.protocol['calls']:,}", shown(item.main()), cost))
    return rows


def timing(facts: Facts) -> str:
    """How the seconds of `samplers` were measured."""
    it = facts.speed
    if it is None:
        return "Seconds per image were not measured; unstir report measures them with the figures."
    batch = f"{it.num} images at once" if it.num > 1 else "one image at a time"
    threads = f", {it.machine['threads']} threads" if it.machine.get("threads", 1) != 1 else ""
    return f"Seconds on {it.machine['device']}{threads}, {batch}, torch {it.machine['torch']}, {it.date}."


def protocol_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    """All of a protocol."""
    return [(key, shown_value(value)) for key, value in evaluation.protocol.items()]


def data(facts: Facts, store: Store | None) -> list[tuple[str, str]]:
    """What the run learns from."""
    card, cfg = facts.data, facts.config.data
    rows = [
        ("source", cfg.source),
        ("images", f"{card.counts['train']:,} for training, {card.counts['held_out']:,} held out"),
        ("shape", pictured(card.shape, card.scale)),
        ("classes", ", ".join(card.classes) or "none"),
        ("mirrored", "half of the time" if cfg.flip else "no"),
        ("content hash", card.content_hash),
    ]
    if not facts.config.kind.trained_here:
        count = f"{card.counts['train']:,} and {card.counts['held_out']:,} images" if card.content_hash else "nothing"
        rows[:2] = [("trained on", "not known: the weights were imported"), ("compared with", count)]
    if store is not None:
        rows += [("note", str(note)) for note in store.notes]
        rows += [("refused files", str(len(store.refused)))] if store.refused else []
    return rows


def cost(facts: Facts) -> list[tuple[str, str]]:
    """What the run took, and on what; a distilled run sees none of the data."""
    line, events = facts.last_line, facts.run.log("events").lines
    machines = [f"{it['device']}, torch {it['torch']}" for it in events if {"device", "torch"} <= it.keys()]
    speeds = [line["images_per_second"] for line in facts.lines]
    pace = f", {brief(statistics.median(speeds), 3)} images/s while training" if speeds else ""
    mean = line["images"] / max(facts.data.counts["train"], 1)
    name, seen = "training images seen", f"{line['images']:,}, {brief(mean)} times each image"
    if facts.config.kind.has_teacher:
        name, seen = "images in its batches", f"{line['images']:,}"
    training = {
        name: seen,
        "time": f"{duration(line['seconds'])} with grids, held-out losses and files{pace}",
        "precision": facts.config.train.dtype,
        "machine": "; then ".join(dict.fromkeys(machines)) or "not recorded",
    }
    if not facts.config.kind.trained_here:
        training = dict.fromkeys(training, "not known: the weights were imported")
    return [("parameters", f"{build.num_parameters(facts.config):,}"), *training.items()]


@dataclass(frozen=True)
class Table:
    """Figures for a file: texts in ``cells`` below ``heads``, aligned "l" or "r"; ``records`` have all digits."""

    heads: Sequence[str]
    align: str
    cells: Sequence[Sequence[str]]
    records: Sequence[Mapping[str, Any]]
    notes: Sequence[str]


def targets(path: Path) -> list[Path]:
    """The files of an export to ``path``: itself, or one per format in a folder. Raises UserError for other names."""
    if path.suffix.lower() in WRITERS and not path.is_dir():
        return [path]
    if (path.suffix or path.exists()) and not path.is_dir():
        kinds = ", ".join(WRITERS)
        raise UserError("exported", path, f"is no {kinds} file", "name one of these, or a folder for all three")
    return [path / f"{STEM}{suffix}" for suffix in WRITERS]


def export(path: Path, runs: Sequence[Reported], figures: Sequence[str] = ()) -> list[Path]:
    """Write the figures of some runs, or these ``figures`` by setting, to a file or folder; return the files."""
    files = targets(path)
    table = of_settings(settings(runs), figures) if figures else of_runs(runs)
    for file in files:
        make_folder(file.absolute().parent)
        write_text(file, WRITERS[file.suffix.lower()](table))
    return files


@dataclass(frozen=True)
class Setting:
    """A ``name``, and the newest evaluation of each training."""

    name: str
    evaluations: tuple[Evaluation, ...]

    def values(self, text: str) -> tuple[float, float | None]:
        """The mean of a figure (`chosen`) over trainings, and its standard deviation; None for one training."""
        means = [chosen(evaluation, text).value for evaluation in self.evaluations]
        return statistics.mean(means), statistics.stdev(means) if len(means) > 1 else None


def settings(runs: Sequence[Reported]) -> list[Setting]:
    """The runs that were evaluated, in the order of the first of each setting. UserError where protocols differ."""
    groups: list[list[Reported]] = []
    for facts in runs:
        if facts.last is not None:
            known = next((group for group in groups if _alike(group[0], facts)), None)
            groups.append([facts]) if known is None else known.append(facts)
    evaluations = [tuple(facts.last for facts in group if facts.last is not None) for group in groups]
    for evaluation in itertools.chain(*evaluations):
        check_alike(evaluations[0][0].protocol, evaluation.protocol)
    names = [_name(group) for group in groups]
    if "" in names or len(set(names)) < len(names):
        names = [group[0].name for group in groups]
    return [Setting(*pair) for pair in zip(names, evaluations, strict=True)]


def _alike(a: Reported, b: Reported) -> bool:
    """Whether two runs learned the same data by the same settings to the same step, from another seed."""
    if not (isinstance(a, Facts) and isinstance(b, Facts) and a.last and b.last and a.last.step == b.last.step):
        return False
    free = {"seed", *MAY_CHANGE} - LEARNING
    one, other = ({key: value for key, value in toml.flat(it.config).items() if key not in free} for it in (a, b))
    return one == other and a.data.content_hash == b.data.content_hash


def _name(group: Sequence[Reported]) -> str:
    """What the names of folders have in common but for the seed: "dit" of dit-seed0 and dit-seed1, or of one alone."""
    names = [facts.name for facts in group]
    seed = str(group[0].config.seed) if isinstance(group[0], Facts) else ""
    if len(names) == 1:
        return re.sub(rf"[-_. ]+(seed|s)?{seed}$", "", names[0]) if seed else names[0]
    common = names[0].removesuffix(seed)
    while not all(name.startswith(common) for name in names):
        common = common[:-1]
    return common if common == names[0] else re.sub(r"[-_. ]+(seed|s)?[-_. ]*$", "", common)


def chosen(evaluation: Evaluation, text: str) -> Figure:
    """The figure of a key such as "classifier/fd", or "fd" in the features of the main one. UserError for none."""
    figure = evaluation.figures.get(text) or same_features(evaluation, text)
    if figure is None:
        raise UserError("figures", text, "was not measured", f"choose among {', '.join(evaluation.figures)}")
    return figure


def of_settings(found: Sequence[Setting], figures: Sequence[str]) -> Table:
    """A row for each setting. UserError as `chosen`, or where nothing was measured."""
    if not found:
        raise UserError("figures", figures, "of no run were measured", "leave out --no-measure")
    names = [chosen(found[0].evaluations[0], text).name for text in figures]
    columns = [f"{name}{column}" for name in names for column in ("", " ±")]
    records = []
    for setting in found:
        values = itertools.chain(*(setting.values(text) for text in figures))
        row = setting.name, len(setting.evaluations), *values
        records.append(dict(zip((*FIRST, *columns), row, strict=True)))
    notes = f"{MEANING}.", f"{_in_words(found[0].evaluations[0].protocol)}."
    return Table((*FIRST, *names), "l" + "r" * (1 + len(names)), trainings(found, figures), records, notes)


def trainings(found: Sequence[Setting], figures: Sequence[str]) -> list[list[str]]:
    """A row for each setting: its name, the number of trainings, and each figure as `MEANING` says."""
    return [
        [printable(it.name), str(len(it.evaluations)), *(with_error(*it.values(text)) for text in figures)]
        for it in found
    ]


def of_runs(runs: Sequence[Reported]) -> Table:
    """A row per figure of every evaluation that the pages of these runs show; the rest of a protocol is a note."""
    evaluated = [
        (printable(facts.name), item)
        for facts in runs
        for item in {item.name(): item for item in (*facts.by_step, *facts.by_chain)}.values()
    ]
    notes = list(dict.fromkeys(_in_words(item.protocol, IN_COLUMNS) for _, item in evaluated))
    cells, records = [], []
    for run, item in evaluated:
        how, step = item.protocol, "" if of_images(item.protocol) else str(item.step)
        chain = [str(how.get(key, "")) for key in IN_COLUMNS]
        number = str(1 + notes.index(_in_words(how, IN_COLUMNS)))
        cells += [[run, step, *chain, *row, number] for row in in_rows(item.figures.values(), how["num"])]
        records += [_record(run, item, figure) for figure in item.figures.values()]
    numbered = [f"Protocol {number}: {text}" for number, text in enumerate(notes, 1)]
    return Table(HEADS, ALIGNED, cells, records, numbered)


def is_ours(suffix: str, content: bytes) -> bool:
    """Whether the content of a file with this suffix is a table of `export`."""
    between = {".csv": ",", ".md": " | "}.get(suffix)
    starts = [TEX] if between is None else [between.join(heads[:2]) for heads in (HEADS, FIRST)]
    return content.decode(errors="replace").removeprefix("| ").startswith(tuple(starts))


def to_csv(table: Table) -> str:
    """A line per record."""
    stream = io.StringIO()
    heads = list(dict.fromkeys(key for record in table.records for key in record)) or table.heads
    writer = csv.DictWriter(stream, heads, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.records)
    return stream.getvalue()


def to_markdown(table: Table) -> str:
    """A table, and the notes below it."""
    rule = ["---" + ":" * (side == "r") for side in table.align]
    lines = [table.heads, rule, *(list(map(as_markdown, row)) for row in table.cells)]
    notes = "".join(f"\n{as_markdown(note)}\n" for note in table.notes)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + notes


def to_latex(table: Table) -> str:
    """A tabular without packages, and the notes below it, to be read with \\input."""
    head, *body = (f"{' & '.join(map(_latex, line))} \\\\\n" for line in (table.heads, *table.cells))
    notes = "".join(f"\n\\par {_latex(note)}\n" for note in table.notes)
    rows = f"\\hline\n{head}\\hline\n{''.join(body)}\\hline\n"
    return f"{TEX}\n\\begin{{tabular}}{{{table.align}}}\n{rows}\\end{{tabular}}\n{notes}"


WRITERS: dict[str, Callable[[Table], str]] = {".csv": to_csv, ".md": to_markdown, ".tex": to_latex}


def _record(run: str, of: Evaluation, it: Figure) -> dict[str, Any]:
    infinite, infinite_error = it.infinite or (None, None)
    return {
        "run": run,
        "step": None if of_images(of.protocol) else of.step,
        "images_seen": None if of_images(of.protocol) else of.images,
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
    return "; ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else value


def _in_words(how: Mapping[str, Any], apart_from: Sequence[str] = ()) -> str:
    return ", ".join(f"{key} {shown_value(value)}" for key, value in how.items() if key not in apart_from)


def as_markdown(text: str) -> str:
    """Text in which nothing is markup, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$&!])", r"\\\1", " ".join(text.split()))


def _latex(text: str) -> str:
    return " ".join(text.split()).translate(_LATEX)


def listed() -> list[str]:
    """A line a model: its name, images, classes, size of its files, first figure with that of real images, licence."""
    rows = [_row(Run.open(f"{PREFIX}{name}")) for name in names()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _row(run: Run) -> tuple[str, ...]:
    size = sum(file.stat().st_size for file in run.files.rglob("*") if file.is_file())
    evaluation = saved(replace(run, path=run.files))[-1]
    name, value, real, *_ = in_rows([evaluation.main()], evaluation.protocol["num"])[0]
    card = (run.files / "README.md").read_text("utf-8").splitlines()
    licence = next(line.partition(": ")[2] for line in card if line.startswith("license: "))
    return (
        run.files.name,
        pictured(run.data.shape, run.data.scale),
        counted(run.labels.count, "class", "classes"),
        f"{size / 1e6:.1f} MB",
        f"{name} {value} at guidance {evaluation.protocol['guidance']:g} (real images {real})",
        licence,
    )
