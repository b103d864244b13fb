"""Edits of a picture that a page sends: what `unstir edit` makes of the same file by the same settings."""

import hashlib
from collections.abc import Generator
from io import BytesIO
from time import monotonic
from typing import Annotated

from PIL.Image import Image
from pydantic import Base64Bytes, Field

from unstir import edit
from unstir.diffusion.samplers import Step
from unstir.edit.files import pasted, read_image, read_mask
from unstir.errors import printable
from unstir.generate.drawing import Job
from unstir.generate.memory import Drawing
from unstir.pictures.grid import to_picture
from unstir.pixels import to_uint8
from unstir.runs.model import Model
from unstir.serve.state import Answer, Frames, Seed, State, Values, command, shown, url

PAUSE = 0.05  # seconds between two frames


class DrawnValues(Values):
    """Which image of the model."""

    seed: Seed = 0
    label: int | None = None


class PictureValues(Values):
    """A picture file."""

    picture: Base64Bytes


class EditValues(PictureValues):
    """What every edit takes; ``name`` is that of the picture file in the command."""

    name: Annotated[str, Field(max_length=200)] = "picture.png"
    num: Annotated[int, Field(ge=1, le=16)] = 4
    seed: Seed = 0
    label: int | None = None
    steps: int = 9

    def job(self, model: Model) -> Job:
        """What is asked of the model; UserError as `Chain`."""
        return Job(num=self.num, chain=model.chain.changed(steps=self.steps, seed=self.seed), label=self.label)

    def command(self, edit: str, state: State, **options: object) -> str:
        """The command that makes the same."""
        shared = {"label": self.label, "num": self.num, "steps": self.steps, "seed": self.seed}
        name = printable(self.name)
        picture = f"./{name}" if name.startswith("-") else name
        return command("edit", edit, state.run(self.model).name, picture, **options, **shared)


class InpaintValues(EditValues):
    """A mask, white where the picture is filled in, and how often each step is taken."""

    mask: Base64Bytes
    resamples: Annotated[int, Field(ge=1, le=20)] = 3


class VaryValues(EditValues):
    """How far to go from the picture, in (0, 1]."""

    strength: float = 0.6


class PasteValues(PictureValues):
    """A result of filling in a mask, a picture file too."""

    mask: Base64Bytes
    result: Base64Bytes


def drawn(state: State, values: DrawnValues) -> Frames:
    """An image of the model's own to edit, the first that `unstir sample` draws."""
    model = state.model(values.model)
    drawing = Drawing(model, Job(num=1, chain=model.chain.changed(seed=values.seed), label=values.label))
    for frame in drawing.frames():
        yield {"x": shown(frame.x, model)}
    (image,) = model.data.scale.shown(drawing.images, model.channels)
    yield {"picture": _url(to_picture(image))}


def preview(state: State, values: PictureValues) -> Frames:
    """The part of a picture that is edited, and what is done to it."""
    picture, notes = edit.preview(state.model(values.model), values.picture)
    yield {"shown": _url(picture), "notes": notes}


def inpaint(state: State, values: InpaintValues) -> Frames:
    """Lines as `_edited`."""
    model, (picture, mask, resamples) = state.model(values.model), (values.picture, values.mask, values.resamples)
    steps = edit.inpaint_steps(model, picture, values.job(model), mask=mask, resamples=resamples)
    yield from _edited(model, steps, values.command("inpaint", state, mask="mask.png", resamples=resamples))


def vary(state: State, values: VaryValues) -> Frames:
    """Lines as `_edited`."""
    model, strength = state.model(values.model), values.strength
    steps = edit.vary_steps(model, values.picture, values.job(model), strength=strength)
    yield from _edited(model, steps, values.command("vary", state, strength=strength))


def paste(state: State, values: PasteValues) -> Frames:
    """The address of the picture at its own size with a result in it."""
    shape = state.model(values.model).shape
    keep = read_mask(values.mask, None, values.picture, shape)
    photo = pasted(values.picture, to_uint8(read_image(values.result, shape))[0], keep)
    content = _png(photo)
    name = f"{hashlib.sha256(content).hexdigest()[:16]}.png"
    yield {"photo": state.keep(name, "image/png", content), "size": photo.size}


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
