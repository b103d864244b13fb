"""A run is a folder that needs nothing else; docs/run-folder.md lists what lies in it."""

import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from unstir.chain import DEFAULTS, Chain
from unstir.data.disk import held
from unstir.diffusion.denoiser import Denoiser
from unstir.errors import UserError, quoted
from unstir.parts import find
from unstir.pixels import PIXELS, Scale
from unstir.runs import brought, build, card, checkpoint, toml
from unstir.runs.card import CONDITIONS, DataCard, Labels
from unstir.runs.checkpoint import Checkpoint, content_hash, misfits, power_average, settings_of, weights_of
from unstir.runs.config import Config, steps_in
from unstir.runs.files import PARTIAL, make_folder, remove_partials, write_text
from unstir.runs.model import Model
from unstir.runs.named import PREFIX, located, names_run, run_and_step
from unstir.runs.toml import is_run
from unstir.theory.process import Process

if TYPE_CHECKING:
    from unstir.data.store import Store
    from unstir.runs.conditions import Conditions
    from unstir.runs.lines import Log

logger = logging.getLogger(__name__)

LOCK = ".lock"  # there while a process holds the run, and after one that was killed
LOGS = tuple(f"{log}.jsonl" for log in ("metrics", "held_out", "errors", "events"))
OWN = "config.toml", card.NAME, CONDITIONS, *LOGS, "curves.png", "losses.png"
"""The files of a run's folder that only the holder of its lock writes."""
FOLDERS = "checkpoints", "weights", "samples", "generated", "evaluation", "likelihood", "edits", "onnx"
"""The folders that may be in it. None may be a link: old files are deleted there, perhaps those of another run."""


