"""A model of another program, read: what every importer returns and `importing` makes a run of."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unstir.chain import Chain
from unstir.errors import UserError, is_out_of_memory
from unstir.nn.config import UNetConfig
from unstir.runs.sections import DiffusionConfig

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A model read from elsewhere.

    ``program`` is whose files they were, ``network`` the config of the network (its num_classes count the label that
    says nothing, if it ``has_null``), ``weights`` are by our names. Images are of ``size`` (H, W), in units by a
    ``scale``, (low, high) by channel, or pixels. ``notes`` say what is not the same here.
    """

    program: str
    network: UNetConfig
    weights: "dict[str, Tensor]"
    diffusion: DiffusionConfig
    chain: Chain
    size: tuple[int, int]
    has_null: bool = False
    classes: tuple[str, ...] = ()
    scale: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a source may leave out; each has a usual value, which is noted."""

    size: int | None = None
    """Side of its images in pixels."""
    classes: tuple[str, ...] = ()
    """Names of its classes, in the order of their numbers, without a last label that means no class."""
    beta_1: float | None = None
    """First variance of the linear schedule."""
    beta_T: float | None = None
    """Last variance of the linear schedule."""

    def of_silent(self, *silent: str) -> dict[str, Any]:
        """What was given of the ``silent``, which the source does not say; UserError for what it says itself."""
        given = {name: value for name, value in vars(self).items() if value is not None and name != "classes"}
        if known := [name for name in given if name not in silent]:
            raise UserError(known[0], given[known[0]], "was given, but the model says it itself", {known[0]: None})
        return given


@contextmanager
def located(source: object) -> Iterator[None]:
    """Every UserError of this block has its place in the ``source``; what damage raises becomes one."""
    try:
        yield
    except UserError as error:
        raise error.at(source) from None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError("", source, f"holds what its program would not write ({reason})", "fetch it again") from None


def known_setting(settings: Mapping[str, Any], key: str, allowed: Collection[Any], default: Any = None) -> Any:
    """The value of a setting; UserError where it is not one of those that have an equal here."""
    if (value := settings.get(key, default)) not in allowed:
        raise UserError(key, value, "has no equal here", f"it must be one of {', '.join(map(str, allowed))}")
    return value
