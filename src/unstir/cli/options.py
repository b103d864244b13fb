"""Options that several commands share: what they read, how they sample, and with which weights they compute."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

from cyclopts import Group, Parameter
from cyclopts.help import DefaultFormatter
from pydantic import TypeAdapter
from rich.markup import escape

from unstir.chain import DEFAULTS, OPTIONS, SAMPLERS, Chain
from unstir.cli.values import is_folder
from unstir.errors import UserError, printable
from unstir.parts import Option, SamplerName
from unstir.runs import toml
from unstir.runs.config import Config

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

    from unstir.runs.model import Model
    from unstir.runs.run import Run

MOST_USED = (
    "--out", "--data.source", "--data.size", "--by-class", "--minutes", "--model.channels", "--model.num_classes",
    "--train.length", "--train.batch_size", "--train.lr", "--train.device", "--seed",
)  # fmt: skip
"""What most people set; the other settings stand by section."""
SETTINGS = "Parameters"  # the title under which cyclopts gathers all options


class _SettingsFormatter(DefaultFormatter):
    """Prints the settings in sections, with the values of a ``config`` as defaults, and names its ``source``."""

    config, source = Config(), ""

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        if panel.title != SETTINGS:
            super().__call__(console, options, panel)
            return
        values, entries = toml.flat(self.config), {}
        for entry in panel.entries:
            name = entry.positive_names[0]
            value = values.get(name.removeprefix("--"))
            entries[name] = entry.copy(default=None if value in (None, "", []) else as_typed(value))
        most_used = f"Most used, with the values of {escape(printable(self.source))}"
        panels = {most_used: [entries.pop(name) for name in MOST_USED]}
        for section, settings in vars(self.config).items():
            if is_dataclass(settings):  # entitled with its name and the first words about it
                about = re.split("[:;,.]", inspect.getdoc(type(settings)) or "")[0].replace("`", "")
                own = [entry for name, entry in entries.items() if name.startswith(f"--{section}.")]
                panels[f"{section}: {about}"] = own
        for title, own in panels.items():
            super().__call__(console, options, panel.copy(title=title, entries=own))


FORMATTER = _SettingsFormatter()  # that of `unstir train`


def as_typed(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


OutFolder = Annotated[Path, Parameter(validator=is_folder)]
RunFolder = Annotated[Path, Parameter(help="Folder of the run, or a model of `unstir models`.")]
StoreFolder = Annotated[Path | None, Parameter(help="Folder of the packed data, if it has moved.")]


def check_one(run: object, images: object) -> None:
    """Raise UserError unless either a run or images were named."""
    if bool(run) == bool(images):
        raise UserError("", None, "either a run or images must be named", "give its folder, or --images")


ChartFormat = Literal["png", "svg", "pdf"]

FLAT = Parameter(name="*", name_transform=lambda name: name.replace("_", "-"))
"""Of a class: each of its fields is an option of the command, `--batch-size` for ``batch_size``."""

HELP = {name: each["description"] for name, each in TypeAdapter(Chain).json_schema()["properties"].items()}
HELP["guide"] = (
    "What guidance leads away from: a step of this run (1000), another run, or its step (RUN@1000). By default it is "
    "the network without the label."
)
Options = TypeVar("Options", bound="Given")


class Given:
    """What was given of a chain on the command line; None is what was left out, or what the command does not take."""

    guide: str | None = None

    def given(self) -> dict[str, Any]:
        """The settings that were given, for `Chain.changed`."""
        given = {name: value for name in DEFAULTS if (value := getattr(self, name, None)) is not None}
        usual = {name: getattr(type(self), name) for name in ("steps", "spacing") if given.get("times")}
        return {name: value for name, value in given.items() if value != usual.get(name)}


def options(*names: str, **defaults: object) -> Callable[[type[Options]], type[Options]]:
    """Make these fields of `Chain` the options of a class; what has no default here is None unless given."""
    kinds = {**get_type_hints(Chain), "sampler": SamplerName, "options": dict[str, Option], "guide": str}

    def made(cls: type[Options]) -> type[Options]:
        for name, kind in kinds.items():
            if name in (*names, *defaults):
                cls.__annotations__[name] = Annotated[kind | None, Parameter(help=HELP[name])]
                setattr(cls, name, defaults.get(name))
        made = dataclass(frozen=True, kw_only=True)(cls)
        return FLAT(Parameter(group=_group(made))(made))

    return made


def _group(options: type) -> Group:
    plain = {name for name, value in DEFAULTS.items() if value not in ({}, ())}
    names = [each.name for each in fields(options) if each.name in plain and each.default is None]
    said = ", ".join(f"{name} {as_typed(DEFAULTS[name])}" for name in names)
    text = f"The run's [grids] settings are the defaults. Unless its recipe or config differs they are: {said}."
    return Group("Chain", help=text)


_OF_EVERY_CHAIN = {*DEFAULTS, "guide"} - {"seed"}


@options(*_OF_EVERY_CHAIN)
class ChainOptions(Given):
    """How to sample."""


@options(*_OF_EVERY_CHAIN - {"sampler", "options", *OPTIONS}, *SAMPLERS["ancestral"].options, steps=9)
class FillOptions(Given):
    """The ancestral chain, which filling in takes, each step several times."""

    sampler = "ancestral"


@options("steps", "clip", spacing="log_snr")
class InvertOptions(Given):
    """Times that invert best, whatever the run's: even in log-SNR no step is too long to be inverted."""


@FLAT
@dataclass(frozen=True, kw_only=True)
class WeightOptions:
    """Which weights."""

    checkpoint: int | Literal["best"] | None = None
    """The saved step whose weights are used, or best, that of least held-out loss; by default the newest."""
    ema: bool = True
    """Use the averaged weights where the run has them."""
    ema_width: float | None = None
    """Use an average of this width instead, a fraction of the training so far (0.05 is short, 0.2 long). The run must
    be trained with train.power_ema."""

    def model(self, run: "Run", **how: Any) -> "Model":
        """The model of the run that these options name; ``how`` and errors as `Run.model`."""
        from unstir.runs.model import chosen_average

        return run.model(self.checkpoint, ema=chosen_average(self.ema, self.ema_width), **how)


@FLAT
@dataclass(frozen=True, kw_only=True)
class ModelOptions(WeightOptions):
    """Which weights, where, and in which arithmetic."""

    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    """Arithmetic inside the network."""
    compile: Literal["no", "yes", "graphs"] = "no"
    """Compile the network with torch.compile; graphs also records CUDA graphs on a GPU."""
    device: str = "auto"
    """"auto", "cpu", "cuda", "cuda:1" or "mps"."""

    def model(self, run: "Run", guide: str | None = None, **how: Any) -> "Model":
        """The model of the run that these options name; errors as `Run.model`."""
        return super().model(run, device=self.device, dtype=self.dtype, compile=self.compile, guide=guide, **how)
