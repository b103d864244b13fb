"""Images from noise, frame by frame, and samplers side by side: what `unstir sample` draws by the same settings."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from unstir.chain import SAMPLERS, title
from unstir.compare import compare as compared
from unstir.errors import UserError
from unstir.generate.conditions import of_numbers
from unstir.generate.drawing import Job
from unstir.generate.memory import Drawing
from unstir.runs.model import Model
from unstir.serve.state import Frames, Seed, State, Values, command, shown, url

MOST, ROWS, IN_ROW = 64, 8, 16  # images in a batch, rows of a comparison, images in each


def _ours(sampler: str) -> str:
    if sampler not in SAMPLERS:  # one of the user's own is code, which no page may load
        raise UserError("", sampler, f"must be one of {', '.join(SAMPLERS)}")
    return sampler


Sampler = Annotated[str, AfterValidator(_ours)]


class SampleValues(Values):
    """The settings of the page; what is None is the model's own."""

    sampler: Sampler | None = None
    steps: int | None = None
    seed: Seed = 0
    label: int | None = None
    condition: tuple[float, ...] | None = None
    guidance: float | None = None
    num: Annotated[int, Field(ge=1, le=MOST)] = 16

    @property
    def chain(self) -> dict[str, Any]:
        """The settings of the chain that are not the model's own."""
        given = {"sampler": self.sampler, "steps": self.steps, "guidance": self.guidance}
        return {name: value for name, value in given.items() if value is not None}

    def job(self, model: Model) -> Job:
        """What is asked of the model; UserError as `Chain`."""
        chain = model.chain.changed(**self.chain, seed=self.seed)
        condition = None if self.condition is None else of_numbers(self.condition, model)
        return Job(num=self.num, chain=chain, label=self.label, condition=condition)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the command line that ask for the same."""
        numbers = [str(number).removesuffix(".0") for number in self.condition or ()]
        condition = ",".join(numbers) or None
        return {"num": self.num, "seed": self.seed, "label": self.label, "condition": condition, **self.chain}

    def command(self, run: str, **others: Any) -> str:
        """The command that draws the same, with ``others`` in the place of these settings."""
        return command("sample", run, **{**self.options, **others})


def sample(state: State, values: SampleValues) -> Frames:
    """A line with the cost and the equal command, one for each frame, and one with the files."""
    model = state.model(values.model)
    drawing = Drawing(model, job := values.job(model))
    yield {"cost": model.cost(job.chain, " per image"), "command": values.command(state.run(values.model).name)}
    for frame in drawing.frames():
        yield {"t": frame.t, "x": shown(frame.x, model), "x0": shown(frame.x0, model)}
    png, npy, webp = drawing.png(), drawing.npy(), drawing.webp()
    yield {"files": {"png": url(png), "npy": url(npy, "application/octet-stream"), "webp": url(webp, "image/webp")}}


class Row(BaseModel):
    """A row of a comparison."""

    sampler: Sampler
    steps: int


class CompareValues(SampleValues):
    """The rows, for the weights of each of some saved steps."""

    num: Annotated[int, Field(ge=1, le=IN_ROW)] = 8
    rows: Annotated[tuple[Row, ...], Field(min_length=1, max_length=ROWS)]
    snapshots: Annotated[tuple[int, ...], Field(min_length=1, max_length=ROWS)]


def compare(state: State, values: CompareValues) -> Frames:
    """A line with the equal commands, and one for each row of images, all from one noise."""
    name, rows = state.run(values.model).name, ",".join(f"{row.sampler}:{row.steps}" for row in values.rows)
    commands = [values.command(name, checkpoint=step, compare=rows) for step in values.snapshots]
    yield {"command": "\n".join(commands)}
    for step in values.snapshots:
        model = state.model(values.model, step)
        job = values.job(model)
        of_step = f", step {step}" if len(values.snapshots) > 1 else ""
        for chain in [job.chain.changed(sampler=row.sampler, steps=row.steps) for row in values.rows]:
            (row,) = compared(model, job, [chain])
            yield {
                "title": f"{title(chain.in_effect())}{of_step}",
                "cost": row.said,
                "seconds": row.seconds,
                "images": shown(row.images, model, job.num),
            }
