"""Evaluations: figures with error bars and bounds, and the protocol without which none of them means anything.

Figures of unlike protocols say nothing about which model is better: FIDs of other n differ by their bias, of other
references by the reference. `unlike` names what differs, and a comparison is refused where it names anything.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from unstir.chain import Cost, compared
from unstir.data import Store
from unstir.errors import UserError
from unstir.metrics.figures import Figure, figure_effect, in_rows, rare_in_words, verdict
from unstir.metrics.memorisation import Memorisation
from unstir.progress import counting
from unstir.runs.files import check, decode, encode, is_count, is_text, make_folder, write_text
from unstir.runs.model import weights_in_words
from unstir.runs.run import Run
from unstir.significance import with_error

FORMAT = 9  # grows when a figure of the same name and protocol would come out otherwise
FOLDER = "evaluation"
FID = "inception-v3-compat/fd"  # the key of the one figure that may be called so
SHARES = "by the data's shares"  # the label of a protocol of classes as often as the data has them
PROTOCOL = {
    **dict.fromkeys(("num", "seeds", "steps", "calls", "num_reference"), is_count),
    **dict.fromkeys(("sampler", "split", "dtype"), is_text),
    "seed": lambda value: type(value) is int,
    "networks": lambda value: isinstance(value, dict) and all(map(is_text, value.values())),
    "ema": lambda value: isinstance(value, bool) or (isinstance(value, float) and 0 < value < 1),  # or a width
}
"""What is read of a protocol, and of what kind each is."""

JUDGED = ("num", "seeds", "split", "num_reference", "data", "flip", "rounding", "networks", "classifier", "label")
"""The keys of a protocol that say how images are judged; the others say how a run drew them."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The figures of one saved step of a run, by key such as "classifier/fd", and the protocol they came by.

    ``images`` is how many training images the weights had seen, 0 where that is not known, ``weights`` their SHA-256
    (hex), ``run`` the id of their run. Figures of images that no run drew are of no step and no weights: their
    protocol has a hash of them, and ``source`` says what was named.
    """

    step: int
    images: int
    weights: str = ""
    run: str = ""
    protocol: dict[str, Any]
    figures: dict[str, Figure]
    memorisation: Memorisation | None = None
    source: str = ""

    @property
    def marks(self) -> dict[str, str]:
        """As those of the `Model` that drew the images."""
        return {"run": self.run, "weights": self.weights}

    def name(self) -> str:
        """A file name of its own for the figures of this protocol and step."""
        return name_of(self.step, self.protocol)

    @property
    def main_key(self) -> str:
        """The key of the figure that says most: FID where it was measured, else the first distance."""
        return FID if FID in self.figures else next(iter(self.figures))

    def main(self) -> Figure:
        """The figure that says most."""
        return self.figures[self.main_key]


def name_of(step: int, protocol: Mapping[str, Any]) -> str:
    """The file name (without suffix) of an evaluation of a step by a protocol."""
    digest = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:8]
    if of_images(protocol):
        return f"images-{protocol['images'][:12]}-{protocol['seeds']}x{protocol['num']}-{digest}"
    sampler = protocol["sampler"].replace(":", "-")  # which no name of a file has on Windows
    return f"step{step}-{sampler}{protocol['steps']}-{protocol['seeds']}x{protocol['num']}-{digest}"


def of_images(protocol: Mapping[str, Any]) -> bool:
    """Whether a protocol is of images that are judged as they are, and of no run."""
    return "images" in protocol


def unlike(a: Mapping[str, Any], b: Mapping[str, Any], apart_from: Collection[str] = ()) -> list[str]:
    """How two protocols differ, a phrase a key ("num is 500 and 2000"), but for keys that differ on purpose."""
    if of_images(a) or of_images(b):
        a, b = ({key: each.get(key) for key in JUDGED} for each in (a, b))
    pairs = {key: values for key, values in compared(a, b).items() if key not in apart_from}
    return [f"{key} is {shown(mine)} and {shown(theirs)}" for key, (mine, theirs) in pairs.items()]


def shown(value: Any) -> str:
    """A value of a protocol for people: hashes by their first digits, nothing as "none"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {shown(each)}" for key, each in value.items()) or "none"
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)


