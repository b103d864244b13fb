"""How sets of images are judged, whoever made them: against what, in whose features, and whether they are copies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from unstir import randomness
from unstir.data import SPLITS, Store
from unstir.errors import UserError
from unstir.metrics.classifier import networks_for, networks_there, preparing_seconds
from unstir.metrics.features import Awaited, Network
from unstir.metrics.floor import FEWEST
from unstir.metrics.inception import NAME, SHA256
from unstir.metrics.measure import reference_size
from unstir.metrics.memorisation import Memorisation, memorisation, picture
from unstir.metrics.request import EvaluationRequest
from unstir.progress import Say, Showing, counted, silently, waiting
from unstir.runs import build
from unstir.runs.files import is_writable, make_folder, replacing

NEW_IMAGES = 2000  # held-out images that are compared with the training images, at most
ON_CPU = 2000  # reference images of Inception on a CPU, which computes some 5 to 10 a second


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """Against what ``seeds`` sets of images are measured: ``num_reference`` images of ``split`` (0: all).

    ``networks`` are those whose features measure; empty for the sliced Wasserstein distance. A classifier that is not
    trusted (`features.Trust`) may be among them: the protocol says how it did, and it does not measure.
    """

    seeds: int = 3
    split: str = "train"
    num_reference: int = 0
    networks: Sequence[Network] = ()
    memorisation: bool = True

    @property
    def measuring(self) -> list[Network]:
        """The networks that measure: all but a classifier that knows nothing."""
        return [network for network in self.networks if network.trust is None or network.trust.given]

    def judged(self, num: int, data: str, counts: Mapping[str, int]) -> dict[str, Any]:
        """What a protocol says of how ``num`` images a set are judged, against data of this hash and these numbers."""
        return {
            "num": num,
            "seeds": self.seeds,
            "split": self.split,
            "num_reference": reference_size(counts[self.split], self.num_reference, self.measuring),
            "data": data,
            "flip": False,  # reference images are as they are stored
            "rounding": "uint8, to nearest",
            "networks": {network.name: network.hash for network in self.measuring},
            "classifier": next((each.trust.entry() for each in self.networks if each.trust is not None), None),
        }


Judged = TypeVar("Judged", bound=Judgement)


def check_judgement(store: Store, plan: Judgement, num: int) -> None:
    """Raise UserError where sets of ``num`` images cannot be judged so, or the bytes of the store are damaged.

    These are read once a process.
    """
    if plan.split not in SPLITS:
        raise UserError(f"split={plan.split!r} is unknown; choose one of {', '.join(SPLITS)}")
    count, least = store.count(plan.split), 2 * FEWEST  # it is halved where no floor can be drawn from other images
    if count < least:
        raise UserError(
            f"{store.path} has {counted(count, f'{plan.split} image')}, too few to compare with: it takes {least}"
        )
    if num < FEWEST:
        raise UserError(f"num={num} must be at least {FEWEST}: a distance is between sets; better hundreds")
    if plan.seeds < 1:
        raise UserError(f"seeds={plan.seeds} must be at least 1; error bars over seeds need 2")
    if plan.num_reference and not least <= plan.num_reference <= count:
        raise UserError(
            f"num_reference={plan.num_reference} is outside {least}..{count}, the {plan.split} images; 0 is all"
        )
    store.verify()


def judges(store: Store, request: EvaluationRequest) -> dict[str, Any]:
    """The settings of a `Judgement` that a request asks for; a network that is not there yet is awaited.

    Raises UserError for an unknown split.
    """
    count, networks, reference = store.count(request.split), networks_there(store), request.reference
    if request.inception:
        networks.append(Awaited(NAME, "" if request.features else SHA256))
        if not reference and build.device(request.device).type == "cpu":
            reference = min(count, max(ON_CPU, request.num))
    return {"split": request.split, "num_reference": reference, "networks": tuple(networks)}


def with_inception(plan: Judged, loaded: Network) -> Judged:
    """The plan with the network of `judges` that was awaited, now that it is loaded."""
    return replace(plan, networks=(*plan.networks[:-1], loaded))


def say_preparing(store: Store, say: Say) -> None:
    """Say how long training the store's classifier will take, where it is still to be trained."""
    if preparing := preparing_seconds(store):
        kept = is_writable(store.path / "statistics")
        again = "once for this data" if kept else f"at every call, for {store.path} cannot be written to"
        say(f"{waiting(preparing)} to train the classifier, {again}")


def prepared(store: Store, plans: Sequence[Judged], showing: Showing = silently) -> list[Judged]:
    """The plans with their classifier trained, once for all, where it is awaited."""
    if not any(network.awaited and network.name == "classifier" for plan in plans for network in plan.networks):
        return list(plans)
    (found,) = networks_for(store, showing)
    trained = [tuple(found if each.name == found.name else each for each in plan.networks) for plan in plans]
    return [replace(plan, networks=networks) for plan, networks in zip(plans, trained, strict=True)]


def held_out_like(store: Store, label: int | None) -> Tensor:
    """At most `NEW_IMAGES` held-out images, uint8 [N, C, H, W]; of class ``label`` alone where one was asked for.

    Images of some classes lie nearer to each other than those of others do, which is no sign of copies.
    """
    labels, kept = store.labels("held_out"), torch.arange(store.count("held_out"))
    if label is not None and labels is not None:
        kept = kept[labels == label]
    some = randomness.Order(0, "memorisation", 0, len(kept))[:NEW_IMAGES]
    return store.images("held_out")[kept[some].sort().values]


def search_copies(
    store: Store, sets: Sequence[Tensor], plan: Judgement, label: int | None, flip: bool, drawing: Path | None
) -> Memorisation:
    """Search for copies of training images among all sets together, and draw the closest pairs into a PNG file.

    ``label`` is the class of all images, if they are of one; with ``flip`` mirror images count too.
    """
    images = torch.cat(list(sets)), store.images("train"), held_out_like(store, label)
    features = next((network.features for network in plan.measuring if network.name == "classifier"), None)
    found = memorisation(*images, flip=flip, features=features)
    if drawing is not None:
        make_folder(drawing.parent)
        with replacing(drawing) as partial:
            picture(found, *images).save(partial, format="png")
    return found
