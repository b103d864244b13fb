"""The numbers and pictures of the chapters, for each place of their sliders: one image and its noise, real networks.

A chapter is computed as a whole and sent frame by frame, so that its slider moves without waiting for the server.
Pictures are pixels as base64, [C, H, W]; the numbers of a formula are those of the pixel in the middle of the image.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import Base64Bytes, Field
from pydantic_core import to_json
from torch import Tensor

from unstir import parts
from unstir.chain import FAST, Chain
from unstir.diffusion.classes import followed
from unstir.diffusion.denoiser import Prediction
from unstir.diffusion.draw import starting_noise
from unstir.diffusion.guidance import guided, in_plane
from unstir.diffusion.loss import squared_error
from unstir.edit.files import read_image
from unstir.errors import UserError
from unstir.pixels import from_uint8, to_uint8
from unstir.randomness import Key, normal
from unstir.runs.model import Model
from unstir.runs.run import Run
from unstir.serve.editing import PictureValues
from unstir.serve.examples import Examples, examples
from unstir.serve.live import chains_of, encoded, frames
from unstir.serve.state import Answer, Frames, Seed, State, Values
from unstir.theory.process import Process
from unstir.theory.schedule import times

STOPS = 50  # places of a slider, beside t = 0
IMAGES = 10  # of the data that a chapter offers
SCALES = [half / 2 for half in range(11)]  # of guidance

ScheduleName = Literal["", "linear", "cosine", "sigmoid"]
SCHEDULES = get_args(ScheduleName)[1:]


class ChapterValues(Values):
    """What the controls of a chapter say."""

    image: Annotated[int, Field(ge=0, lt=IMAGES)] = 0
    """The number of an image of the data."""
    pixels: Base64Bytes = b""
    """An image of one's own in its place, as `own` answered."""
    label: int | None = None
    """The class that the network is told; None: no class."""
    seed: Seed = 0
    schedule: ScheduleName = ""
    """The schedule of the forward process; empty: the model's own."""
    stride: Annotated[int, Field(ge=1)] = 1
    """The times from t back to s."""


def remembered(chapter: Callable[[State, Any], Frames]) -> Callable[[State, Any], Frames]:
    """The chapter, computed once for the same model and values: a class opens the same page at the same time."""

    @wraps(chapter)
    def answered(state: State, values: Any) -> Frames:
        key = chapter.__name__, state.model(values.model).hashes, values
        kept = state.computed.get(key)
        lines = list[Answer]()
        for line in chapter(state, values) if kept is None else kept:
            lines.append(line)
            yield line
        if kept is None:
            state.computed.put(key, lines, len(to_json(lines)))

    return answered


def images(state: State, values: Values) -> Frames:
    """Images of the data and the class of each; where the data are not at hand, images that the model draws."""
    model = state.model(values.model)
    x_0, told, _ = _images(state, model)
    classes = told.tolist() if told is not None and model.labels.count and model.conditions is None else None
    yield {"shape": _shape(model), "images": [encoded(pixels) for pixels in model.pixels(x_0)], "labels": classes}


def conditions(state: State, values: Values) -> Frames:
    """The first of the held-out images that a model can be told to draw an image for."""
    model = state.model(values.model)
    if model.conditions is None or not model.conditions.is_image:
        raise UserError("model", values.model, "is not told of images", "choose another")
    indices = torch.arange(min(IMAGES, len(model.conditions.kept)))
    shown = model.conditions.pixels(indices, None, 3 if model.shape[0] == 3 else 1)
    yield {"shape": shown.shape[1:], "images": [encoded(pixels) for pixels in shown]}


def own(state: State, values: PictureValues) -> Frames:
    """The pixels of an image file at the size of the model's images; UserError where it cannot be used."""
    model = state.model(values.model)
    if not model.in_pixels:
        raise UserError("picture", None, "cannot be used: this model makes values")
    yield {"pixels": encoded(to_uint8(read_image(state.picture(values.picture), model.shape)))}


@remembered
def opening(state: State, values: Values) -> Frames:
    """Ten images on their way from noise: x_t and the estimate of the clean images at each call of the network."""
    model = state.model(values.model)
    chain = chains_of(model)[0]
    yield {"shape": _shape(model)}
    yield from frames(model, chain)


def forward(state: State, values: ChapterValues) -> Frames:
    """An image on its way to noise, and the step back from each time, for somebody who knows the image."""
    model = state.model(values.model)
    process, x_0, _ = process_of(model, values), *_image(state, model, values)
    eps = _noise(model, values)
    stops = _stops(process)
    yield _about(model, len(stops), given=_pictures(model, x0=x_0, eps=eps))
    for t in stops:
        yield _diffused(model, process, x_0, eps, t, values.stride)