def check_alike(a: Mapping[str, Any], b: Mapping[str, Any], apart_from: Collection[str] = ()) -> None:
    """Raise UserError, naming the differences, where figures by these two protocols must not be compared."""
    if different := unlike(a, b, apart_from):
        text = f"do not compare: {'; '.join(different)}"
        raise UserError("", "these figures", text, "evaluate both by one protocol, or name another run or folder")


def best_match(
    protocol: Mapping[str, Any], others: Sequence[Evaluation], against: Path, apart_from: Collection[str] = ()
) -> Evaluation:
    """The newest of those of one protocol, but for some keys, with most images; UserError that says what differs."""
    if not others:
        raise UserError("against", against, "has not been evaluated", "evaluate it first by the same settings")

    def far(other: Evaluation) -> tuple[int, int, int]:
        its = other.protocol
        return len(unlike(protocol, its, apart_from)), -its["num"], -its["seeds"]

    nearest = min(reversed(others), key=far)
    check_alike(protocol, nearest.protocol, apart_from)
    return nearest


def differences(a: Evaluation, b: Evaluation) -> list[str]:
    """One line per figure: how ``a`` differs from ``b``. Raises UserError as `check_alike`."""
    check_alike(a.protocol, b.protocol)
    lines = []
    for key in [key for key in a.figures if key in b.figures]:
        mine, other = a.figures[key], b.figures[key]
        change = figure_effect(other, mine)
        ours, theirs = (with_error(figure.value, figure.error) for figure in (mine, other))
        by = with_error(change.value, change.error, sign=True)
        lines.append(f"{mine.name}: {ours} against {theirs}, {by}: {verdict(change, mine.better)}")
    return lines


def save(run: Run | Store, evaluation: Evaluation) -> Path:
    """Write evaluation/NAME.json in a run or store and return its path. Raises UserError where it cannot be written."""
    path = make_folder(run.path / FOLDER) / f"{evaluation.name()}.json"
    write_text(path, encode({"unstir_evaluation": FORMAT, **asdict(evaluation)}, indent=1) + "\n")
    return path


def pairs_file(home: Run | Store, evaluation: Evaluation) -> Path:
    """The picture of the samples of an evaluation that lie nearest to training images; it says their weights."""
    return home.path / FOLDER / f"{evaluation.name()}-pairs.png"


def saved(run: Run | Store) -> list[Evaluation]:
    """The evaluations of a run, with those that came with it, or of a store, by rising step, of whole files."""
    places = (run.files, run.path) if isinstance(run, Run) else (run.path,)
    files = {file.name: file for place in places for file in (place / FOLDER).glob("*.json")}
    evaluations = map(_read, files.values())
    return sorted((each for each in evaluations if each is not None), key=lambda each: (each.step, each.name()))


def is_own(run: Run, step: int, ema: bool | float, weights: str, id: str) -> bool:
    """Whether figures of the run of an ``id`` are a run's own: of the ``weights`` (SHA-256, hex) it has at a step."""
    if id != run.data.run:
        return False
    files = tuple((file, file.stat().st_mtime_ns) for _, file in run.saved if file.exists())
    return _sha256(run.name, files, step, ema) in ("", weights)  # it keeps no weights of every step


@cache
def _sha256(run: str, files: object, step: int, ema: bool | float) -> str:
    """The SHA-256 of a run's weights at a step, "" where it keeps none; read once for the same ``files``."""
    with counting("reading weights", ""), suppress(UserError):
        return Run.open(run).model(step, ema=ema, device="cpu").weights_sha256
    return ""


def own(run: Run) -> list[Evaluation]:
    """The evaluations, by rising step, of weights of the run."""
    mine = partial(is_own, run)
    return [e for e in saved(run) if mine(e.step, e.protocol["ema"], e.weights.partition(" ")[0], e.run)]


