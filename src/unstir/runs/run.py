"""A run is a folder that needs nothing else.

config.toml         every setting, resolved
data.json           shape, classes, counts and content hash of the data it learns from
metrics.jsonl       a line a log step; identical however often the run was interrupted, timing fields aside
events.jsonl        starts, continuations and stops, with what changed and on which machine
checkpoints/        the last few full checkpoints, to continue from
weights/            slim files of chosen moments, to sample from
samples/            grids drawn at the same moments, always from the same noise
held_out.jsonl      a line at the same moments: losses of the same training and held-out images, identical like metrics
curves.png          loss, gradient norm and learning rate; losses.png: those of held_out.jsonl
"""

import dataclasses
import fcntl
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from unstir.diffusion.denoiser import Denoiser
from unstir.diffusion.draw import Chain
from unstir.errors import UserError
from unstir.runs import build, checkpoint, toml
from unstir.runs.config import Config, may_change, steps_in
from unstir.runs.files import PARTIAL, write_text


@dataclass(frozen=True)
class DataCard:
    """What a run remembers of its data: image shape (C, H, W), class names, counts by split, and the content's hash."""

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    counts: dict[str, int]
    content_hash: str


@dataclass(frozen=True)
class Run:
    """A run folder and its config."""

    path: Path
    config: Config
    data: DataCard

    @classmethod
    def create(cls, config: Config, path: Path, data: DataCard) -> "Run":
        """Make the folder of a new run. Raises UserError where ``path`` holds something else or cannot be written."""
        check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {path}: {error.strerror}; name another with --out") from None
        run = cls(path, config, data)
        write_text(path / "data.json", json.dumps(dataclasses.asdict(data), indent=1) + "\n")
        run.save_config()  # last: a folder with a config is a run
        return run

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open a run folder. Raises UserError where it holds no run or a broken one."""
        path = Path(path)
        if not is_run(path):
            raise UserError(f"{path} holds no run (config.toml is missing); name the folder of one")
        file = path / "data.json"
        if not file.exists():
            raise UserError(f"{path} is not a whole run: {file.name} is missing; restore it, or train anew elsewhere")
        try:
            card = json.loads(file.read_text(encoding="utf-8"))
            data = DataCard(tuple(card["shape"]), tuple(card["classes"]), card["counts"], card["content_hash"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"cannot read {file}: {error}") from None
        return cls(path, toml.load(path / "config.toml"), data)

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
        """The file of losses of images kept aside, a JSON object a look."""
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
        """The optimiser steps of the whole run."""
        return self.steps_in(self.config.train.length)

    def save_config(self) -> None:
        """Write config.toml."""
        write_text(self.path / "config.toml", toml.to_toml(self.config))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, by rising step, up to one that is none: cut short by a kill, or damaged."""
        return _lines(self.metrics_file)

    def held_out(self) -> list[dict[str, Any]]:
        """The lines of held_out.jsonl (`train.held_out`), read as `metrics` are."""
        return _lines(self.held_out_file)

    def record(self, event: str, **details: Any) -> None:
        """Add a line to events.jsonl."""
        with (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **details}) + "\n")

    def lock(self) -> TextIO:
        """Take the run for this process until the file returned is closed; UserError where another process has it.

        The kernel frees the lock when its holder dies, so a stale one cannot exist.
        """
        try:
            file = (self.path / ".lock").open("w")
        except OSError as error:
            raise UserError(f"cannot write in {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise UserError(
                f"{self.path} is being trained by another process; wait for it or name another --out"
            ) from None
        return file

    def tidy(self) -> None:
        """Remove what a killed process left half written; only the holder of the lock may."""
        for folder in (self.path, self.checkpoints, self.weights, self.samples):
            for partial in (*folder.glob(f".*{PARTIAL}"), *folder.glob(".tmp*")):  # safetensors writes to .tmp first
                partial.unlink(missing_ok=True)

    def chain(self) -> Chain:
        """How the run's grids are sampled, which is the default for other samples from it."""
        grids = self.config.grids
        names = [field.name for field in dataclasses.fields(Chain) if hasattr(grids, field.name)]
        return Chain(**{name: getattr(grids, name) for name in names})

    def labels_of(self, indices: Tensor) -> Tensor | None:
        """Each class in turn for the images with these indices, int64 [B]; None where the network knows no classes."""
        classes = self.config.model.num_classes
        return indices % classes if classes else None

    def class_names(self, labels: Tensor | None) -> list[str] | None:
        """The names of classes, int64 [B] as `labels_of` gives them; None where the network knows none."""
        return None if labels is None else [self.data.classes[label] for label in labels.tolist()]

    def hidden_labels(self, indices: Tensor) -> Tensor | None:
        """The label that says nothing, for each index, int64 [B]; None where the network was not trained with it."""
        return torch.full_like(indices, self.config.model.num_classes) if self.config.train.label_dropout else None

    def newest_step(self) -> int:
        """The highest step at which weights were saved; UserError where none were."""
        return self._saved()[-1]

    def saved_steps(self) -> list[int]:
        """The steps at which weights can be loaded, rising."""
        return sorted({step for folder in (self.checkpoints, self.weights) for step, _ in checkpoint.listed(folder)})

    def denoiser(
        self,
        *,
        ema: bool = True,
        step: int | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        loaded: checkpoint.Checkpoint | None = None,
    ) -> Denoiser:
        """The trained denoiser in evaluation mode: of the newest file that verifies, or of one saved ``step``.

        ``loaded`` spares reading a checkpoint that is at hand. ``ema`` takes the averaged weights where the run has
        them. Under "bfloat16" the weights are cast once. Raises UserError where nothing was saved, or not that step,
        or a slim file has no raw weights.
        """
        found = loaded or self.load(step)
        on = build.device(device)
        arithmetic = build.dtype(dtype, on)
        net = build.network(self.config, on)
        net.load_state_dict(weights_of(found, ema))
        net.eval().requires_grad_(False)
        if arithmetic == torch.bfloat16:
            net.to(arithmetic)
        return build.denoiser(self.config, net, torch.float32)

    def _saved(self) -> list[int]:
        steps = self.saved_steps()
        if not steps:
            raise UserError(f"{self.path} has no saved weights yet; continue it with unstir train --out {self.path}")
        return steps

    def load(self, step: int | None = None, say: Callable[[str], None] | None = None) -> checkpoint.Checkpoint:
        """The newest file that verifies, full or slim, or that of one saved step. Raises UserError as `denoiser`.

        ``say`` hears of a newer step none of whose files could be read.
        """
        steps = self._saved()
        if step is not None and step not in steps:
            raise UserError(f"step {step} was not saved; {self.path} has {', '.join(map(str, steps))}")
        problems: list[str] = []
        for candidate in [step] if step is not None else reversed(steps):
            if problems and say is not None:
                say(f"{'; '.join(problems)}; an earlier step is used")
                say = None
            for folder in (self.checkpoints, self.weights):
                try:
                    return checkpoint.load(folder / checkpoint.file_name(candidate))
                except UserError as error:
                    problems.append(str(error))
        raise UserError("; ".join(problems))


