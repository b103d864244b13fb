"""What the pages share: the models by the ids that the server gives them, and files made for a download, in memory."""

import base64
import hashlib
import itertools
import math
import shlex
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from threading import RLock
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from unstir.errors import UserError
from unstir.pictures.grid import grid
from unstir.runs import checkpoint
from unstir.runs.model import Model
from unstir.runs.named import PREFIX, names, names_run, reference
from unstir.runs.run import Run
from unstir.runs.toml import is_run
from unstir.serve.recent import Recent

Answer = dict[str, Any]
"""A line of an answer, as JSON has it."""
Frames = Iterator[Answer]
"""The answer of a computation, a line for each frame."""

Seed = Annotated[int, Field(ge=0, le=2**53 - 1)]  # the whole numbers that JavaScript holds
MODELS = 3  # kept in memory
MOST_BYTES = 8_000_000  # of a call, and of a picture that is sent


class Values(BaseModel):
    """What a page sends: the id of a model, and what a handler's own class adds."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    model: Annotated[str, Field(max_length=200)] = ""


class State:
    """The runs that may be shown: shipped models, those ``given``, then those in ./runs, which may come later."""

    def __init__(self, given: Sequence[Path] = ()) -> None:
        shipped = sorted(names(), key=lambda name: name != "mnist")  # pages open on the first: digits that anyone reads
        self._lock, self._runs = RLock(), {name: f"{PREFIX}{name}" for name in shipped}
        self._models, self._files = OrderedDict[tuple[str | int, ...], Model](), Recent[tuple[str, bytes]]()
        self._pictures = Recent[tuple[str, bytes]]()  # apart, so that large files that are made do not drive them out
        self.computed = Recent[Any]()
        """What chapters computed."""
        for path in given:
            self._add(Run.open(path).name)

    def _add(self, run: str) -> None:
        if reference(run) not in map(reference, self._runs.values()):
            name = Path(run).resolve().name
            ids = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
            self._runs[next(id for id in ids if id not in self._runs)] = run

    def runs(self) -> dict[str, str]:
        """The id of each run and its name, as `Run.open` takes it."""
        with self._lock:
            self._runs = {id: run for id, run in self._runs.items() if names_run(run)}  # not those deleted since
            for path in sorted(Path("runs").glob("*")):
                if is_run(path):
                    self._add(str(path))
            return dict(self._runs)

    def run(self, id: str) -> Run:
        """The run of an id; UserError where there is none, or no longer."""
        if (name := self.runs().get(id)) is None:
            raise UserError("model", id, "is not known to this server", "choose one of the list")
        return Run.open(name)

    def model(self, id: str, step: int | None = None) -> Model:
        """The model of a run, of its newest weights or those of a saved ``step``; UserError as `Run.model`."""
        run = self.run(id)
        # A run may be trained anew in the same folder.
        name = checkpoint.file_name(run.newest_step() if step is None else step)
        files = [folder / name for folder in (run.checkpoints, run.weights)]
        key: tuple[str | int, ...] = (id, name, *(file.stat().st_mtime_ns for file in files if file.exists()))
        with self._lock:
            if key not in self._models:
                self._models[key] = run.model(step)
            self._models.move_to_end(key)
            while len(self._models) > MODELS:
                self._models.popitem(last=False)
            return self._models[key]

    def keep(self, name: str, kind: str, content: bytes) -> str:
        """Keep a file in memory and return its address on this server; of many the oldest is forgotten."""
        self._files.put(name, (kind, content), len(content))
        return f"file/{name}"

    def file(self, name: str) -> tuple[str, bytes] | None:
        """The kind (MIME) and content of a file that is kept; None where there is none."""
        return self._pictures.get(name) or self._files.get(name)

    def take(self, content: bytes) -> str:
        """Keep a picture file that a page sent, and return its id, which is a `file` too; the oldest is forgotten."""
        id = hashlib.sha256(content).hexdigest()[:16]
        self._pictures.put(id, ("application/octet-stream", content), len(content))
        return id

    def picture(self, id: str) -> bytes:
        """A picture that was taken; UserError where it was forgotten."""
        if (kept := self._pictures.get(id)) is None:
            raise UserError("picture", None, "is no longer kept by the server", "open it again")
        return kept[1]


def url(content: bytes, kind: str = "image/png") -> str:
    """A file as a data: address, which an image or a link of a page takes."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def shown(images: Tensor, model: Model, nrow: int = 0) -> str:
    """Images, uint8 [N, C, H, W], as a data: address of one picture, in rows of ``nrow``, by default a near square."""
    file = BytesIO()
    grid(images, nrow or math.ceil(len(images) ** 0.5), model.scale).save(file, format="png", compress_level=1)
    return url(file.getvalue())


def command(*words: object, **options: object) -> str:
    """A command to copy; of the options those that are None are left out."""
    given = [text for name, value in options.items() if value is not None for text in (f"--{name}", str(value))]
    return shlex.join(["unstir", *map(str, words), *given])