def find(run: Run | Store, step: int, protocol: Mapping[str, Any]) -> Evaluation | None:
    """The evaluation of this step by exactly this protocol, if it was made before."""
    evaluation = _read(run.path / FOLDER / f"{name_of(step, protocol)}.json")
    return None if evaluation is None or compared(evaluation.protocol, protocol) else evaluation


def protocol_in_words(evaluation: Evaluation, classes: Sequence[str] = ()) -> str:
    """How figures were made, in a sentence's length; ``classes`` are names of the data's."""
    how = evaluation.protocol
    label = how.get("label")
    of_class = f" of class {classes[label]}" if isinstance(label, int) and label < len(classes) else ""
    text = f"{how['seeds']} x {how['num']} images{of_class}"
    if not of_images(how):
        away = f" away from {how['guide']}" if how.get("guide") else ""
        guided = f"guidance {how['guidance']:g}{away}, " if how.get("guidance", 1) != 1 else ""
        text += f" by {how['sampler']}, {Cost(how['steps'], how['calls'])}, {guided}{weights_in_words(how['ema'])}"
    return f"{text}, against {how['num_reference']:,} images of the {how['split']} split"


def describe(evaluation: Evaluation) -> str:
    """What was evaluated and how, and a table of the figures: value, standard error, real images, noise."""
    setup, seen = evaluation.protocol, f" ({evaluation.images} images seen)" * (evaluation.images > 0)
    head = f"step {evaluation.step}{seen}, {setup.get('dtype')}, seed {setup.get('seed')} on"
    if of_images(setup):
        head = f"{evaluation.source} (images {setup['images'][:12]})"
    rare = ", ".join(filter(None, map(rare_in_words, evaluation.figures.values())))
    lines = (
        f"{head}: {protocol_in_words(evaluation)}; features: {shown(setup['networks'])}",
        table(evaluation.figures, setup["num"]),
        describe_classifier(setup),
        f"classes missing or too rare: {rare}" if rare else None,
        None if evaluation.memorisation is None else f"memorisation: {evaluation.memorisation.says}",
    )
    return "\n".join(filter(None, lines))


def describe_classifier(protocol: Mapping[str, Any]) -> str | None:
    """How a protocol's classifier did on held-out images, and what replaces it if not trusted; None: no classes."""
    entry = protocol.get("classifier")
    if not entry:
        return None
    instead = " and ".join(protocol["networks"]) or "the sliced Wasserstein distance"
    if not entry["num"]:
        return f"the classifier is not used, for no image is held out to test it with; {instead} is used instead"
    right = f"the classifier is right in {entry['accuracy']:.1%} of {entry['num']:,} held-out images"
    chance = f"chance is {entry['chance']:.1%}, the share of the most frequent class"
    return f"{right}; {chance}" + ("" if entry["used"] else f"; it is not used, {instead} is used instead")


def table(figures: Mapping[str, Figure], num: int) -> str:
    """The rows of `in_rows` in columns, below their heads."""
    rows = [("figure", "value", "real", "noise", "better"), *in_rows(figures.values(), num)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (zip(row, widths, strict=True) for row in rows)
    return "\n".join("  ".join((text or "-").ljust(width) for text, width in line).rstrip() for line in lines)


_EVALUATION = TypeAdapter(Evaluation)


def _read(path: Path) -> Evaluation | None:
    """What `save` wrote; None for a file that is damaged, of another format, or no evaluation."""
    try:
        values = decode(path.read_bytes())
        if values.pop("unstir_evaluation", None) != FORMAT:
            return None
        read = _EVALUATION.validate_json(json.dumps(values), strict=True)
        kinds = {key: kind for key, kind in PROTOCOL.items() if key in JUDGED or not of_images(read.protocol)}
        check(read.protocol, kinds, {"images": is_text})
        return read if read.figures and all(it.by_seed and it.finite for it in read.figures.values()) else None
    except (OSError, ValueError):
        return None