def _diffused(model: Model, process: Process, x_0: Tensor, eps: Tensor, t: int, stride: int) -> Answer:
    schedule, x_t = process.schedule, process.diffuse(x_0, t, eps)
    numbers: Answer = {"alpha": schedule.alpha(t), "sigma": schedule.sigma(t)}
    numbers |= {"log_snr": _finite(schedule.log_snr(t)), "snr": _finite(schedule.snr[t].item())}
    frame: Answer = {"t": t, **_pictures(model, x=x_t), **numbers}
    if t == 0:
        return frame
    s = max(t - stride, 0)
    posterior, (at_x_t, at_x_0, var) = process.posterior(x_t, x_0, t, s), process.posterior_coefficients(t, s)
    step = {"s": s, "at_x_t": at_x_t, "at_x_0": at_x_0, "var": var, "std": math.sqrt(var)}
    return {**frame, **step, **_pictures(model, mean=posterior.mean)}


@remembered
@torch.inference_mode()
def predict(state: State, values: ChapterValues) -> Frames:
    """What the network takes the image and the noise in x_t for, how wrong it is, and its loss at each time."""
    model = state.model(values.model)
    model.kind.check_means(model.folder, ", and answers at its own times alone")
    process, (x_0, index), eps = model.process, _image(state, model, values), _noise(model, values)
    run = Run.open(model.run or model.folder)
    measured = next((line for line in run.held_out() if line["step"] == model.step and line["held_out"]), None)
    held_out = [*zip(measured["times"], measured["held_out"], strict=True)] if measured else []
    stops = _stops(process)[1:]
    denoise = model.denoise(_condition(state, model, values, index))
    yield _about(model, len(stops), predicts=model.predict, held_out=held_out)
    present = None if values.pixels else _images(state, model).present
    present = None if present is None else present[index % len(present)]
    for t in stops:
        alpha, sigma = process.schedule.gather(t, x_0)
        x_t = process.diffuse(x_0, t, eps)
        prediction = denoise(x_t, t)
        image, noise = prediction.x0.clamp(-1, 1), process.eps(x_t, prediction.x0, t)
        yield {
            "t": t,
            "alpha": alpha,
            "sigma": sigma,
            **_pictures(model, x=x_t, x0=image, eps=noise),
            "x0_pixel": _middle(prediction.x0),  # not clamped, so that the formula holds
            "x0_error": _mse(image - x_0),
            "eps_error": _mse(noise - eps),
            "loss": squared_error(model.denoiser, prediction, x_0, t, eps, present).item(),
        }


@remembered
@torch.inference_mode()
def reverse(state: State, values: ChapterValues) -> Frames:
    """The chain from noise to an image, step by step, with what the network would say of each class on the way."""
    model = state.model(values.model)
    process, index = model.process, torch.zeros(1, dtype=torch.int64, device=model.device)
    chain = Chain("ancestral", min(STOPS, process.T), variance="small", seed=values.seed)
    model.check(chain)
    denoise = model.denoise(torch.arange(model.labels.count, device=model.device))
    yield _about(model, chain.steps, 0)
    first, x_T = chain.visited(process.schedule)[0], starting_noise(chain.seed, index, model.shape)
    steps = model.draw(chain, index, _condition(state, model, values, index))
    for t, x, step, probabilities in followed(denoise, model.labels.count, process, x_T, first, steps):
        s, (at_x_t, at_x_0, var) = step.t, process.posterior_coefficients(t, step.t)
        mean = process.posterior(x, step.x0, t, s).mean
        frame: Answer = {"t": t, "s": s, "at_x_t": at_x_t, "at_x_0": at_x_0, "std": math.sqrt(var)}
        frame |= _pictures(model, x=x, x0=step.x0, mean=mean, noise=step.x - mean, next=step.x)
        frame |= {"z": _middle(normal(Key(chain.seed, "sample", t, index), model.shape)) if s else 0.0}
        yield frame | {"probabilities": probabilities.tolist()}


