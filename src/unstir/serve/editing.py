"""Edits of a picture that a page sends: what `unstir edit` makes of the same file by the same settings."""

import secrets
from collections.abc import Generator
from io import BytesIO
from time import monotonic
from typing import Annotated

from PIL.Image import Image
from pydantic import Base64Bytes, BeforeValidator, Field

from unstir import edit
from unstir.diffusion.samplers import Step
from unstir.edit.files import pasted, read_image, read_mask
from unstir.errors import printable
from unstir.generate.drawing import Job
from unstir.generate.memory import Drawing
from unstir.pictures.grid import to_picture
from unstir.pixels import to_uint8
from unstir.runs.model import Model
from unstir.serve.sampling import SampleValues
from unstir.serve.state import Answer, Frames, Seed, State, Values, command, shown, url

PAUSE = 0.05  # seconds between two frames
Content = Annotated[Base64Bytes, BeforeValidator(lambda url: str(url).rpartition(",")[2])]
"""A small file, as a data: address or base64."""


class DrawnValues(Values):
    """Which image of the model."""

    seed: Seed = 0
    label: int | None = None


class PictureValues(Values):
    """A picture file, by the id of `State.take`."""

    picture: Annotated[str, Field(max_length=64)]


class EditValues(SampleValues, PictureValues):
    """What every edit takes; ``name`` is that of the picture file in the command."""

    name: Annotated[str, Field(max_length=200)] = "picture.png"
    num: Annotated[int, Field(ge=1, le=16)] = 4
    steps: int | None = 9

    def edit_command(self, edit: str, state: State, **options: object) -> str:
        """The command that makes the same."""
        name = printable(self.name)
        picture = f"./{name}" if name.startswith("-") else name
        told = self.label is not None or self.condition is not None  # else there is nothing to guide to
        shared = self.options if told else {**self.options, "guidance": None}
        return command("edit", edit, state.run(self.model).name, picture, **options, **shared)


class InpaintValues(EditValues):
    """A mask, white where the picture is filled in, and how often each step is taken."""

    mask: Content
    resamples: Annotated[int, Field(ge=1, le=20)] = 3


class VaryValues(EditValues):
    """How far to go from the picture, in (0, 1]."""

    strength: float = 0.6


class PasteValues(PictureValues):
    """A result of filling in a mask, a picture file too."""

    mask: Content
    result: Content


def drawn(state: State, values: DrawnValues) -> Frames:
    """An image of the model's own to edit, the first that `unstir sample` draws."""
    model = state.model(values.model)
    drawing = Drawing(model, Job(num=1, chain=model.chain.changed(seed=values.seed), label=values.label))
    for frame in drawing.frames():
        yield {"x": shown(frame.x, model)}
    (image,) = model.data.scale.shown(drawing.images, model.channels)
    yield {"picture": state.take(_png(to_picture(image)))}


def preview(state: State, values: PictureValues) -> Frames:
    """The part of a picture that is edited, and what is done to it."""
    picture, notes = edit.preview(state.model(values.model), state.picture(values.picture))
    yield {"shown": _url(picture), "notes": notes}


def inpaint(state: State, values: InpaintValues) -> Frames:
    """Lines as `_edited`."""
    model, picture, resamples = state.model(values.model), state.picture(values.picture), values.resamples
    steps = edit.inpaint_steps(model, picture, values.job(model), mask=values.mask, resamples=resamples)
    yield from _edited(model, steps, values.edit_command("inpaint", state, mask="mask.png", resamples=resamples))


def vary(state: State, values: VaryValues) -> Frames:
    """Lines as `_edited`."""
    model, picture, strength = state.model(values.model), state.picture(values.picture), values.strength
    steps = edit.vary_steps(model, picture, values.job(model), strength=strength)
    yield from _edited(model, steps, values.edit_command("vary", state, strength=strength))


def paste(state: State, values: PasteValues) -> Frames:
    """The address of the picture at its own size with a result in it."""
    shape, picture = state.model(values.model).shape, state.picture(values.picture)
    keep = read_mask(values.mask, None, picture, shape)
    photo = pasted(picture, to_uint8(read_image(values.result, shape))[0], keep)
    yield {"photo": state.keep(f"{secrets.token_urlsafe(8)}.png", "image/png", _png(photo)), "size": photo.size}


def _edited(model: Model, steps: Generator[Step, None, edit.Edited], command: str) -> Frames:
    """A line for each frame, some left out where they come fast, the first with the command; and the results."""
    edited, sent, also = None, 0.0, {"command": command}
    while edited is None:
        try:
            step = next(steps)
        except StopIteration as end:
            edited = end.value
        else:
            if step.t == 0 or monotonic() > sent + PAUSE:
                x, x0 = (shown(model.pixels(images), model) for images in (step.x, step.x0))
                yield {"t": step.t, "x": x, "x0": x0, **also}
                sent, also = monotonic(), {}
    yield _results(edited)


def _results(edited: edit.Edited) -> Answer:
    """What came of an edit: each picture, the whole of them, and what it cost."""
    given, made = ([_url(to_picture(image)) for image in images] for images in (edited.given, edited.made))
    cost = f"{edited.calls} calls of the network{edited.besides}"
    return {"given": given, "results": made, "sheet": _url(edited.picture()), "cost": cost}


def _png(picture: Image) -> bytes:
    file = BytesIO()
    picture.save(file, format="png", compress_level=1)
    return file.getvalue()


def _url(picture: Image) -> str:
    return url(_png(picture))
