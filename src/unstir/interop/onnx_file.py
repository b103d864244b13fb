"""The network of a model as an ONNX file (docs/interop.md), and ONNX Runtime in the place of torch."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unstir.data.disk import file_sha256
from unstir.diffusion.augmentation import unaugmented
from unstir.diffusion.denoiser import Denoiser
from unstir.errors import UserError
from unstir.interop.compared import check_equal, fresh_condition
from unstir.parts import library
from unstir.runs.files import make_folder, replacing, write_text
from unstir.runs.model import Model

_ENGINE = "the engine onnxruntime"
_MOST = 200  # characters of what torch and ONNX Runtime say
_TRACED = 2  # images that the network is traced with; 1 would be taken for a constant


def check_installed(purpose: str) -> None:
    """Raise UserError where the libraries of the extra are missing, which ``purpose`` needs."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        library(name, "onnx", purpose)


def write_onnx(model: Model, file: Path) -> None:
    """Write the network of a model and its description. Raises UserError where torch cannot export it."""
    denoiser = model.denoiser
    net = _Unaugmented(denoiser.net) if denoiser.needs_augmentation else denoiser.net
    x, t = torch.zeros(_TRACED, *model.shape), torch.zeros(_TRACED, dtype=torch.int64)
    given, batch = _inputs(x, t, fresh_condition(model, torch.arange(_TRACED))), {0: torch.export.Dim("batch")}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter about its own parts
            how: dict[str, Any] = {"dynamic_shapes": tuple(batch for _ in given), "input_names": list(given)}
            how |= {"output_names": ["output"], "dynamo": True, "verbose": False}
            program = torch.onnx.export(net.cpu().eval(), tuple(given.values()), **how)
    except torch.onnx.OnnxExporterError as error:  # such as for an operation in a network of the user's own
        cause = error.__cause__ or error
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:_MOST]
        others = {"engine": "torch"}, {"to": "safetensors"}
        raise UserError("", model.folder, f"cannot be exported to ONNX by torch ({reason})", others) from None
    assert program is not None
    program.model.metadata_props["unstir"] = json.dumps(_description(model))
    program.save(file)


def _inputs(x: Tensor, t: Tensor, condition: Tensor | None) -> dict[str, Tensor]:
    told = {} if condition is None else {"condition" if condition.is_floating_point() else "label": condition}
    return {"x": x, "t": t, **told}


class _Unaugmented(nn.Module):
    """A network that is given the zeros of images that were not augmented, as sampling does."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        output: Tensor = self.net(x, t, condition, augmentation=unaugmented(x.shape[0], x.device))
        return output


class OnnxNetwork(nn.Module):
    """A network that ONNX Runtime computes, on the CPU in as many threads as torch has at the first call."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self._session: Any = None

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """F(x, t) as `UNet` gives it, without gradients."""
        if self._session is None:
            self._session = self._opened()
        given = {name: tensor.cpu().numpy() for name, tensor in _inputs(x, t, condition).items()}
        (output,) = self._session.run(None, given)
        return torch.from_numpy(output).to(x.device)

    def _opened(self) -> Any:
        runtime = library("onnxruntime", "onnx", _ENGINE)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            return runtime.InferenceSession(str(self.file), options, providers=["CPUExecutionProvider"])
        except MemoryError:
            raise
        except Exception as error:  # its classes have no parent of their own
            reason = " ".join(str(error).split())[:_MOST]
            raise UserError("", self.file, f"cannot be read by ONNX Runtime ({reason})", "delete it") from None


def on_onnxruntime(model: Model) -> Model:
    """The same model computed by ONNX Runtime in float32 on the CPU, its guide too.

    Its network is written to RUN/onnx once for these weights, with its hash, and compared with the model. Raises
    UserError where the libraries are missing, and for another arithmetic, device or a compiled network.
    """
    check_installed(_ENGINE)
    for key, value, only in (
        ("dtype", model.arithmetic, "float32"), ("compile", model.compile, "no"), ("device", model.device.type, "cpu"),
    ):  # fmt: skip
        if value != only:
            raise UserError(key, value, f"is not for {_ENGINE}", {key: only})

    def load(dtype: torch.dtype) -> Denoiser:
        denoiser, file = model.load(dtype), model.folder / "onnx" / f"{model.weights_sha256[:16]}.onnx"
        noted = file.with_suffix(".sha256")
        if not (file.is_file() and noted.is_file() and noted.read_bytes() == f"{file_sha256(file)}\n".encode()):
            make_folder(file.parent)
            with replacing(file) as partial:
                write_onnx(model, partial)
                check_equal(model, OnnxNetwork(partial))
                sha256 = file_sha256(partial)
            write_text(noted, f"{sha256}\n")
        return replace(denoiser, net=OnnxNetwork(file), needs_augmentation=False)

    return replace(model, load=load, engine="onnxruntime", guide=model.guide and on_onnxruntime(model.guide))


def _description(model: Model) -> dict[str, Any]:
    """What a file says of its model: the hash of its weights, its settings, and what `sample.py` needs."""
    labels, named = model.labels, dict[str, Any]()
    if labels.count:
        named = {"classes": list(labels.names), "has_null": labels.has_null}
    if model.conditions:
        named |= {"condition_offset": model.conditions.card.offset, "condition_scale": model.conditions.card.scale}
    if model.data.scale.is_float:
        named["scale"] = model.data.scale.pairs
    schedule, T = model.process.schedule, model.process.T
    drawn = {"abar": [schedule.abar(t) for t in range(T + 1)], "steps": model.kind.calls or min(50, T)}
    return {"weights": model.weights_sha256, "shape": list(model.shape), **model.settings, **named, **drawn}
