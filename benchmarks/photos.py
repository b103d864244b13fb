"""Photographs of one's own: what `unstir train photos` makes of 400 and of 5,000, with and without the shipped model.

    pip install scikit-image scikit-learn
    python benchmarks/photos.py --cifar cifar/ --out photos      # four trainings of --minutes: two hours
    python benchmarks/photos.py --out photos --table             # what is done, as Markdown

`few` are 400 squares of 64x64 pixels, cut from seven sample photographs of scikit-image and scikit-learn; `many` are
the first 2,500 ships and 2,500 horses of CIFAR-10's training images. Each training is the command a person types, with
`--train.init ""` for those from scratch. Killed at any time, the same command goes on. The 300 images that each draws
are scaled down to 32x32 and judged there: by the Frechet distance in the features of a classifier of CIFAR-10, by the
sliced Wasserstein distance, and by the search for copies. OUT/ARM.png has the first of them.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from peers.judges import BATCH, images_of
from peers.tables import table as markdown
from unstir import Job, Run, pack
from unstir.chain import FAST
from unstir.data import Store
from unstir.metrics.classifier import classifier_for
from unstir.metrics.features import Network, Outputs
from unstir.metrics.measure import measure
from unstir.metrics.memorisation import memorisation
from unstir.pictures.grid import grid

CUT = "astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "china.jpg", "flower.jpg"
FEW, EACH, CLASSES = 400, 2500, ("ship", "horse")
SIDE, JUDGED = 64, 32  # pixels of the squares, and of what is judged
NUM, SHOWN = 300, 64  # images that each draws, and of its picture
ARMS = "few-shipped", "few-scratch", "many-shipped", "many-scratch"


class Eye(Network):
    """The features of a classifier, whose classes are not those of the images that it sees."""

    name, trust = "classifier", None

    def __init__(self, classifier: Network) -> None:
        self.hash, self._classifier = classifier.hash, classifier

    def _batch(self, images: Tensor) -> Outputs:
        return Outputs(self._classifier.features(images), None)


def squares() -> Iterator[Image.Image]:
    """The sample photographs cut up, row by row."""
    import skimage.data
    import sklearn.datasets

    places = Path(skimage.data.__file__).parent, Path(sklearn.datasets.__file__).parent / "images"
    for name in CUT:
        (path,) = (place / name for place in places if (place / name).exists())
        photo = Image.open(path).convert("RGB")
        for top in range(0, photo.height - SIDE + 1, SIDE):
            for left in range(0, photo.width - SIDE + 1, SIDE):
                yield photo.crop((left, top, left + SIDE, top + SIDE))


def write_images(cifar: Path, out: Path) -> None:
    """The folders few/ and many/."""
    (out / "few").mkdir(parents=True, exist_ok=True)
    for number, square in enumerate(islice(squares(), FEW)):
        square.save(out / f"few/{number:03}.png")
    (out / "many").mkdir(exist_ok=True)
    for name in CLASSES:
        for path in sorted((cifar / "train" / name).iterdir())[:EACH]:
            (out / f"many/{name}-{path.name}").write_bytes(path.read_bytes())


def train(out: Path, arm: str, minutes: float) -> None:
    """The training of an arm, new or going on."""
    images, begun = arm.split("-")
    scratch = ["--train.init", ""] if begun == "scratch" else []
    typed = ["photos", "--data.source", images, "--minutes", f"{minutes:g}", *scratch, "--out", arm]
    if status := subprocess.run([sys.executable, "-m", "unstir", "train", *typed], cwd=out).returncode:
        raise SystemExit(status)


def smaller(images: Tensor) -> Tensor:
    """Uint8 [N, C, H, W] at the side that is judged, each pixel the mean of a square."""
    return avg_pool2d(images.float(), images.shape[-1] // JUDGED).round().to(torch.uint8)


def judged(out: Path, arm: str, cifar: Store) -> dict[str, Any]:
    """The figures of an arm; writes its picture."""
    run = Run.open(out / arm)
    model = run.model()
    chain = run.chain().changed(sampler=FAST.sampler, steps=20)
    drawn = images_of(model, Job(num=NUM, batch_size=BATCH, chain=chain))
    grid(drawn[:SHOWN]).save(out / f"{arm}.png")
    store = pack(out / arm.split("-")[0], out / f"{arm.split('-')[0]}-{JUDGED}", size=JUDGED)
    images, network = smaller(drawn), Eye(classifier_for(cifar))
    alike = min(NUM, store.count("held_out"))  # drawn images beside as many held-out ones
    sets = images[: NUM // alike * alike].split(alike)
    of = measure(store, sets, [network]) | measure(store, sets, [])
    found = memorisation(images, store.images("train"), store.images("held_out"), flip=True, features=network.features)
    bounds = run.log("held_out").lines
    return {
        "side": run.data.shape[-1],
        "channels": run.config.model.channels,
        "images": run.images_seen(model.step),
        "passes": run.images_seen(model.step) / run.data.counts["train"],
        "planned": run.length,
        "stopped": model.step,
        "bits": [line["bits"] for line in bounds],
        "copies": found.verdict,
        "says": found.says,
        **{key: (mean(of[key].by_seed), of[key].floor) for key in ("classifier/fd", "patches/swd")},
    }


def table(out: Path) -> str:
    rows = []
    for arm in ARMS:
        if (out / f"{arm}.json").exists():
            of = json.loads((out / f"{arm}.json").read_text())
            eyes = (f"{of[key][0]:.3f} ({of[key][1]:.3f})" for key in ("classifier/fd", "patches/swd"))
            what = str(of["side"]), str(of["channels"]), f"{of['images']:,}", f"{of['passes']:.0f}"
            rows.append([arm, *what, *eyes, f"{of['bits'][-1]:.2f}", of["copies"]])
    head = "", "side", "channels", "images seen", "passes", "FD-classifier (real)", "sliced Wasserstein (real)"
    return markdown([*head, "bits", "copies"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, default=Path("cifar"), help="folder with train/CLASS/*.jpg")
    parser.add_argument("--out", type=Path, default=Path("photos"))
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--arm", choices=ARMS, help="only this one")
    parser.add_argument("--table", action="store_true", help="print what is done, and train nothing")
    asked = parser.parse_args()
    if not asked.table:
        if not all((asked.cifar / "train" / name).is_dir() for name in CLASSES):
            parser.error(f"--cifar {asked.cifar} has no train/ship and train/horse")
        write_images(asked.cifar, asked.out)
        cifar = pack(asked.cifar, asked.out / "cifar")
        for arm in [asked.arm] if asked.arm else ARMS:
            if (asked.out / f"{arm}.json").exists():
                continue
            train(asked.out, arm, asked.minutes)
            (asked.out / f"{arm}.json").write_text(json.dumps(judged(asked.out, arm, cifar), default=str))
    print(table(asked.out))


if __name__ == "__main__":
    main()