@remembered
@torch.inference_mode()
def guidance(state: State, values: ChapterValues) -> Frames:
    """The estimates with and without the class, as pictures and as arrows, and what guidance makes of them."""
    model = state.model(values.model)
    model.check(model.chain.changed(guidance=2.0))
    process, (x_0, index), eps = model.process, _image(state, model, values), _noise(model, values)
    stops = _stops(process)[1:]
    yield _about(model, len(stops), stops[-len(stops) // 5])
    for t in stops:
        x_t, condition = process.diffuse(x_0, t, eps), _condition(state, model, values, index)
        away = model.away_from(condition)
        assert away is not None
        strong, weak = model.denoise(condition)(x_t, t), away(x_t, t)
        to_weak, to_strong, *arrows = in_plane(x_t[0], weak.x0[0], strong.x0[0], SCALES)
        mixed = [guided(_given(strong), _given(weak), scale)(x_t, t).x0 for scale in SCALES]
        by_scale = [
            _pictures(model, guided=x0) | {"scale": scale, "to_guided": arrow.tolist()}
            for x0, scale, arrow in zip(mixed, SCALES, arrows, strict=True)
        ]
        yield {
            "t": t,
            **_pictures(model, weak=weak.x0, strong=strong.x0),
            "by_scale": by_scale,
            "to_weak": to_weak.tolist(),
            "to_strong": to_strong.tolist(),
            "distance": (to_strong - to_weak).norm().item(),
        }


def _given(prediction: Prediction) -> Callable[[Tensor, Any], Prediction]:
    return lambda x_t, t: prediction


def _images(state: State, model: Model) -> Examples:
    """Up to `IMAGES` images about [-1, 1]; where the data are not at hand, images that the model draws."""
    key = "images", model.run or model.folder, model.hashes
    images: Examples | None = state.computed.get(key)
    if images is None:
        images = (examples(Run.open(model.run or model.folder), IMAGES) or _drawn(model)).to(model.device)
        state.computed.put(key, images, images.x_0.nbytes)
    return images


@torch.inference_mode()
def _drawn(model: Model) -> Examples:
    indices = torch.arange(IMAGES, device=model.device)
    chain = model.chain if model.kind.has_teacher else FAST.changed(steps=min(FAST.steps, model.process.T))
    *_, last = model.draw(chain, indices, model.condition(indices))
    return Examples(last.x.clamp(-1, 1), model.condition(indices))


def _image(state: State, model: Model, values: ChapterValues) -> tuple[Tensor, Tensor]:
    """The image that a chapter is about, float32 [1, C, H, W], and its number, int64 [1]."""
    index = torch.tensor([values.image], device=model.device)
    if not values.pixels:
        x_0 = _images(state, model).x_0
        return x_0[index % len(x_0)], index
    if len(values.pixels) != math.prod(model.shape) or not model.in_pixels:
        raise UserError("pixels", None, "are not those of an image of this model")
    pixels = torch.frombuffer(bytearray(values.pixels), dtype=torch.uint8)
    return from_uint8(pixels.view(1, *model.shape)).to(model.device), index


def _condition(state: State, model: Model, values: ChapterValues, index: Tensor) -> Tensor | None:
    """What the network is told of the image."""
    if model.conditions is None:
        return model.condition(index, model.labels.or_null(values.label))
    told = _images(state, model).told
    return None if told is None else told[index % len(told)]


def process_of(model: Model, values: ChapterValues) -> Process:
    """The process of the schedule that is chosen."""
    return Process(parts.find("schedule", values.schedule)(model.process.T)) if values.schedule else model.process


def _noise(model: Model, values: ChapterValues) -> Tensor:
    return starting_noise(values.seed, torch.tensor([values.image], device=model.device), model.shape)


def _stops(process: Process) -> list[int]:
    """The times of a chapter's slider, rising from 0 to T."""
    return times(process.schedule, min(STOPS, process.T))[::-1]


def _about(model: Model, total: int, first: int | None = None, **more: Any) -> Answer:
    """What a page knows before the frames: their number, the time that it shows first, T and the shape of pictures."""
    T = model.process.T
    return {"shape": _shape(model), "T": T, "total": total, "first": T // 2 if first is None else first, **more}


def _shape(model: Model) -> list[int]:
    return list(model.pixels(torch.zeros(1, *model.shape)).shape[1:])


def _pictures(model: Model, **images: Tensor) -> Answer:
    """Images [1, C, H, W] by their names, and the value of the pixel in the middle of each."""
    pictures = {name: encoded(model.pixels(image)[0]) for name, image in images.items()}
    return {**pictures, **{f"{name}_pixel": _middle(image) for name, image in images.items()}}


def _middle(image: Tensor) -> float:
    """The value of the pixel in the middle of [1, C, H, W], of its first channel."""
    _, _, height, width = image.shape
    return image[0, 0, height // 2, width // 2].item()


def _mse(difference: Tensor) -> float:
    return difference.double().square().mean().item()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
