"""A trained model as files of other programs, read again and compared before the folder gets its name."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from unstir.errors import UserError
from unstir.interop.compared import Network, check_equal, network_of
from unstir.interop.diffusers_folder import KEPT
from unstir.interop.diffusers_settings import to_diffusers, to_scheduler, to_unet2d
from unstir.interop.model_card import card, notes
from unstir.interop.onnx_file import OnnxNetwork, check_installed, write_onnx
from unstir.nn.unet import UNet
from unstir.parts import library
from unstir.progress import counting
from unstir.runs import build, checkpoint
from unstir.runs.checkpoint import Checkpoint, environment
from unstir.runs.files import check_new, new_folder, write_text, writing
from unstir.runs.model import Model
from unstir.runs.run import Run
from unstir.runs.sections import DiffusionConfig
from unstir.runs.toml import to_dict

Target = Literal["diffusers", "onnx", "safetensors"]
Writer = Callable[[Path], Network]  # writes into a folder, and returns the network read from there again


@dataclass(frozen=True)
class Exported:
    """The ``folder`` written, and the ``error``: the largest difference of outputs, in parts of the largest output."""

    folder: Path
    error: float
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """What was written, how well it agrees, and the notes."""
        agrees = f"its outputs are those of the model to {self.error:.1g} of the largest"
        files = list(self.folder.iterdir())
        written = files[0] if len(files) == 1 else self.folder  # which train.init takes
        return (f"exported {written}; {agrees}", *(f"note     {note}" for note in self.notes))


def export(model: Model, to: Target, folder: str | Path | None = None) -> Exported:
    """Write a model to a new folder, by default RUN/exported/TO-stepSTEP; ``to`` is what is to read it.

    "diffusers": DDPMPipeline and DDIMPipeline load it, and `unstir import`. "onnx": the network alone, for any batch.
    "safetensors": one slim file, as a run keeps them. Raises UserError, before anything is written, where the folder is
    not empty or cannot be made, that program has no such network, or the library is missing.
    """
    writers = {"diffusers": _diffusers, "onnx": _onnx, "safetensors": _safetensors}
    if to not in writers:
        raise UserError("to", to, "is unknown", f"choose one of {', '.join(get_args(Target))}")
    folder = Path(folder or model.folder / "exported" / f"{to}-step{model.step}")
    check_new(folder)
    with counting("exporting", ""):
        write = writers[to](model, folder.name)
        with new_folder(folder) as partial:
            error = check_equal(model, write(partial))
    return Exported(folder, error, notes(model) if to == "diffusers" else ())


def _diffusers(model: Model, name: str) -> Writer:
    """A pipeline's folder: model_index.json, unet/, scheduler/, and README.md that says how to draw."""
    of_its_own = ", and no scheduler of diffusers holds its number of calls"
    model.kind.check_means(model.folder, of_its_own, "export it to onnx or safetensors")
    diffusers, net = library("diffusers", "diffusers", "an export to diffusers"), model.denoiser.net
    if not isinstance(net, UNet):
        raise UserError("", model.folder, "has a network of its own, which diffusers does not know", {"to": "onnx"})
    if model.conditions is not None:
        raise UserError("", model.folder, "has a condition that diffusers' UNet2DModel does not know", {"to": "onnx"})
    weights = {name: t.cpu() for name, t in net.state_dict().items() if name != "augment.weight"}  # for training alone
    with torch.random.fork_rng(devices=[]):  # for the weights that are replaced
        unet = diffusers.UNet2DModel(**to_unet2d(net.config, *model.shape[1:]))
    unet.load_state_dict(to_diffusers(weights))
    settings = to_scheduler(DiffusionConfig(**model.settings["diffusion"]), model.chain)
    pipeline = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(**settings))

    def write(folder: Path) -> Network:
        with writing(folder):
            pipeline.save_pretrained(folder)
        write_text(folder / "README.md", card(model, name))
        if model.labels.count or model.data.scale.is_float:
            kept = {"classes": model.labels.names, "has_null": model.labels.has_null, "scale": model.data.scale.pairs}
            write_text(folder / KEPT, json.dumps(kept, indent=1) + "\n")
        with torch.random.fork_rng(devices=[]):
            unet = diffusers.UNet2DModel.from_pretrained(
                folder / "unet", local_files_only=True, low_cpu_mem_usage=False
            )
        return lambda x, t, label: unet(x, t, class_labels=label).sample

    return write


def _onnx(model: Model, name: str) -> Writer:
    """model.onnx, the network with its settings in the metadata; README.md and sample.py, which draws with it."""
    check_installed("an export to ONNX")
    readme = Path(__file__).with_name("onnx.md").read_text(encoding="utf-8")

    def write(folder: Path) -> Network:
        with writing(folder / "model.onnx"):
            write_onnx(model, folder / "model.onnx")
        write_text(folder / "README.md", readme)
        write_text(folder / "sample.py", readme.partition("```python\n")[2].removesuffix("```\n"))
        return OnnxNetwork(folder / "model.onnx")

    return write


def _safetensors(model: Model, name: str) -> Writer:
    if not model.run:
        raise UserError("to", "safetensors", "is of a run, which this model has not", "make one with Run.create")
    run = Run.open(model.run)

    def write(folder: Path) -> Network:
        again = build.network(run.config, torch.device("cpu")).eval()
        again.load_state_dict(checkpoint.load(checkpoint.save(folder, slim(model, run))).part("model"))
        return network_of(build.denoiser(run.config, again, torch.float32))

    return write


def slim(model: Model, run: Run) -> Checkpoint:
    """The weights of a model as a run keeps them to sample from, with its errors by time, if they were measured."""
    tensors = {f"model.{name}": t for name, t in model.denoiser.net.state_dict().items()}
    tensors |= {} if model.errors is None else {"errors": model.errors}
    kind: dict[str, Any] = {"kind": "slim", "ema": bool(model.averaged), "environment": environment(model.device)}
    return Checkpoint(model.step, to_dict(run.config), tensors, data=run.data.plain(), **kind)
