"""What earlier evaluations say for a new one: of how many images it should be, and which of them it compares with."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from unstir.metrics.evaluation import Evaluation, best_match, unlike


class Planned(Protocol):
    """A plan of an evaluation."""

    def protocol(self) -> dict[str, Any]:
        """All that decides a figure but the weights."""


def known_number(plans: Sequence[Planned], evaluations: Sequence[Evaluation]) -> int:
    """The most images per set of the ``evaluations`` that are by one of the plans but for their number; 0 without any.

    A network that is awaited is taken for that of the evaluation.
    """
    asked, known = [plan.protocol() for plan in plans], [each.protocol for each in evaluations]
    return max(
        (its["num"] for its in known for mine in asked if not unlike(as_far_as_known(mine, its), its, ("num",))),
        default=0,
    )


def match(plan: Planned, others: Sequence[Evaluation], name: str, any_number: bool = False) -> Evaluation:
    """The newest of ``others``, those of what is called ``name``, by the protocol of ``plan``; else as `best_match`.

    What only an awaited network will tell is taken to be alike, and so is the number of images with ``any_number``.
    """
    asked, left = plan.protocol(), ("num",) if any_number else ()
    return best_match(lambda its: as_far_as_known(asked | {key: its[key] for key in left}, its), others, name)


def as_far_as_known(protocol: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """A protocol with what only an awaited network will tell, its hash and its accuracy, taken from an ``other``."""
    networks = {name: digest or other["networks"].get(name, "") for name, digest in protocol["networks"].items()}
    found = {**protocol, "networks": networks}
    if protocol["networks"].get("classifier") == "":
        found["classifier"] = entry = other.get("classifier")
        if entry and not entry["used"]:  # it may turn out to be one that is not trusted
            del networks["classifier"]
            found["num_reference"] = other["num_reference"]
    return found
