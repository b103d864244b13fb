"""A run is a folder that needs nothing else.

config.toml         every setting, resolved
data.json           shape, classes, counts and content hash of the data it learns from, with a checksum
metrics.jsonl       a line a log step; identical however often the run was interrupted, timing fields aside
events.jsonl        starts, continuations and stops, with what changed and on which machine; logs have a checksum a line
checkpoints/        the last few full checkpoints, to continue from
weights/            slim files of chosen moments, to sample from
samples/            grids drawn at the same moments, always from the same noise
held_out.jsonl      a line at the same moments: losses of the same training and held-out images, identical like metrics
curves.png          loss, gradient norm and learning rate; losses.png: those of held_out.jsonl
"""

import fcntl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from unstir.chain import DEFAULTS, Chain
from unstir.diffusion.denoiser import Denoiser
from unstir.errors import UserError, remedy
from unstir.pictures.caption import of_class
from unstir.runs import build, card, checkpoint, lines, logs, toml
from unstir.runs.agreement import changed_grids, check_same
from unstir.runs.card import DataCard
from unstir.runs.config import Config, steps_in
from unstir.runs.files import PARTIAL, make_folder, remove_partials, write_text


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
        make_folder(path)
        run = cls(path, config, data)
        card.save(path, data)
        run.save_config()  # last: a folder with a config is a run
        return run

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open a run folder. Raises UserError where it holds no run or a broken one."""
        path = Path(path)
        if not is_run(path):
            raise UserError(f"{path} holds no run (config.toml is missing); name the folder of one")
        return cls(path, toml.load(path / "config.toml"), card.load(path))

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

    def log(self, name: str) -> lines.Log:
        """The "metrics", "held_out" or "events" of the run, with what of the file is damaged."""
        return logs.read(self.path, name)

    def metrics(self) -> list[dict[str, Any]]:
        """The good lines of metrics.jsonl."""
        return list(self.log("metrics").lines)

    def held_out(self) -> list[dict[str, Any]]:
        """The good lines of held_out.jsonl (`train.held_out`)."""
        return list(self.log("held_out").lines)

    def record(self, event: str, **details: Any) -> None:
        """Add a line to events.jsonl; UserError where it cannot be written."""
        lines.append(self.path / "events.jsonl", {"event": event, **details})

    def problems(self, loaded: checkpoint.Checkpoint | None = None) -> list[str]:
        """What is wrong with the run's own files, a sentence each: damaged log lines, settings that are not its own.

        The settings and data are compared with those of ``loaded``, by default of the newest file that verifies.
        """
        of_run = {name: self.log(name) for name in logs.NAMES}
        found = [f"{log.problem}; {logs.REMEDY} {self.path}" for log in of_run.values() if log.damaged]
        try:
            loaded = loaded or (self.load() if self.saved_steps() else None)
            if loaded is not None:
                found += logs.cut(of_run, loaded)
                check_same(self, loaded)
        except UserError as error:
            found.append(str(error))
        return found

    def lock(self) -> TextIO:
        """Take the run for this process until the file returned is closed; UserError where another process has it.

        The kernel frees the lock when its holder dies, so a stale one cannot exist.
        """
        try:
            file = (self.path / ".lock").open("w")
        except OSError as error:
            raise UserError(f"cannot write in {self.path}: {remedy(error)}") from None
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
            remove_partials(folder)
            for partial in folder.glob(".tmp*"):  # safetensors writes to .tmp first
                partial.unlink(missing_ok=True)

    def chain(self) -> Chain:
        """How the run's grids are sampled, which is the default for other samples from it."""
        return Chain(**{name: getattr(self.config.grids, name) for name in DEFAULTS})

    def labels_of(self, indices: Tensor) -> Tensor | None:
        """Each class in turn for the images with these indices, int64 [B]; None where the network knows no classes."""
        classes = self.config.model.num_classes
        return indices % classes if classes else None

    def class_names(self, labels: Tensor | None) -> list[str] | None:
        """The names for pictures of classes, int64 [B] as `labels_of` gives them; None where the network knows none."""
        return None if labels is None else [of_class(label, self.data.classes[label]) for label in labels.tolist()]

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
        check_same(self, found)
        on = build.device(device)
        arithmetic = build.dtype(dtype, on)
        net = build.network(self.config, on)
        load_into(net, weights_of(found, ema), f"{self.path}: step {found.step}")
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

        So it does where the settings or the data beside the file are not those that it was trained with.

        ``say`` is called with a sentence where no file of a newer step could be read, and on [grids] settings that are
        not those of the file.
        """
        steps = self._saved()
        if step is not None and step not in steps:
            raise UserError(f"step {step} was not saved; {self.path} has {', '.join(map(str, steps))}")
        problems: list[str] = []
        told = False
        for candidate in [step] if step is not None else reversed(steps):
            if problems and say is not None and not told:
                say(f"{'; '.join(problems)}; an earlier step is used")
                told = True
            for folder in (self.checkpoints, self.weights):
                try:
                    found = checkpoint.load(folder / checkpoint.file_name(candidate))
                except UserError as error:
                    problems.append(str(error))
                    continue
                check_same(self, found)
                if say is not None and (changed := changed_grids(self, found)):
                    say(changed)
                return found
        raise UserError("; ".join(problems))


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


def misfits(own: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> list[str]:
    """What keeps weights from being those of a network that has ``own``, a phrase a tensor; empty where they fit."""
    wrong = [f"{name} is missing" for name in own if name not in weights]
    wrong += [f"{name} is unknown" for name in weights if name not in own]
    wrong += [
        f"{name} is {list(weights[name].shape)}, the network's is {list(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    return wrong + [
        f"{name} is {t.dtype}, not floating point" for name, t in weights.items() if not t.is_floating_point()
    ]


def load_into(net: torch.nn.Module, weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Load weights into a network of the same structure; UserError naming the first tensors that do not fit."""
    if wrong := misfits(net.state_dict(), weights):
        raise UserError(f"{source} does not fit the network: {'; '.join(wrong[:3])}; use the same [model] settings")
    net.load_state_dict(dict(weights))


def weights_of(found: checkpoint.Checkpoint, ema: bool) -> dict[str, torch.Tensor]:
    """The weights to sample from in a checkpoint: averaged if asked and there; UserError for raw ones that are not."""
    if found.kind == "slim":
        if found.ema and not ema:
            raise UserError(
                f"step {found.step} was kept as averages alone; leave out --no-ema or choose a step of checkpoints/"
            )
        return found.part("model")
    return (found.part("ema") if ema else {}) or found.part("model")
