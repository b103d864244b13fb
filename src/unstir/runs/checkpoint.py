"""One self-describing file a checkpoint: tensors, the whole config, what depends on history, and a hash of it all.

The format is safetensors, so that reading a file never runs it. Its metadata holds three entries: "unstir", canonical
JSON of all that is no tensor, "sha256", the `content_hash` of that and the tensors, and "text_sha256", a hash of the
JSON alone, so that `Run` reads settings without the tensors. The content is hashed rather than the file, because
safetensors orders its metadata at random.

Two kinds exist. A *full* file (checkpoints/) has all that training needs to continue bit for bit: "model.", "ema.",
"optimizer." and, where times are drawn by their losses, "times." tensors, and the "teacher." that a distilled run began
with. A *slim* one (weights/) has the weights to sample from, "model." alone. Both have the "power." averages of a run
that keeps some.
"""

import hashlib
import json
import logging
import platform
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unstir.data.disk import sync_folder
from unstir.diffusion.arithmetic import kernels
from unstir.errors import UserError, remedy
from unstir.randomness import VERSION
from unstir.runs import toml
from unstir.runs.config import MAY_CHANGE, Config, may_change
from unstir.runs.files import check, check_format, is_count, parsed, replacing, writing
from unstir.theory.averages import WIDTHS, combination

logger = logging.getLogger(__name__)

FORMAT = 10
_MOST_ERROR = 0.1  # of the profile of an average that is made of others, relative
NAME = re.compile(r"step-(\d+)\.safetensors")

FIELDS = {
    **dict.fromkeys(("config", "state", "environment", "data"), lambda value: isinstance(value, dict)),
    "step": is_count,
    "kind": ("full", "slim").__contains__,
    "ema": lambda value: isinstance(value, bool),
}
"""What the metadata holds besides the format, and of what kind each is."""


class DamagedError(UserError):
    """A file whose content is not what was written, or not what its place asks for."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file: the optimiser steps taken, the config as nested dicts, tensors by name, and history.

    ``state`` holds what depends on the past and is no tensor, as JSON values; ``ema`` tells whether the "model."
    tensors of a slim file are averages; ``environment`` names the torch build, device and threads that wrote it, and
    ``data`` says what it was trained on, as data.json does.
    """

    step: int
    config: dict[str, Any]
    tensors: Mapping[str, Tensor]
    state: dict[str, Any] = field(default_factory=dict)
    kind: str = "full"
    ema: bool = False
    environment: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose name starts with ``prefix`` and a dot, without them."""
        return {name[len(prefix) + 1 :]: t for name, t in self.tensors.items() if name.startswith(prefix + ".")}


def environment(device: torch.device) -> dict[str, Any]:
    """What bit-identity depends on besides the config, on CUDA the kernels too."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "torch": torch.__version__,
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
        "randomness": VERSION,
        **({"kernels": kernels(device)} if device.type == "cuda" else {}),
    }


def what_differs(there: dict[str, Any], here: dict[str, Any]) -> str:
    """What to say where a run that began in one `environment` goes on in another; "" where they are alike."""
    differing = [key for key, value in there.items() if here.get(key) != value]
    was, now = (", ".join(f"{key}={environment.get(key)}" for key in differing) for environment in (there, here))
    return f"the run goes on with {now}, where it had {was}: the result may differ" if differing else ""


