"""A folder of diffusers as a model, read without diffusers: unet/ and scheduler/, or all in one as google/ddpm-*."""

from pathlib import Path
from typing import Any

import torch

from unstir.data.disk import open_file
from unstir.errors import UserError, short
from unstir.interop.diffusers_settings import from_diffusers, from_scheduler, from_unet2d
from unstir.interop.foreign import Asked, Foreign, located
from unstir.interop.weights import read_weights
from unstir.nn.unet import UNet
from unstir.runs.files import parsed

PATTERNS = ("*.json", "unet/*", "scheduler/*", "diffusion_pytorch_model.*")
"""The files of a repository that are needed."""
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
KEPT = "unstir.json"  # names of classes and the scale of the data
_MOST_BYTES, _MOST_SIDE = 1 << 24, 4096


def is_folder_of_diffusers(folder: Path) -> bool:
    """Whether a folder looks like one of diffusers."""
    return any((folder / name).is_file() for name in ("model_index.json", "unet/config.json", "config.json"))


def read_folder(folder: Path, asked: Asked) -> tuple[Foreign, str]:
    """The model in a folder, and the SHA-256 (hex) of its weights. UserError that names what has no equal here."""
    unet = next((place for place in (folder / "unet", folder) if (place / "config.json").is_file()), None)
    if unet is None:
        raise UserError("", folder, "has neither unet/config.json nor config.json", "name the folder of a pipeline")
    settings = _json(unet / "config.json")
    if (name := settings.get("_class_name", "UNet2DModel")) != "UNet2DModel":
        raise UserError("", unet / "config.json", f"is of a {short(name)}", "only UNet2DModel has an equal here")
    scheduler = _scheduler(folder)
    with located(scheduler):
        diffusion, chain, notes = from_scheduler(_json(scheduler))
    with located(unet / "config.json"):
        network = from_unet2d(settings)
    size = _size(unet / "config.json", settings.get("sample_size"), asked)
    file = next((unet / name for name in _WEIGHTS if (unet / name).is_file()), None)
    if file is None:
        raise UserError("", unet, f"has no {' and no '.join(_WEIGHTS)}", "fetch the whole repository")
    tensors, sha256 = read_weights(file)
    with torch.device("meta"):
        ours = UNet(network).state_dict()
    with located(file):
        weights = from_diffusers(tensors, ours)
    read: dict[str, Any] = {"network": network, "weights": weights, "diffusion": diffusion, "chain": chain}
    return Foreign(program="diffusers", size=size, notes=tuple(notes), **read, **_kept(folder)), sha256


def _scheduler(folder: Path) -> Path:
    places = folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"
    if file := next((place for place in places if place.is_file()), None):
        return file
    if is_folder_of_diffusers(whole := folder.absolute().parent):
        raise UserError("", folder, "is a part of a folder of diffusers", f"name that: {whole}")
    raise UserError("", folder, "has no scheduler/scheduler_config.json, which says how noise was added", "add it")


def _json(file: Path) -> dict[str, Any]:
    with located(file), open_file(file) as stream:
        return parsed(stream.read(_MOST_BYTES))


def _size(file: Path, sample_size: Any, asked: Asked) -> tuple[int, int]:
    """(H, W) of an image, as the file says or, where it is silent, as was asked."""
    given = asked.of_silent(*["size"] * (sample_size is None))
    if sample_size is None and not given:
        raise UserError("", file, "does not say how large images are (sample_size)", {"size": 32})
    size = given.get("size", sample_size)
    sides = size if isinstance(size, list) else [size] * 2
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= _MOST_SIDE for side in sides):
        raise UserError("sample_size", size, f"must be one or two numbers, 1 to {_MOST_SIDE}").at(file)
    return sides[0], sides[1]


def _kept(folder: Path) -> dict[str, Any]:
    """What `unstir export` wrote of the labels and the scale, if it did."""
    if not (folder / KEPT).is_file():
        return {}
    kept = _json(folder / KEPT)
    with located(folder / KEPT):
        classes, scale = tuple(map(str, kept["classes"])), tuple((low, high) for low, high in kept.get("scale", ()))
        return {"classes": classes, "has_null": kept.get("has_null") is True, "scale": scale}
