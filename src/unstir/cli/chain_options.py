"""The options of a chain, for every command that samples: fields of `Chain` with its help, each None unless given."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar, get_type_hints

from cyclopts import Group, Parameter
from pydantic import TypeAdapter

from unstir.chain import DEFAULTS, OPTIONS, SAMPLERS, Chain
from unstir.cli.train_help import as_typed

HELP = {name: each["description"] for name, each in TypeAdapter(Chain).json_schema()["properties"].items()}
HELP["guide"] = (
    "What guidance leads away from: a less trained step (1000), another run (its folder), or its step (RUN@1000); by "
    "default the network without its label."
)
Options = TypeVar("Options", bound="Given")


class Given:
    """What was given of a chain on the command line."""

    sampler_of_all: ClassVar[str | None] = None
    """The sampler of a command that leaves no choice."""

    @property
    def guide(self) -> str | None:
        """What guidance leads away from; None in a command that does not take it."""
        return None

    def given(self) -> dict[str, Any]:
        """The settings that were given, for `Chain.changed`."""
        values = {"sampler": self.sampler_of_all, **vars(self)}
        return {name: value for name, value in values.items() if value is not None and name in DEFAULTS}


def options(*names: str, **defaults: object) -> Callable[[type[Options]], type[Options]]:
    """Make these fields of `Chain` the options of a class; what has no default here is None unless given."""
    kinds = {**get_type_hints(Chain), "guide": str}
    chosen = {name: kind for name, kind in kinds.items() if name in (*names, *defaults)}

    def made(cls: type[Options]) -> type[Options]:
        for name, kind in chosen.items():
            cls.__annotations__[name] = Annotated[kind | None, Parameter(help=HELP[name])]
            setattr(cls, name, defaults.get(name))
        named = Parameter(name="*", name_transform=lambda name: name.replace("_", "-"))
        return named(dataclass(frozen=True, kw_only=True)(cls))

    return made


OF_EVERY_CHAIN = {*DEFAULTS, "guide"} - {"seed"}


@options(*OF_EVERY_CHAIN)
class ChainOptions(Given):
    """How to sample."""


@options(*OF_EVERY_CHAIN - {"sampler", *OPTIONS}, *SAMPLERS["ancestral"].options)
class FillOptions(Given):
    """The ancestral chain, which filling in takes."""

    sampler_of_all = "ancestral"


@options("steps", "clip", spacing="log_snr")
class InvertOptions(Given):
    """Times that invert best, whatever the run's: even in log-SNR no step is too long to be inverted."""


def chain_group(options: type) -> Group:
    """The group of a command's chain options, which says what they are by default."""
    names = [each.name for each in dataclasses.fields(options) if each.name in DEFAULTS and each.default is None]
    said = ", ".join(f"{name} {as_typed(DEFAULTS[name])}" for name in names)
    text = f"Defaults are as in the run's [grids] settings: {said}, unless its recipe or config differs."
    return Group("Chain", help=text)