def _lines(file: Path) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    with suppress(ValueError, KeyError, TypeError):
        for text in file.read_bytes().splitlines() if file.exists() else ():
            lines.append({**(line := json.loads(text)), "step": index(line["step"])})
    return lines


def check_free(path: Path) -> None:
    """Raise UserError where a new run cannot have this folder; what a run killed at its birth left may lie there."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; name a folder with --out")
    ours = ("data.json", ".lock")
    if path.is_dir() and any(not (e.name in ours or e.name.endswith(PARTIAL)) for e in path.iterdir()):
        raise UserError(f"{path} is not empty and holds no run; name another folder with --out")


def is_run(path: Path) -> bool:
    """Whether a folder holds a run."""
    return (path / "config.toml").is_file()


def compare(saved: Config, asked: Config) -> dict[str, Any]:
    """What ``asked`` would change in a run, by dotted keys; UserError for one that must not change."""
    old, new = toml.flat(saved), toml.flat(asked)
    changed = {key: new.get(key) for key in {**old, **new} if old.get(key) != new.get(key) and key != "recipe"}
    if fixed := [key for key in changed if not may_change(key)]:
        differences = ", ".join(f"{key} is {old.get(key)!r} in the run, {new.get(key)!r} was asked" for key in fixed)
        raise UserError(
            f"a run keeps its settings: {differences}; leave out what differs, or start another run with "
            "--out (unstir train --help lists what may change)"
        )
    return changed


def weights_of(found: checkpoint.Checkpoint, ema: bool) -> dict[str, torch.Tensor]:
    """The weights to sample from in a checkpoint: averaged if asked and there; UserError for raw ones that are not."""
    if found.kind == "slim":
        if found.ema and not ema:
            raise UserError(
                f"step {found.step} was kept as averages alone; leave out --no-ema or choose a step of checkpoints/"
            )
        return found.part("model")
    return (found.part("ema") if ema else {}) or found.part("model")