def file_name(step: int) -> str:
    """The name of the file of a step; files sort by it, not by time."""
    return f"step-{step:08d}.safetensors"


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint into ``folder``, whole or not at all, and return its path; errors as `replacing`."""
    tensors, places = dict[str, Tensor](), set[int]()
    for name, tensor in checkpoint.tensors.items():
        t = tensor.detach().cpu().contiguous()
        place = t.untyped_storage().data_ptr()
        tensors[name] = t.clone() if place in places else t  # of one's own network weights may be tied
        places.add(place)
    text = _canonical(checkpoint)
    size = sum(t.numel() * t.element_size() for t in tensors.values()) + len(text)
    path = folder / file_name(checkpoint.step)
    if not folder.is_dir():
        with writing(folder):
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)
    with replacing(path, needs=size + 64 * len(tensors)) as partial:
        hashes = {"sha256": content_hash(tensors, text), "text_sha256": hashlib.sha256(text.encode()).hexdigest()}
        save_file(tensors, partial, {"unstir": text, **hashes})
    return path


def load(path: Path) -> Checkpoint:
    """Read and verify a checkpoint. Raises DamagedError for wrong content, UserError where it cannot be read."""
    try:
        metadata, tensors = read_tensors(path)
        content = content_hash(tensors, metadata.get("unstir", ""))
    except FileNotFoundError:
        raise UserError("", path, "does not exist") from None
    except OSError as error:
        raise UserError("", path, "cannot be read", remedy(error)) from None
    except (SafetensorError, ValueError, OverflowError, TypeError, AttributeError) as error:
        raise DamagedError("", path, f"is damaged: {error}") from None
    if "unstir" not in metadata:
        raise DamagedError("", path, "was not written by unstir: its metadata names no config")
    if metadata.get("sha256") != content:
        raise DamagedError("", path, "is damaged: its content does not match its SHA-256")
    return _parse(path, metadata["unstir"], tensors)


def is_ours(path: Path) -> bool:
    """Whether a safetensors file was written by unstir. Raises as `read_tensors`."""
    with safe_open(path, framework="pt") as file:
        return "unstir" in (file.metadata() or {})


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors, which may be views of the file, of any safetensors file. Raises as `safe_open`."""
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        return file.metadata() or {}, {name: file.get_tensor(name) for name in names}


def listed(folder: Path, run: str | None = None) -> list[tuple[int, Path]]:
    """(step, path) of every checkpoint file in a folder, by rising step; an absent folder has none.

    With the id of a ``run`` those of other runs are left out; what cannot be read is not.
    """
    matches = ((NAME.fullmatch(path.name), path) for path in folder.glob("step-*.safetensors"))
    files = sorted((int(match[1]), path) for match, path in matches if match)
    if run is None:
        return files
    said = {path: _said(path) for _, path in files}
    return [(step, path) for step, path in files if not said[path] or said[path]["data"].get("run") == run]


