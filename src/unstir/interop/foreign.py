"""A model of another program, read: what every importer returns and `importing` makes a run of."""

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from unstir.chain import Chain
from unstir.errors import UserError
from unstir.nn.config import UNetConfig
from unstir.runs.sections import DiffusionConfig


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A model read from elsewhere.

    ``program`` is whose files they were, ``network`` the config of the network (its num_classes count a label that
    says nothing, if there ``has_null`` is one), ``weights`` are by our names. Images are of ``size`` (H, W). ``notes``
    say what is not the same here.
    """

    program: str
    network: UNetConfig
    weights: dict[str, Tensor]
    diffusion: DiffusionConfig
    chain: Chain
    size: tuple[int, int]
    has_null: bool = False
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a person says of a source that does not say it itself; None is what was left out.

    ``size`` is the side of its images in pixels; ``classes`` are the names of its labels, in order.
    """

    size: int | None = None
    classes: tuple[str, ...] = ()

    def of_silent(self, source: object, *silent: str) -> dict[str, Any]:
        """What was given of the ``silent``, which the source does not say; UserError for what it says itself."""
        given = {each.name: value for each in fields(self) if (value := getattr(self, each.name)) not in (None, ())}
        if said := [name for name in given if name not in (*silent, "classes")]:
            option = said[0].replace("_", "-")
            raise UserError(f"--{option} {given[said[0]]} was given, but {source} says it itself; leave it out")
        return {name: value for name, value in given.items() if name in silent}
