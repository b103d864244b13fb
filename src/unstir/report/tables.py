"""The tables and cards of a report, as texts in rows."""

import math
import statistics
from collections.abc import Iterable

from unstir.chain import Cost
from unstir.data import Store
from unstir.doctor.numbers import numbers
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.evaluation import shown as shown_value
from unstir.metrics.figures import Figure
from unstir.metrics.likelihood import terms_of
from unstir.progress import duration
from unstir.report import charts
from unstir.report.facts import Facts, chain_key
from unstir.report.wording import brief, count, operations, passes, with_error


def cards(facts: Facts) -> list[tuple[str, str, str]]:
    """The figures to see first: name, value, and what to hold it against."""
    found = []
    if facts.last is not None:
        figure = facts.last.main()
        floor = "" if figure.floor is None else f"real images {figure.floor:.3g}"
        found.append((figure.name, plus_minus(figure.value, figure.error), floor))
        if accuracy := facts.last.figures.get("classifier/accuracy"):
            real = "" if accuracy.floor is None else f"real images {accuracy.floor:.1%}"
            found.append(("class accuracy", f"{accuracy.value:.1%}", real))
    line = facts.held_out[-1] if facts.held_out else {}
    if bound := facts.likelihoods.get("held_out"):
        value = plus_minus(bound["bits_per_dim"], bound["standard_error"])
        found.append(("bits/dim, held out", value, f"the bound, {terms_of(bound['protocol'])}"))
    elif line.get("bits") is not None and math.isfinite(line["bits"]):
        found.append(("bits/dim, held out", plus_minus(line["bits"], line["bits_error"]), "an estimate of the bound"))
    found.append(
        ("training images seen", f"{facts.cost.images:,}", passes(facts.cost.images, facts.data.counts["train"]))
    )
    found.append(("training time", duration(facts.cost.seconds), operations(facts.cost.training_flops)))
    return found


def plus_minus(value: float, error: float | None) -> str:
    """A figure with its standard error, with as many digits as that allows."""
    return with_error(value, error).replace("+-", "±")


def bound(value: float | None) -> str:
    """The figure of real images or of noise; nothing where it was not measured."""
    return "" if value is None else f"{value:.4g}"


def figures(found: Iterable[Figure], num: int) -> list[tuple[str, str, str, str, str]]:
    """A row per figure of ``num`` images: its name and value, those of real images and noise, which is better."""
    rows = []
    for figure in found:
        value, real, better = plus_minus(figure.value, figure.error), bound(figure.floor), figure.better
        if figure.num_floor not in (0, num):
            real += f" (n = {figure.num_floor})"
        rows.append((figure.name, value, real, bound(figure.ceiling), better))
        if figure.infinite is not None:
            real = "" if figure.floor_infinite is None else plus_minus(*figure.floor_infinite)
            rows.append((f"{figure.name}, infinite n", plus_minus(*figure.infinite), real, "", better))
    return rows


def samplers(facts: Facts) -> list[tuple[str, str, str, str]]:
    """A row per sampler evaluated, by rising calls: name and steps, calls, main figure, and seconds per image."""
    rows = []
    timed = {} if facts.speed is None else facts.speed.seconds
    for each in sorted(facts.by_chain, key=lambda each: (each.protocol["calls"], charts.chain_name(each))):
        how, main = each.protocol, each.main()
        seconds = timed.get(chain_key(how["sampler"], how["spacing"], how["calls"]))
        cost = "" if seconds is None else f"{seconds:.3g}"
        name = f"{charts.chain_name(each)}, {count(how['steps'], 'step')}"
        rows.append((name, f"{how['calls']:,}", plus_minus(main.value, main.error), cost))
    return rows


def timing(facts: Facts) -> str:
    """How the seconds of `samplers` were measured."""
    it = facts.speed
    if it is None:
        return "Seconds per image were not measured; unstir report measures them with the figures."
    batch = f"{it.num} images at once" if it.num > 1 else "one image at a time"
    threads = f", {it.machine['threads']} threads" if it.machine.get("threads", 1) != 1 else ""
    return f"Seconds on {it.machine['device']}{threads}, {batch}, torch {it.machine['torch']}, {it.date}."


def protocol(evaluation: Evaluation, classes: tuple[str, ...] = ()) -> str:
    """How figures were made, in a sentence's length."""
    how = evaluation.protocol
    away = f" away from {how['guide']}" if how.get("guide") else ""
    guided = f"guidance {how['guidance']:g}{away}, " if how.get("guidance", 1) != 1 else ""
    label = how.get("label")
    of_class = f" of class {classes[label]}" if isinstance(label, int) and label < len(classes) else ""
    text = f"{how['seeds']} × {how['num']} images{of_class} by {how['sampler']}, {Cost(how['steps'], how['calls'])}, "
    text += f"{guided}{'averaged' if how['ema'] else 'raw'} weights, against {how['num_reference']:,} images of the "
    return f"{text}{how['split']} split"


def protocol_rows(evaluation: Evaluation, classes: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """All of a protocol, classes by their names."""
    rows = {key: shown_value(value) for key, value in evaluation.protocol.items()}
    label = evaluation.protocol.get("label")
    if isinstance(label, int) and label < len(classes):
        rows["label"] = f"{classes[label]} ({label})"
    return list(rows.items())


def data(facts: Facts, store: Store | None) -> list[tuple[str, str]]:
    """What the run learns from."""
    card, cfg = facts.data, facts.config.data
    rows = [
        ("source", cfg.source),
        ("images", f"{card.counts['train']:,} for training, {card.counts['held_out']:,} held out"),
        ("shape", "x".join(map(str, card.shape)) + (" grey" if card.shape[0] == 1 else " RGB")),
        ("classes", ", ".join(card.classes) or "none"),
        ("mirrored", "half of the time" if cfg.flip else "no"),
        ("content hash", card.content_hash),
    ]
    if store is not None:
        rows += [("note", str(note)) for note in store.notes]
        rows += [("refused files", str(len(store.refused)))] if store.refused else []
    return rows


def cost(facts: Facts) -> list[tuple[str, str]]:
    """What the run took, and on what."""
    it = facts.cost
    speeds = numbers(facts.metrics, "images_per_second")
    pace = f", {brief(statistics.median(speeds), 3)} images/s while training" if speeds else ""
    return [
        ("parameters", f"{it.parameters:,}"),
        ("training images seen", f"{it.images:,}, {passes(facts.cost.images, facts.data.counts['train'])}"),
        ("time", f"{duration(it.seconds)} with grids, held-out losses and files{pace}"),
        ("one forward pass", f"{operations(it.forward_flops)} per image"),
        ("training", f"{operations(it.training_flops)}: forward and backward of every image seen"),
        ("precision", facts.config.train.dtype),
        ("machine", "; then ".join(facts.trained_on) or "not recorded"),
    ]
