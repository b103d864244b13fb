"""A run is a folder that needs nothing else.

config.toml         every setting, resolved, for people; those of saved weights are read from their files
data.json           shape, classes, counts and content hash of the data it learns from, with a checksum
metrics.jsonl       one line per log step; identical however often the run was interrupted, timing fields aside
events.jsonl        starts, continuations and stops, with what changed and on which machine
checkpoints/        the last few full checkpoints, to continue from
weights/            slim files of chosen moments, to sample from
samples/            grids drawn at the same moments, always from the same noise
held_out.jsonl      a line at the same moments: losses of the same training and held-out images, identical like metrics
curves.png          loss, gradient norm and learning rate; losses.png: those of held_out.jsonl
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError, safe_open

from unstir.chain import DEFAULTS, Chain
from unstir.errors import UserError, quoted
from unstir.locks import held
from unstir.runs import card, lines, toml
from unstir.runs.card import DataCard, Labels
from unstir.runs.config import MAY_CHANGE, Config, steps_in
from unstir.runs.files import PARTIAL, make_folder, remove_partials, write_text

logger = logging.getLogger(__name__)

OWN = "config.toml", "data.json", "metrics.jsonl", "held_out.jsonl", "events.jsonl", "curves.png", "losses.png"
"""The files of a run's folder that only the holder of its lock writes."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, its config and what its data is like; `Run` adds its weights."""

    path: Path
    config: Config
    data: DataCard

    @classmethod
    def create(cls, config: Config, path: Path, data: DataCard) -> Self:
        """Make the folder of a new run. Raises UserError where ``path`` holds something else or cannot be written."""
        check_free(path)
        run = cls(make_folder(path), config, replace(data, run=identity(config)))
        card.save(path, run.data)
        run.save_config()  # last: a folder with a config is a run
        return run

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run folder. Raises UserError where it holds no run or a broken one."""
        path = Path(path)
        if not is_run(path):
            _refuse(path)
        data = card.load(path)  # first: its number says whether this version reads the rest
        return cls(path, _config(path, data.run), data)

    @property
    def checkpoints(self) -> Path:
        """The folder of full checkpoints."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """The folder of slim weight files."""
        return self.path / "weights"

    @property
    def samples(self) -> Path:
        """The folder of grids."""
        return self.path / "samples"

    @property
    def metrics_file(self) -> Path:
        """The file of metrics, a JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def held_out_file(self) -> Path:
        """The file of losses of images kept aside, a JSON object per snapshot."""
        return self.path / "held_out.jsonl"

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training split; the last partial one is dropped."""
        return self.data.counts["train"] // self.config.train.batch_size

    def steps_in(self, span: str) -> int:
        """How many optimiser steps of this run a span such as "20 epochs" is."""
        return steps_in(span, self.steps_per_epoch, self.config.train.batch_size)

    @property
    def length(self) -> int:
        """The optimiser steps of the whole run; none where it was trained elsewhere."""
        return self.steps_in(self.config.train.length) if self.config.kind.trained_here else 0

    @property
    def going_on(self) -> str:
        """What to type for a new run that begins with the weights of this one, with the same network."""
        length = "" if self.config.kind.trained_here else "--train.length LENGTH --train.warmup LENGTH "
        begin = f"unstir train {quoted(self.path / 'config.toml')} --train.init {quoted(self.path)}"
        return f"{begin} --data.source IMAGES {length}--out NEW"

    def save_config(self) -> None:
        """Write config.toml."""
        write_text(self.path / "config.toml", toml.to_toml(self.config))

    def log(self, name: str) -> lines.Log:
        """The "metrics", "held_out" or "events" of the run, with what of the file is damaged."""
        return lines.read(self.path / f"{name}.jsonl", lines.NAMES[name])

    def metrics(self) -> list[dict[str, Any]]:
        """The good lines of metrics.jsonl."""
        return list(self.log("metrics").lines)

    def held_out(self) -> list[dict[str, Any]]:
        """The good lines of held_out.jsonl (`train.held_out`)."""
        return list(self.log("held_out").lines)

    def record(self, event: str, **details: Any) -> None:
        """Add a line to events.jsonl, durably; UserError where it cannot be written."""
        lines.append(self.path / "events.jsonl", {"event": event, **details}, durable=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run in this block; UserError where another process has it.

        On a file system that knows no locks, as some network folders, nobody can tell.
        """
        busy = UserError("out", self.path, "is being trained by another process", "wait for it, or name another folder")
        with held(self.path / ".lock", busy):
            yield

    def tidy(self) -> None:
        """Remove what a killed process left half written; only the holder of the lock may."""
        for name in OWN:
            remove_partials(self.path, name)
        for folder in (self.checkpoints, self.weights, self.samples):
            remove_partials(folder)
        for folder in (self.path, self.checkpoints, self.weights, self.samples):
            for partial in folder.glob(".tmp*"):  # safetensors writes to .tmp first
                partial.unlink(missing_ok=True)

    def chain(self) -> Chain:
        """How the run's grids are sampled, which is the default for other samples from it."""
        return Chain(**{name: getattr(self.config.grids, name) for name in DEFAULTS})

    @property
    def labels(self) -> Labels:
        """The labels that the run's network knows."""
        count = self.config.model.num_classes
        return Labels(count, self.data.classes if count else (), self.config.train.label_dropout > 0)