def newest(
    folder: Path, check: Callable[[Checkpoint], None] = lambda _: None, run: str | None = None
) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The full checkpoint with the highest step that verifies, and each newer file with why it was passed over.

    ``check`` raises DamagedError for one that cannot be continued from; its other errors are raised here. None where
    the folder holds no file (of this ``run``) at all; UserError where it holds some and none is whole.
    """
    problems: dict[Path, str] = {}
    for _, path in reversed(listed(folder, run)):
        try:
            loaded = load(path)
            if loaded.kind != "full":
                raise DamagedError("", path, "holds weights alone, with nothing to continue from")
            check(loaded)
            return loaded, problems
        except DamagedError as error:
            problems[path] = str(error) if str(path) in str(error) else f"{path}: {error}"
    if problems:
        reasons = "; ".join(problems.values())
        raise UserError("", folder, f"holds no whole file: {reasons}", "restore one, or delete them to start over")
    return None, {}


def set_aside(path: Path) -> None:
    """Rename a damaged file, so that it is neither taken for the newest nor counted among the kept."""
    path.replace(path.with_name(path.name + ".damaged"))


def keep_last(folder: Path, keep: int, run: str | None = None) -> None:
    """Delete all but the ``keep`` newest checkpoints of a folder (those of a ``run``)."""
    for _, path in listed(folder, run)[:-keep]:
        path.unlink(missing_ok=True)


def weights_of(found: Checkpoint, ema: bool) -> dict[str, Tensor]:
    """The weights to sample from in a checkpoint: averaged if asked and there; UserError for raw ones that are not."""
    if found.kind == "slim":
        if found.ema and not ema:
            other = {"ema": True}, "choose a step of checkpoints/"
            raise UserError("ema", False, f"finds averages alone at step {found.step}", other)
        return found.part("model")
    return (found.part("ema") if ema else {}) or found.part("model")


def power_average(
    found: Checkpoint, width: float, folder: Path, slim: list[tuple[int, Path]], load: Callable[[int], Checkpoint]
) -> dict[str, Tensor]:
    """The weights of a checkpoint of the run in ``folder``, averaged by a power function of any ``width``.

    ``load`` reads the ``slim`` files (`listed`) of earlier steps, whose power averages are used too
    (`theory.averages`). Raises UserError where the run keeps none, or those saved are too few to make this one.
    """
    step, own = found.step, found.part("model")
    if not found.part(f"power.{WIDTHS[0]}") or not step:
        without = f"needs power averages, which {folder} has not at step {step}"
        raise UserError("ema_width", width, without, "train with train.power_ema")
    steps = [*(earlier for earlier, _ in slim if earlier < step), step]
    shares, error = combination([(earlier, saved) for earlier in steps for saved in WIDTHS], (step, width))
    if error > _MOST_ERROR:
        wrong = f"has an error of {error:.0%} at step {step} of {folder}, above the {_MOST_ERROR:.0%} allowed"
        raise UserError("ema_width", width, wrong, f"take a width nearer to {WIDTHS[0]}..{WIDTHS[1]}")
    total, left = {name: torch.zeros_like(t, dtype=torch.float64) for name, t in own.items()}, iter(shares)
    for earlier in steps:
        file = found if earlier == step else load(earlier)
        for saved in WIDTHS:
            part, share = file.part(f"power.{saved}"), next(left)
            for name, t in total.items():
                t += share * part[name]
    return {name: t.to(own[name].dtype) for name, t in total.items()}


def misfits(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
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


def _canonical(checkpoint: Checkpoint) -> str:
    return json.dumps({"format": FORMAT, **{name: getattr(checkpoint, name) for name in FIELDS}}, sort_keys=True)


def _parse(path: Path, text: str, tensors: dict[str, Tensor]) -> Checkpoint:
    try:
        meta = parsed(text)
        check(meta, {"format": is_count})
        check_format(path, meta["format"], FORMAT)
        check(meta, FIELDS)
    except UserError:
        raise
    except ValueError as error:
        raise DamagedError("", path, f"is damaged: of its metadata, {error}") from None
    if (match := NAME.fullmatch(path.name)) and int(match[1]) != meta["step"]:
        raise DamagedError("", path, f"is damaged: it holds step {meta['step']}")
    return Checkpoint(tensors=tensors, **{name: meta[name] for name in FIELDS})


def content_hash(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """SHA-256 (hex) over ``text`` and every tensor's name, dtype, shape and bytes, in the order of the names."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].cpu()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def settings_of(folder: Path, run: str) -> Config:
    """The config of the ``run`` in a folder; UserError where config.toml or a setting in it is missing or wrong."""
    file = folder / "config.toml"
    tables, saved = toml.read(file), _saved(folder, run)
    if saved is None:
        return toml.from_dict(tables, str(file))
    kept, written = toml.flat(saved), toml.flat(tables)
    for section, name in (key.split(".") for key in MAY_CHANGE):
        if name in tables.get(section, {}):
            saved[section][name] = tables[section][name]
        elif name == "options":  # which is not written where it is empty
            saved[section].pop(name, None)
    if edited := [key for key in written if not may_change(key) and kept.get(key) != written[key]]:
        warn(f"{file}: {', '.join(edited)}: edited in vain, a run keeps the settings that it was trained with")
    return toml.from_dict(saved, str(file))


def _saved(folder: Path, run: str) -> dict[str, Any] | None:
    """The config in the newest file of the ``run``'s weights, as nested dicts; None where none can be read."""
    files = [file for part in ("checkpoints", "weights") for file in listed(folder / part, run)]
    said = (_said(path) for _, path in sorted(files, reverse=True))
    return next((meta["config"] for meta in said if meta), None)


def _said(path: Path) -> dict[str, Any]:
    """The metadata of a file, read without its tensors; empty where that cannot be."""
    with suppress(OSError, SafetensorError, ValueError, TypeError, KeyError):
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
        text = metadata["unstir"]
        if hashlib.sha256(text.encode()).hexdigest() == metadata["text_sha256"]:
            meta = parsed(text)
            check(meta, FIELDS)
            return meta
    return {}


@cache
def warn(text: str) -> None:
    """Log a warning once in a process, however often the run is opened."""
    logger.warning(text)
