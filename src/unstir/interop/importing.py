"""From a model of another program to a run: a folder like any other, without training, log or data."""

from dataclasses import dataclass, replace
from pathlib import Path

from unstir.errors import UserError
from unstir.interop import hub
from unstir.interop.diffusers_folder import PATTERNS, is_folder_of_diffusers, read_folder
from unstir.interop.foreign import Asked, Foreign, located
from unstir.interop.report_code import read_file
from unstir.nn.config import ModelConfig
from unstir.pixels import Scale
from unstir.progress import sized
from unstir.runs import brought, build
from unstir.runs.card import NAME, DataCard
from unstir.runs.config import Config
from unstir.runs.files import check_new, new_folder
from unstir.runs.run import Run
from unstir.runs.toml import is_run

_FILES = ".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".onnx"  # how files end, and no model of the Hub
IS_RUN = "is a run already", "every command takes its folder"


@dataclass(frozen=True)
class Imported:
    """The ``run`` that was made, and ``notes`` on what is not the same here."""

    run: Run
    notes: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """What was made, where it came from, and the notes."""
        run, shape = self.run, sized(self.run.data.shape)
        parameters = sum(t.numel() for t in run.load().part("model").values())
        return (
            f"run      {run.path}: {parameters:,} parameters, images of {shape}, T = {run.config.diffusion.T}",
            f"from     {run.config.kind.origin}",
            *(f"note     {note}" for note in self.notes),
        )


def import_run(source: str | Path, folder: str | Path, asked: Asked = Asked()) -> Imported:
    """Make a run in a new folder from a model of another program.

    ``source`` is a folder of diffusers, the id of such a model on the Hugging Face Hub (OWNER/NAME), or a checkpoint of
    a program known here. Raises UserError, before the folder is made, for another source, where its network or process
    has no equal here (the layer or setting is named), or where ``asked`` says what the source says itself.
    """
    check_new(Path(folder))
    foreign, name, sha256 = _read(str(source), asked)
    return make_run(foreign, folder, name, sha256, asked.classes)


def make_run(foreign: Foreign, folder: str | Path, source: str, sha256: str, classes: tuple[str, ...] = ()) -> Imported:
    """Make a run in a new folder from a model that an importer has read, of this package or of your own.

    ``source`` names where it came from, ``sha256`` (hex) is the hash of its file, ``classes`` are names of labels that
    it does not say. Raises UserError, before the folder is made, where the weights do not fit the network.
    """
    folder, came_from = Path(folder), f"{source}, {foreign.program}, SHA-256 {sha256}"
    check_new(folder)
    names, null = _labels(foreign, classes or foreign.classes)
    with located(source):
        config = _settings(foreign, len(names), null, came_from)
        build.schedule(config.diffusion)  # which refuses betas that are none
        data = DataCard((config.data.channels, *foreign.size), names, scale=Scale(*zip(*foreign.scale, strict=True)))
    brought.check_fit(config, foreign.weights)
    with new_folder(folder) as partial:
        run = Run.begin(config, partial, data)
        run.keep(foreign.weights, source=came_from, notes=list(foreign.notes))
    return Imported(Run.open(folder), foreign.notes)


def _read(source: str, asked: Asked) -> tuple[Foreign, str, str]:
    path, name, notes = Path(source), source, tuple[str, ...]()
    if of_hub := not path.exists():
        if not hub.is_id(source) or path.suffix.lower() in _FILES:
            raise UserError("", source, "does not exist", "name a file, a folder, or OWNER/NAME of the Hub")
        path, name, notes = hub.fetch(source, PATTERNS)
    elif is_run(path):
        raise UserError("", source, *IS_RUN)
    if path.is_dir() and not is_folder_of_diffusers(path):
        if of_hub and (path / NAME).is_file():
            raise UserError("", source, "was published by unstir push", f"unstir pull {source}")
        other = "name one, a checkpoint of another program, or OWNER/NAME of the Hub"
        raise UserError("", source, "is no folder of diffusers: it has no model_index.json and no config.json", other)
    foreign, sha256 = read_folder(path, asked) if path.is_dir() else read_file(path, asked)
    return replace(foreign, notes=(*notes, *foreign.notes)), name, sha256


def _settings(foreign: Foreign, count: int, null: bool, came_from: str) -> Config:
    network, learned = foreign.network, foreign.diffusion.learned_variance
    channels, outputs = network.in_channels, network.out_channels or network.in_channels
    if outputs != (due := channels * (2 if learned else 1)):
        variance = "and" if learned else "without"
        raise UserError("out_channels", outputs, f"must be {due}, for an image {variance} a variance")
    ours = ModelConfig(**vars(replace(network, out_channels=0, num_classes=count)))
    return brought.settings(ours, foreign.diffusion, foreign.chain, foreign.size, origin=came_from, has_null=null)


def _labels(foreign: Foreign, names: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """The names of the classes, and whether there is one label more, which says nothing."""
    known, null = foreign.network.num_classes, foreign.has_null
    if not known:
        if names:
            raise UserError("classes", names, "were given, but this network knows none", {"classes": None})
        return (), False
    null = null or len(names) == known - 1 > 0
    if names and len(names) != known - null:
        allowed = f"{known - null}" if null else f"{known}, or {known - 1} where the last label says nothing"
        raise UserError("classes", names, f"must be {allowed}, of the {known} labels of the network")
    return names or tuple(map(str, range(known - null))), null