def check_free(path: Path) -> None:
    """Raise UserError where a new run cannot have this folder; what a run killed at its birth left may lie there."""
    if path.exists() and not path.is_dir():
        raise UserError("out", path, "is a file", "name a folder")
    ours = ("data.json", ".lock")
    if path.is_dir() and any(not (e.name in ours or e.name.endswith(PARTIAL)) for e in path.iterdir()):
        raise UserError("out", path, "is not empty and holds no run", "name another folder")


def is_run(path: Path) -> bool:
    """Whether a folder holds a run."""
    return (path / "config.toml").is_file()


def _refuse(path: Path) -> None:
    """Raise UserError for a path that is no run; of one in a run it names that run."""
    if not path.exists():
        raise UserError("", path, "does not exist", "name the folder of a run")
    for parent in path.parents:
        with suppress(OSError):  # a folder that may not be looked into is none that is meant
            if is_run(parent) and (parent / "data.json").is_file():  # config.toml alone is a usual name
                raise UserError("", path, f"lies in the run {parent}", f"name {parent}")
    raise UserError("", path, "holds no run (config.toml is missing)", "name the folder of one")


def _config(folder: Path, run: str) -> Config:
    """The config of the ``run`` in a folder; UserError where config.toml or a setting in it is missing or wrong."""
    file = folder / "config.toml"
    tables, saved = toml.read(file), _saved(folder, run)
    if saved is None:
        return toml.from_dict(tables, str(file))
    kept, edited = toml.flat(saved), list[str]()
    for key, value in toml.flat(tables).items():
        if key in MAY_CHANGE:
            section, name = key.split(".")
            saved[section][name] = value
        elif kept.get(key) != value:
            edited.append(key)
    if edited:
        _warn(f"{file}: {', '.join(edited)}: edited in vain, a run keeps the settings that it was trained with")
    return toml.from_dict(saved, str(file))


def identity(config: Config) -> str:
    """SHA-256 (hex) of what a run keeps of its settings: weights of the same data and settings are of one run."""
    kept = {key: value for key, value in toml.flat(config).items() if key not in (*MAY_CHANGE, "recipe")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _saved(folder: Path, run: str) -> dict[str, Any] | None:
    """The config in the newest file of the ``run``'s weights, as nested dicts; None where none can be read."""
    files = [path for part in ("checkpoints", "weights") for path in (folder / part).glob("step-*.safetensors")]
    for path in sorted(files, key=lambda path: path.name, reverse=True):
        with suppress(OSError, SafetensorError, ValueError, TypeError, KeyError, RecursionError):
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata()
            text = metadata["unstir"]
            if hashlib.sha256(text.encode()).hexdigest() == metadata["text_sha256"]:
                saved = json.loads(text)
                if saved["data"].get("run", run) == run:  # imported weights know no data
                    return dict(saved["config"])
    return None


@cache
def _warn(text: str) -> None:
    """Log a warning once in a process, however often the run is opened."""
    logger.warning(text)