@dataclass(frozen=True)
class Run:
    """The folder of a run, its config and what its data is like; and the models trained in it."""

    path: Path
    config: Config
    data: DataCard
    shipped: Path | None = None  # where a run that comes with unstir is read; what is made of it goes to path

    @classmethod
    def create(
        cls,
        folder: str | Path,
        network: nn.Module,
        process: Process,
        data: "Store | tuple[int, int, int]",
        *,
        predict: str = "eps",
        learned_variance: bool = False,
        classes: Sequence[str] = (),
        has_null: bool = False,
        conditions: "Conditions | None" = None,
        scale: Scale = PIXELS,
        options: Mapping[str, Any] = MappingProxyType({}),
        step: int = 0,
        chain: Chain | None = None,
    ) -> Self:
        """Make a run of a network that was trained elsewhere, such as in a loop of one's own.

        ``network`` is a `UNet`, or of a class that `unstir.network` decorates, made with these ``options``. It learned
        ``predict``, "eps", "x0" or "v", on ``process``, of any schedule. ``data`` is its store, or the shape (C, H, W)
        of its images, in units where a ``scale`` is given. ``classes`` are the names of its labels, by number; with
        ``has_null`` it knows one more, which says nothing. ``conditions`` are vectors or images in the place of labels
        (`Conditions.of`). ``step`` counts its optimiser steps, and ``chain`` is how the run is sampled by default.
        Raises UserError, before the folder is made, where the network cannot be made again with these weights.
        """
        store, shape = (None, data) if isinstance(data, tuple) else (data, data.shape)
        data_card = brought.data_card(store, shape, tuple(classes), scale)
        weights = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
        config = brought.settings(
            brought.of_network(network, shape[0], len(classes), conditions, dict(options)),
            brought.of_process(process, predict, learned_variance),
            chain or brought.usual_chain(process),
            shape[1:],
            origin=f"{type(network).__name__}, trained elsewhere, SHA-256 {content_hash(weights)}",
            has_null=has_null,
            conditions=conditions,
            store=str(store.path.resolve()) if store else "",
        )
        brought.check_fit(config, weights)
        run = cls.begin(config, Path(folder), data_card, conditions)
        run.keep(weights, step)
        return run

    @classmethod
    def begin(cls, config: Config, path: Path, data: DataCard, conditions: "Conditions | None" = None) -> Self:
        """Make the folder of a new run with an id of its own, which keeps any ``conditions``; UserError where that
        cannot be."""
        check_free(path)
        if conditions is not None:
            conditions.keep(make_folder(path))
            data = replace(data, condition=conditions.card)
        run = cls(make_folder(path), config, replace(data, run=secrets.token_hex(8)))
        card.save(path, run.data)
        run.save_config()  # last: a folder with a config is a run
        return run

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run folder, or a model that comes with unstir; UserError where there is none, a broken one or both."""
        shipped = located(path := Path(path))
        folder = shipped or path
        if not is_run(folder):
            problem = "holds no run (config.toml is missing)" if path.exists() else "does not exist"
            raise UserError("", path, problem, "name the folder of a run")
        if link := next((folder / name for name in FOLDERS if (folder / name).is_symlink()), None):
            raise UserError("", link, "is a link, and a run writes in its folder alone", "move it here")
        data = card.load(folder)  # first: its number says whether this version reads the rest
        return cls(Path(folder.name) if shipped else path, settings_of(folder, data.run), data, shipped)

    @property
    def name(self) -> str:
        """The run as `open` takes it."""
        return str(self.path) if self.shipped is None else f"{PREFIX}{self.shipped.name}"

    @property
    def files(self) -> Path:
        """The folder of what was trained."""
        return self.shipped or self.path

    @property
    def checkpoints(self) -> Path:
        """The folder of full checkpoints."""
        return self.files / "checkpoints"

    @property
    def weights(self) -> Path:
        """The folder of slim weight files."""
        return self.files / "weights"

    @property
    def samples(self) -> Path:
        """The folder of grids."""
        return self.files / "samples"

    def log_file(self, name: str) -> Path:
        """The file of the "metrics", "held_out", "events" or "errors", a JSON object a line."""
        return self.files / f"{name}.jsonl"

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training split; the last partial one is dropped."""
        return self.data.counts["train"] // self.config.train.batch_size

    def steps_in(self, span: str) -> int:
        """How many optimiser steps of this run a span such as "20 epochs" is."""
        return steps_in(span, self.steps_per_epoch, self.config.train.batch_size)

    def images_seen(self, step: int) -> int:
        """How many training images the steps up to ``step`` take; 0 where it was trained elsewhere."""
        return step * self.config.train.batch_size if self.config.kind.trained_here else 0

    @property
    def length(self) -> int:
        """The optimiser steps of the whole run; none where it was trained elsewhere."""
        return self.steps_in(self.config.train.length) if self.config.kind.trained_here else 0

    @property
    def going_on(self) -> str:
        """What to type for a new run that begins with the weights of this one."""
        length = "" if self.config.kind.trained_here else "--train.length LENGTH --train.warmup LENGTH "
        begin = f"unstir train {quoted(self.files / 'config.toml')} --train.init {quoted(self.name)}"
        return f"{begin} --data.source IMAGES {length}--out NEW"

    def save_config(self) -> None:
        """Write config.toml."""
        write_text(self.path / "config.toml", toml.to_toml(self.config))

    def log(self, name: str) -> "Log":
        """The lines of a `log_file`, and what of it is damaged or foreign."""
        from unstir.runs import lines

        return lines.read(self.log_file(name), lines.NAMES[name], self.data.run)

    def metrics(self) -> list[dict[str, Any]]:
        """The good lines of metrics.jsonl."""
        return list(self.log("metrics").lines)

    def held_out(self) -> list[dict[str, Any]]:
        """The good lines of held_out.jsonl (`train.held_out`)."""
        return list(self.log("held_out").lines)

    def record(self, event: str, **details: Any) -> None:
        """Add a line to events.jsonl, durably; UnwrittenError where it cannot be written."""
        from unstir.runs import lines

        lines.append(self.log_file("events"), {"event": event, **details, "run": self.data.run}, durable=True)

    def keep(self, weights: Mapping[str, Tensor], step: int = 0, **event: Any) -> None:
        """Save weights that were trained elsewhere as those of a ``step``, and log the ``event`` that brought them."""
        known, tensors = self.data.plain(), {f"model.{name}": t for name, t in weights.items()}
        checkpoint.save(self.weights, Checkpoint(step, toml.to_dict(self.config), tensors, kind="slim", data=known))
        self.record("imported", **event)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run in this block; UserError where another process has it."""
        busy = UserError("out", self.path, "is being trained by another process", "wait for it, or name another folder")
        with held(self.path / LOCK, busy):
            yield

    def tidy(self) -> None:
        """Remove what a killed process left half written; only the holder of the lock may."""
        for name in OWN:
            remove_partials(self.path, name)
        for folder in (self.checkpoints, self.weights, self.samples):
            remove_partials(folder)
            for file in folder.glob(".tmp*"):  # safetensors writes to .tmp first
                file.unlink(missing_ok=True)

    def chain(self) -> Chain:
        """How the run's grids are sampled, which is the default for other samples from it."""
        return Chain(**{name: getattr(self.config.grids, name) for name in DEFAULTS})

    @property
    def labels(self) -> Labels:
        """The labels that the run's network knows."""
        count = self.config.model.num_classes
        return Labels(count, self.data.classes if count else (), count > 0 and self.config.train.condition_dropout > 0)

    @property
    def conditions(self) -> "Conditions | None":
        """What describes each image to the network beside a class; None where nothing does."""
        data, card, hides = self.config.data, self.data.condition, self.config.train.condition_dropout > 0
        if card is None:
            return None
        from unstir.runs.conditions import Conditions, read_kept

        kept = partial(read_kept, self.files, card.sha256)
        return Conditions(data.condition, data.condition_options, card, hides, kept)

    def newest_step(self) -> int:
        """The highest step at which weights were saved; UserError where none were."""
        if steps := self.saved_steps():
            return steps[-1]
        raise UserError("", self.path, "has no weights of its own", f"go on: unstir train --out {quoted(self.path)}")

    def saved_steps(self) -> list[int]:
        """The steps at which weights can be loaded, rising."""
        return sorted({step for step, _ in self.saved})

    @property
    def saved(self) -> list[tuple[int, Path]]:
        """(step, path) of each full checkpoint of the run and of each slim file; of every step the full one first."""
        folders = self.checkpoints, self.weights
        return [file for folder in folders for file in checkpoint.listed(folder, self.data.run)]

    def model(
        self,
        step: int | Literal["best"] | Checkpoint | None = None,
        *,
        ema: bool | float = True,
        device: str = "auto",
        dtype: str = "float32",
        compile: str = "no",
        guide: str | Model | None = None,
    ) -> Model:
        """The trained model: of the newest file that verifies, of one ``step`` as `load`, or of what was loaded.

        ``ema`` takes the averaged weights where the run has them; a number is the width of another average, a fraction
        of the training so far, made of those that a run with train.power_ema keeps. Under "bfloat16" the weights of the
        U-Net are cast once. ``compile`` is "no", "yes" or "graphs" (`build`). ``guide`` is what guidance leads away
        from: a model, "1000" for a step of the same run, "runs/small" for the newest weights of another,
        "runs/small@1000" for a step of it. Raises UserError where nothing was saved, or not that step, a slim file has
        no raw weights, the averages do not make the one asked for, the device or a compiler is absent, or the guide is
        none of these or does not fit.
        """
        how: dict[str, Any] = {"ema": ema, "device": device, "dtype": dtype, "compile": compile}
        file, on = step if isinstance(step, Checkpoint) else self.load(step), build.device(device)
        find("network", self.config.model.type)  # one of the user's own is refused before anything is drawn
        build.check_compile(compile, on)
        build.dtype_name(dtype, on)  # which refuses another
        if isinstance(ema, bool):
            weights = weights_of(file, ema)
        else:
            weights = power_average(file, ema, self.files, checkpoint.listed(self.weights, self.data.run), self.load)
        kept = self.config.train.ema_decay > 0 and (self.config.kind.trained_here or file.ema)
        model = Model(
            load=partial(_denoiser, self, file.step, weights, on),
            step=file.step,
            weights_sha256=(hash_ := content_hash(weights)),
            errors=file.tensors.get("errors", build.errors_by_time(self.config, self.log("errors").lines, hash_)),
            averaged=ema and kept if isinstance(ema, bool) else ema,
            **(how | {"device": on}),
            **_of(self),
        )
        return model if guide is None else replace(model, guide=self.guide(guide, **how))

    def guide(self, named: object, **how: Any) -> Model:
        """The model that a guide names, as `model` reads it; ``how`` are the options of `model`.

        A guide whose run keeps no averages to make one of another width of has its ordinary average.
        """
        if isinstance(named, Model):
            return named
        try:
            if not isinstance(named, str):
                raise UserError("guide", named, "is no text and no Model", 'give "1000", "RUN" or "RUN@1000"')
            folder, step = ("", int(named)) if named.isdecimal() else run_and_step(named)
            if step is None and not names_run(folder):
                raise UserError("guide", named, "is neither a step nor a run", "give 1000, RUN or RUN@1000")
            of = Run.open(folder) if folder else self
            if not of.config.train.power_ema:
                how["ema"] = bool(how.get("ema", True))
            return of.model(step, **how)
        except UserError as error:
            raise error if error.key == "guide" else UserError("guide", named, f"cannot be used: {error}") from None

    def load(self, step: int | Literal["best"] | None = None) -> checkpoint.Checkpoint:
        """The newest file that verifies, full or slim, or that of one saved step; "best" is `lines.best_step`.

        Logged is where no file of a newer step could be read. Raises UserError as `model`.
        """
        files, problems = self.saved, list[str]()
        steps = sorted({step_of for step_of, _ in files}) or [self.newest_step()]  # which says that none was saved
        if step == "best":
            from unstir.runs.lines import best_step

            step = best_step(self.files, steps, self.held_out())
        if step not in (None, *steps):
            raise UserError("step", step, "was not saved", f"{self.path} has {', '.join(map(str, steps))}")
        for candidate in reversed(steps) if step is None else [step]:
            newer = "; ".join(problems)
            for path in [path for step_of, path in files if step_of == candidate]:
                try:
                    loaded = checkpoint.load(path)
                except UserError as error:
                    problems.append(str(error))
                    continue
                if newer:
                    logger.warning(f"{newer}; an earlier step is used")
                return loaded
        raise UserError("; ".join(problems))


