"""A plan of an evaluation: which images are judged, against what, and in whose features; and `judge`, which does it.

Images come from a run, which draws them (`Drawn`), or from anywhere else (`Images`). A protocol is all that decides a
figure but the weights, and by its hash an evaluation is kept and found.

Images that another image describes are compared with held-out pairs. If an image and n samples are drawn alike given
the condition, the squared error of the samples' mean is expected to be their variance times 1 + 1/n.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from unstir import randomness
from unstir.data import Store
from unstir.errors import UserError, within_memory
from unstir.metrics.drawn import Drawn
from unstir.metrics.evaluation import Evaluation, find, pairs_file, save
from unstir.metrics.feature_figures import FEWEST
from unstir.metrics.features import Network, as_pixels
from unstir.metrics.figures import LOWER, NEAR_ONE, Figure
from unstir.metrics.images import Images
from unstir.metrics.measure import measure, reference_size
from unstir.metrics.memorisation import Memorisation, memorisation, picture
from unstir.metrics.request import SEEDS
from unstir.pixels import from_uint8, shown
from unstir.progress import counting
from unstir.runs.conditions import some_images
from unstir.runs.files import is_writable, make_folder, save_png

logger = logging.getLogger(__name__)

PAIRS, SAMPLES = 64, 16  # held-out pairs at most, and samples for each
ERROR = "pairs/error"  # the key of a figure of them
LEAST = 2 * FEWEST  # images to compare with by features, which are halved where nothing is held out
NEW_IMAGES = 2000  # held-out images that are compared with the training images, at most

From = TypeVar("From", bound=Drawn | Images, covariant=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan(Generic[From]):
    """``seeds`` sets of ``num`` ``images`` are measured against ``num_reference`` images of ``split`` (0: all).

    ``networks`` are those whose features measure; empty for the sliced Wasserstein distance. A classifier that is not
    trusted (`features.Trust`) may be among them: the protocol says how it did, and it does not measure. With
    ``memorisation`` copies of training images are searched for; with ``flip`` mirror images count as copies too. With
    ``pairs`` images that another image describes are compared with held-out pairs (`pair_figures`).
    """

    images: From
    store: Store
    num: int
    seeds: int = SEEDS
    split: str = "train"
    num_reference: int = 0
    networks: Sequence[Network] = ()
    memorisation: bool = True
    flip: bool = False
    pairs: bool = True

    @property
    def measuring(self) -> list[Network]:
        """The networks that measure: all but a classifier that knows nothing, and none against fewer than `LEAST`."""
        few = self.store.count(self.split) < LEAST
        return [] if few else [each for each in self.networks if each.trust is None or each.trust.given]

    def protocol(self) -> dict[str, Any]:
        """All that decides a figure but the weights: what two evaluations must share to be compared."""
        return {
            "num": self.num,
            "seeds": self.seeds,
            "split": self.split,
            "num_reference": reference_size(self.store.count(self.split), self.num_reference, self.measuring),
            "data": self.store.content_hash,
            "flip": False,  # reference images are as they are stored
            "rounding": "none" if self.store.scale.is_float else "uint8, to nearest",
            "networks": {network.name: network.hash for network in self.measuring},
            "classifier": next((each.trust.entry() for each in self.networks if each.trust is not None), None),
            **self.images.protocol(self.num, self.seeds, self.store),
        }

    def known(self) -> Evaluation | None:
        """The figures of these very images by this protocol, where they are kept."""
        about, home = self.images.about, self.images.home or self.store
        saved = find(home, about.get("step", 0), self.protocol())
        if saved is None or any(about.get(key, "") != mark for key, mark in saved.marks.items()):
            return None  # the step was trained anew, or by another run
        copies = saved.memorisation if saved.memorisation and saved.memorisation.flip == self.flip else None
        return replace(saved, memorisation=copies, source=about.get("source", ""))  # they may have had another name


def check(plan: Plan[Drawn | Images]) -> None:
    """Raise UserError for a plan that cannot be carried out; the bytes of the store are read once a process."""
    if plan.seeds < 1:
        raise UserError("seeds", plan.seeds, "must be at least 1", "error bars over seeds need 2")
    plan.images.check(plan.num, plan.seeds, plan.store)
    store, count = plan.store, plan.store.count(plan.split)
    if count < 4:  # halves of two have a distance of patches
        raise UserError("", store.path, f"has {count} {plan.split} images, too few to compare with: it takes 4")
    if plan.num < FEWEST:
        raise UserError("num", plan.num, f"must be at least {FEWEST}: a distance is between sets", "better hundreds")
    if plan.num_reference and not min(LEAST, count) <= plan.num_reference <= count:
        outside = f"is outside {min(LEAST, count)}..{count}, the {plan.split} images"
        raise UserError("num_reference", plan.num_reference, outside, {"num_reference": 0})
    store.verify()


@within_memory("num")
def judge(plan: Plan[Drawn | Images]) -> Evaluation:
    """The figures of the images of a plan, measured now or taken from where they are kept: the run, or the store.

    What a kill left unfinished is done by the same call: images that a run drew are kept. Raises UserError as `check`,
    and where images cannot be drawn.
    """
    check(plan)
    known = plan.known()
    lacking = plan.pairs and not (known and ERROR in known.figures)
    pairs = paired(plan.images, plan.store) if lacking and isinstance(plan.images, Drawn) else None
    if known is not None and pairs is None and (known.memorisation is not None or not plan.memorisation):
        return known
    home = plan.images.home or plan.store
    keeping = is_writable(home.path)
    sets = plan.images.sets(plan.num, plan.seeds)
    with counting("measuring", ""):
        if (evaluation := known) is None:
            labels, about = plan.images.classes(plan.num, plan.seeds), {"step": 0, "images": 0, **plan.images.about}
            figures = _finite(measure(plan.store, sets, plan.measuring, plan.split, plan.num_reference, labels=labels))
            evaluation = Evaluation(**about, protocol=plan.protocol(), figures=figures)
        if pairs is not None:
            evaluation = replace(evaluation, figures=evaluation.figures | _finite(pair_figures(*pairs, plan.store)))
        if plan.memorisation:
            file = pairs_file(home, evaluation) if keeping else None
            result = search_copies(plan, sets, file, **evaluation.marks)
            evaluation = replace(evaluation, memorisation=result)
    if keeping:
        save(home, evaluation)
    else:
        logger.warning(f"{home.path} cannot be written to: the figures are not kept")
    return evaluation


def _finite(figures: dict[str, Figure]) -> dict[str, Figure]:
    for key in [key for key, figure in figures.items() if not figure.finite]:
        logger.warning(f"{figures.pop(key).name} is left out: too few values are there, or vary")
    return figures


def search_copies(
    plan: Plan[Drawn | Images], sets: Sequence[Tensor], drawing: Path | None, **words: str
) -> Memorisation:
    """Search for copies among all sets together, and draw the closest into a PNG file with the ``words`` as text."""
    features = next((network.features for network in plan.measuring if network.name == "classifier"), None)
    label = plan.protocol()["label"]
    result, images = search(torch.cat(list(sets)), plan.store, label, flip=plan.flip, features=features)
    if drawing is not None:
        channels = plan.images.model.channels if isinstance(plan.images, Drawn) else ()
        make_folder(drawing.parent)
        save_png(drawing, picture(result, *(shown(from_uint8(part), channels) for part in images)), **words)
    return result


def search(images: Tensor, store: Store, label: object = None, **how: Any) -> tuple[Memorisation, list[Tensor]]:
    """The `memorisation` of images in units of a store; and these, training and held-out images as it sees them."""
    parts = [as_pixels(part, store) for part in (images, store.images("train"), held_out_like(store, label))]
    return memorisation(*parts, **how), parts


def held_out_like(store: Store, label: object) -> Tensor:
    """At most `NEW_IMAGES` held-out images, uint8 [N, C, H, W]; of class ``label`` alone where it is a number."""
    labels, kept = store.labels("held_out"), torch.arange(store.count("held_out"))  # some classes lie nearer together
    if isinstance(label, int) and labels is not None:
        kept = kept[labels == label]
    some = randomness.Order(0, "memorisation", 0, len(kept))[:NEW_IMAGES]
    return store.images("held_out")[kept[some].sort().values]


def paired(drawn: Drawn, store: Store) -> tuple[Drawn, int] | None:
    """What draws `SAMPLES` images for each of some held-out conditions, and how many; None unless these are images."""
    conditions, pairs = drawn.model.conditions, some_images(store, "held_out", PAIRS)
    if conditions is None or not conditions.is_image or len(pairs) < 2:
        return None
    rows = conditions.rows_of(store, "held_out", pairs)
    return replace(drawn, condition=rows.repeat_interleave(SAMPLES, 0)), len(pairs) * SAMPLES


def pair_figures(drawn: Drawn, num: int, store: Store) -> dict[str, Figure]:
    """The figures of pairs (docs/evaluation.md), of ``num`` images (`paired`), drawn as far as they are not there."""
    images = store.scale.to_model(drawn.sets(num, 1)[0]).double().view(-1, SAMPLES, *store.shape)
    real = store.scale.to_model(store.images("held_out")[some_images(store, "held_out", PAIRS)]).double()
    errors = (images.mean(1) - real).square().flatten(1).nanmean(1)
    variances = (1 + 1 / SAMPLES) * images.var(1).where(~real.isnan(), torch.nan).flatten(1).nanmean(1)
    error, ratio = errors.mean(), (variances.mean() / errors.mean()).sqrt()
    # of the square root of a ratio of means, by its derivatives (the delta method)
    of_ratio = (variances - ratio.square() * errors) / (2 * ratio * error)

    def figure(name: str, better: str, value: Tensor, parts: Tensor) -> Figure:
        deviation = parts.std().item() / len(parts) ** 0.5
        return Figure(name=name, better=better, by_seed=(value.item(),), bootstrap=deviation, num_reference=len(parts))

    of_error = figure(f"error of the mean of {SAMPLES}", LOWER, error, errors)
    return {ERROR: of_error, "pairs/spread": figure("spread over error", NEAR_ONE, ratio, of_ratio)}
