"""Images from noise, frame by frame: what `unstir sample` draws by the same settings."""

from typing import Annotated, Any

import torch
from pydantic import Field

from unstir.generate.drawing import Job
from unstir.generate.memory import Drawing
from unstir.runs.model import Model
from unstir.serve.state import Frames, Seed, State, Values, command, shown, url

MOST = 64  # images, one batch


class SampleValues(Values):
    """The settings of the page; what is None is the model's own."""

    step: int | None = None
    sampler: str | None = None
    steps: int | None = None
    seed: Seed = 0
    label: int | None = None
    condition: tuple[float, ...] | None = None
    guidance: float | None = None
    num: Annotated[int, Field(ge=1, le=MOST)] = 16

    def job(self, model: Model) -> Job:
        """What is asked of the model; UserError as `Chain`."""
        given = {"sampler": self.sampler, "steps": self.steps, "guidance": self.guidance}
        chain = model.chain.changed(**{key: it for key, it in given.items() if it is not None}, seed=self.seed)
        condition = None if self.condition is None else torch.tensor(self.condition)
        return Job(num=self.num, chain=chain, label=self.label, condition=condition)

    def command(self, run: str) -> str:
        """The command that draws the same."""
        condition = None if self.condition is None else ",".join(f"{value:g}" for value in self.condition)
        options: dict[str, Any] = {"checkpoint": self.step, "num": self.num, "seed": self.seed, "label": self.label}
        chain = {"sampler": self.sampler, "steps": self.steps, "guidance": self.guidance}
        return command("sample", run, **options, condition=condition, **chain)


def sample(state: State, values: SampleValues) -> Frames:
    """A line with the cost and the equal command, one for each frame, and one with the files."""
    model = state.model(values.model, values.step)
    drawing = Drawing(model, job := values.job(model))
    yield {"cost": model.cost(job.chain, " per image"), "command": values.command(state.run(values.model).name)}
    for frame in drawing.frames():
        yield {"t": frame.t, "x": shown(frame.x, model), "x0": shown(frame.x0, model)}
    png, npy, webp = drawing.png(), drawing.npy(), drawing.webp()
    yield {"files": {"png": url(png), "npy": url(npy, "application/octet-stream"), "webp": url(webp, "image/webp")}}