def check_free(path: Path) -> None:
    """Raise UserError where a new run cannot have this folder; what a run killed at birth left may lie there."""
    if path.exists() and not path.is_dir():
        raise UserError("out", path, "is a file", "name a folder")
    ours = (card.NAME, CONDITIONS, LOCK)
    if path.is_dir() and any(not (e.name in ours or e.name.endswith(PARTIAL)) for e in path.iterdir()):
        raise UserError("out", path, "is not empty", "name another folder")


def _denoiser(run: Run, step: int, weights: dict[str, Tensor], on: torch.device, arithmetic: torch.dtype) -> Denoiser:
    net = build.network(run.config, on)
    if wrong := misfits(net.state_dict(), weights):
        unfit = f"has weights of step {step} that do not fit the network: {'; '.join(wrong[:3])}"
        raise UserError("", run.path, unfit, "use the same [model] settings")
    net.load_state_dict(weights)
    net.eval().requires_grad_(False)
    if not run.config.model.is_unet:  # one of the user's own gets float32 images, as in training
        return build.denoiser(run.config, net, arithmetic)
    return build.denoiser(run.config, net.to(arithmetic), torch.float32)


def model_in_training(run: Run, denoiser: Denoiser, step: int) -> Model:
    """The model that a run is training, with the denoiser as it is after ``step``; its weights have no hash."""
    device, averaged = next(denoiser.net.parameters()).device, run.config.train.ema_decay > 0
    errors = build.errors_by_time(run.config, run.log("errors").lines, content_hash(denoiser.net.state_dict()))
    how: dict[str, Any] = {"averaged": averaged, "device": device, "errors": errors, **_of(run)}
    return Model(load=lambda _: denoiser, step=step, weights_sha256="", **how)


def _of(run: Run) -> dict[str, Any]:
    """What every model of a run is alike in."""
    diffusion, settings = run.config.diffusion, toml.to_dict(run.config)
    return {
        "process": Process(build.schedule(diffusion)),
        "predict": diffusion.predict,
        "learned_variance": diffusion.learned_variance,
        "data": run.data,
        "labels": run.labels,
        "conditions": run.conditions,
        "chain": run.chain(),
        "folder": run.path,
        "run": run.name,
        "settings": {"model": settings["model"], "diffusion": settings["diffusion"]},
        "nrow": run.config.grids.nrow,
        "channels": run.config.grids.channels,
        "kind": run.config.kind,
    }
