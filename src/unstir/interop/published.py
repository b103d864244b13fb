"""A run on the Hugging Face Hub: one saved step of it as a repository, and a run made of such a repository again.

Of a path of the machine that trained it only the last part of the name is kept.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from unstir.data.disk import file_sha256
from unstir.errors import MissingLibraryError, UserError
from unstir.generate.drawing import Job, sample_batches
from unstir.generate.folder import drawn_classes
from unstir.interop import hub
from unstir.interop.exporting import export, slim
from unstir.interop.importing import IS_RUN, Imported
from unstir.interop.model_card import SHOWN, Page, card, shown_chain
from unstir.metrics.evaluation import FOLDER, Evaluation, own, save
from unstir.pictures.grid import named_grid
from unstir.progress import counting
from unstir.runs import checkpoint
from unstir.runs.card import CONDITIONS, NAME
from unstir.runs.config import Config
from unstir.runs.files import check_new, new_folder, save_png, write_text, writing
from unstir.runs.model import Model
from unstir.runs.run import Run
from unstir.runs.toml import is_run, to_dict

_OURS = ("config.toml", NAME, CONDITIONS, "weights/*.safetensors", "evaluation/*.json")
"""The files of a repository that make a run."""
_REPLACED = (*_OURS, "unet/*", "scheduler/*", "model_index.json", "unstir.json")
"""What a published step replaces of the one before it."""
_COLUMNS = 8


@dataclass(frozen=True)
class Published:
    """The ``address`` of a model on the Hub, and ``notes`` on what is not there."""

    address: str
    notes: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """Where it is, and the notes."""
        return (f"published {self.address}", *(f"note      {note}" for note in self.notes))


def push(model: Model, name: str, *, private: bool = False, licence: str = "", data_licence: str = "") -> Published:
    """Publish a run's model on the Hugging Face Hub as ``name``, OWNER/NAME.

    The ``licence`` of the model is named as the Hub does ("apache-2.0"), that of the data in words; "" is not stated.
    A model that was published there before is replaced, in one commit. Raises UserError, before anything is made, for a
    name that is none, holds something else, or is public and to be ``private``, and without a login or a network;
    after, where the Hub refuses the rest.
    """
    hub.check(name, NAME, private)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / name.split("/")[1]
        notes = write_repository(model, name, folder, licence, data_licence)
        message = f"Step {model.step}, SHA-256 {model.weights_sha256[:12]}, by unstir push"
        with counting("publishing", ""):
            return Published(hub.publish(folder, name, message, private, _REPLACED), notes)


def write_repository(
    model: Model, name: str, folder: Path, licence: str = "", data_licence: str = ""
) -> tuple[str, ...]:
    """Write the files of a repository called ``name`` to a new folder; notes on what is not among them."""
    run, notes = Run.open(model.run), list[str]()
    try:
        export(model, "diffusers", folder)
        diffusers = ""
    except MissingLibraryError:  # it could be there: nothing is published without it unasked
        raise
    except UserError as error:
        given = error.given if error.key else "this model"
        diffusers = str(UserError(error.key, given, error.allowed, error.remedy))
        notes.append(f"no files for diffusers: {diffusers}")
    weights = model.step, model.weights_sha256
    figures = [measured for measured in own(run) if (measured.step, measured.weights) == weights]
    write_run(run, model, folder, figures)
    if not figures:
        notes.append(f"no figures: step {model.step} was not evaluated with these weights (unstir evaluate)")
    page = Page(public(run.config), figures, licence, data_licence, without_diffusers=diffusers)
    write_text(folder / "README.md", card(model, name, page))
    return tuple(notes)


def public(config: Config) -> Config:
    """A config without the places of its machine: of each path the last part alone, no tracker, no source's options."""

    def last(text: str) -> str:
        return Path(text).name

    source, *rest = config.imported.rsplit(", ", 2)  # program and hash, which hold no comma
    imported = ", ".join([source if hub.is_fetched(source) else last(source), *rest])
    own = config.data
    data = replace(own, source=last(own.source), store="", conditions=last(own.conditions), options={})
    train = replace(config.train, init=last(config.train.init))
    return replace(config, data=data, train=train, log=replace(config.log, to=(), options={}), imported=imported)


def write_run(run: Run, model: Model, folder: Path, figures: Sequence[Evaluation]) -> None:
    """Write a run of the ``model``'s step alone into a folder, with ``figures`` and a grid, samples.png."""
    published = Run.begin(public(run.config), folder / "run", run.data, run.conditions)
    checkpoint.save(published.weights, slim(model, published))
    for measured in figures:
        save(published, replace(measured, run=published.data.run))
    with writing(folder):
        for path in published.path.iterdir():
            path.rename(folder / path.name)
        published.path.rmdir()
    with counting("drawing samples", "images"):
        job = Job(num=SHOWN, chain=shown_chain(model), batch_size=SHOWN)
        images = model.pixels(torch.cat([images for _, images in sample_batches(model, job)]))
        names = drawn_classes(model, job, SHOWN)
        grid = named_grid(model.beside(images, torch.arange(len(images))), _COLUMNS, names or None)
        save_png(folder / "samples.png", grid)


def pull(name: str, folder: str | Path | None = None) -> Imported:
    """Make a run of a model that `push` published: OWNER/NAME, or OWNER/NAME@REVISION.

    It goes to a new ``folder``, by default runs/NAME. Raises UserError where there is no such model of unstir, in the
    network or the cache, and where its files are damaged.
    """
    if is_run(Path(name)):
        raise UserError("", name, *IS_RUN)
    if not hub.is_id(name):
        raise UserError("", name, *hub.NO_NAME)
    folder = Path(folder or Path("runs", name.split("/")[1].split("@")[0]))
    check_new(folder)
    copy, identity, notes = hub.fetch(name, _OURS)
    if not is_run(copy):
        raise UserError("", name, "was not published by unstir push", f"import one of diffusers: unstir import {name}")
    try:
        published = Run.open(copy)
        step = published.newest_step()
        file = published.weights / checkpoint.file_name(step)
        saved_step = checkpoint.load(file)
        published.model(step, device="cpu", dtype="float32")  # weights that are not of these settings are refused
        figures = own(published)
        if len(figures) < len(list((copy / FOLDER).glob("*.json"))):
            notes = (*notes, f"figures of {FOLDER}/ that are damaged or of other weights are left out")
    except (UserError, OSError) as error:  # the cache keeps a damaged file
        anew = f"if the copy here is at fault, remove {copy.parent.parent} and pull again"
        raise UserError("", name, f"cannot be used: {error}", anew) from None
    came_from = f"{identity}, unstir, SHA-256 {file_sha256(file)}"
    config = replace(published.config, imported=came_from)
    with new_folder(folder) as partial:
        run = Run.begin(config, partial, published.data, published.conditions)
        checkpoint.save(run.weights, replace(saved_step, config=to_dict(config), data=run.data.plain()))
        for measured in figures:
            save(run, replace(measured, run=run.data.run))
        run.record("imported", source=came_from, notes=list(notes))
    return Imported(Run.open(folder), notes)
