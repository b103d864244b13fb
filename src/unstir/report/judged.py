"""The samples that were evaluated, shown with real images of each class, and the worst of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unstir.chain import Chain
from unstir.data import Store
from unstir.errors import UserError
from unstir.generate.folder import SETTINGS, read_images
from unstir.metrics.classifier import FILE, Classifier, classifier_for
from unstir.metrics.evaluation import SHARES, Evaluation
from unstir.metrics.nearest import nearest, nearest_features
from unstir.metrics.reference import reference
from unstir.pictures.grid import grid
from unstir.report.pictures import Picture, encode
from unstir.runs.lines import decode
from unstir.runs.run import Run

CLASSES, OF_CLASS = 20, 6
"""So many classes are shown at most, with so many real images and samples each."""

WORST, COLUMNS = 16, 8


@dataclass(frozen=True, eq=False)
class Drawn:
    """Samples, uint8 [N, C, H, W], and the classes that they were asked to show, int64 [N], None without any."""

    images: Tensor
    asked: Tensor | None


@dataclass(frozen=True)
class OfClass:
    """A class by its name: real images and samples of it; ``samples`` is None where there are none."""

    name: str
    real: Picture
    samples: Picture | None


@dataclass(frozen=True)
class Worst:
    """The samples that lie farthest from all training images, the same of held-out images, and how they were chosen."""

    samples: Picture
    held_out: Picture | None
    how: str


def drawn_for(run: Run, evaluation: Evaluation) -> Drawn | None:
    """The samples of an evaluation, all its seeds together, from RUN/generated; None where they are not all there."""
    num, images, asked = evaluation.protocol["num"], {}, None
    for file in (run.path / "generated").glob(f"*/{SETTINGS}"):
        try:
            settings = decode(file.read_bytes())
            chain, shares = Chain(**settings["chain"]), tuple(settings.get("shares", ()))
            if not _is_of(settings, evaluation):
                continue
            label = settings["label"]
            images[chain.seed] = read_images(file.parent, num)
        except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError):  # half drawn, or not ours
            continue
        asked = run.labels.of(torch.arange(num), label, shares)
    if len(images) != evaluation.protocol["seeds"]:
        return None
    together = torch.cat([images[seed] for seed in sorted(images)])
    return Drawn(together, None if asked is None else asked.repeat(len(images)))


def _is_of(settings: dict[str, object], evaluation: Evaluation) -> bool:
    """Whether a folder with these settings has images that ``evaluation`` measured."""
    how, chain = evaluation.protocol, settings["chain"]
    assert isinstance(chain, dict)
    alike = all(how[key] == value for key, value in chain.items() if key not in ("steps", "seed"))
    label = SHARES if settings.get("shares") else settings["label"]
    asked = (how["calls"], how["dtype"], how["label"], evaluation.step, evaluation.weights)
    known = (settings["calls"], settings["dtype"], label, settings["step"], settings["weights"])
    return alike and asked == known and chain["seed"] in range(how["seed"], how["seed"] + how["seeds"])


def classifier_of(store: Store, evaluation: Evaluation) -> Classifier | None:
    """The classifier that an evaluation was made with, if the store still has it."""
    digest = evaluation.protocol["networks"].get("classifier")
    if digest is None or not (store.path / FILE).exists():
        return None
    found = classifier_for(store)
    return found if found.hash == digest else None


def by_class(store: Store, drawn: Drawn | None, classifier: Classifier | None) -> list[OfClass]:
    """Real images and samples of each of the first classes: asked for, or else what the classifier predicts."""
    real = store.labels("train")
    if real is None or len(store.classes) < 2:
        return []
    samples, predicted = torch.empty(0, *store.shape, dtype=torch.uint8), torch.empty(0)
    if drawn is not None and drawn.asked is not None:
        samples, predicted = drawn.images, drawn.asked
    elif drawn is not None and classifier is not None:
        samples, predicted = drawn.images, classifier.probabilities(drawn.images).argmax(1)
    found = []
    for index, name in enumerate(store.classes[:CLASSES]):
        own = samples[predicted == index][:OF_CLASS]
        images = store.images("train")[torch.nonzero(real == index)[:OF_CLASS, 0]]
        if len(images):
            shown = _row(own, f"samples of class {name}") if len(own) else None
            found.append(OfClass(name, _row(images, f"real images of class {name}"), shown))
    return found


def worst(run: Run, store: Store, drawn: Drawn, classifier: Classifier | None) -> Worst:
    """The samples farthest from their nearest training image, in the classifier's features or else by pixels."""
    held_out = store.images("held_out")
    if classifier is not None:
        train, by = reference(store, "train", classifier).features, "in the classifier's features"
    else:
        train, by = store.images("train"), "by pixels, which favours strong contrast"

    flip = run.config.data.flip

    def far(images: Tensor) -> Tensor:
        if classifier is None:
            return nearest(images, train, flip=flip).distance[:, 0]
        views = [images, images.flip(-1)] if flip else [images]  # a run that mirrors may draw either
        each = [nearest_features(classifier.features(view), train).distance[:, 0] for view in views]
        return torch.stack(each).min(0).values

    shown, span = _farthest(drawn.images, far(drawn.images), "the worst samples")
    how = f"The {min(WORST, len(drawn.images))} of {len(drawn.images):,} samples that lie farthest from their nearest "
    how += f"of {len(train):,} training images {by}: {span}."
    if not len(held_out):
        return Worst(shown, None, how)
    shows = "the held-out images that lie farthest from the training images"
    real, span = _farthest(held_out, far(held_out), shows)
    how += f" Next to them the farthest of {len(held_out):,} held-out images by the same measure: {span}."
    return Worst(shown, real, how)


def _farthest(images: Tensor, far: Tensor, shows: str) -> tuple[Picture, str]:
    """The images of the largest distances, and these distances, falling."""
    order = far.argsort(descending=True, stable=True)[:WORST]
    span = f"distances {far[order[0]].item():.3g} to {far[order[-1]].item():.3g}"
    return encode(grid(images[order], COLUMNS), shows), span


def _row(images: Tensor, shows: str) -> Picture:
    return encode(grid(images, OF_CLASS), shows)
