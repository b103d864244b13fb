"""Maps of five quantities with gaps, in units of their own: packed, learned, drawn, filled in, and odd ones found.

    python examples/science.py FOLDER

The maps are made up: two smooth fields, of which five channels are mixtures, in units from 1e-3 to 100, and a tenth of
each map is missing in blocks. An odd map has another mixture in a part of it, which no single value gives away.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import unstir
from unstir.edit import inpaint_stack

UNITS = np.array([1.0, 10.0, 100.0, 0.1, 1e-3])[:, None, None]
MIXTURE = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0], [0.5, 1.0]])


def maps(num: int, seed: int, odd: bool = False) -> np.ndarray:
    """float32 [num, 5, 24, 40]: a tenth is NaN, and in a part of odd ones the mixture is of other signs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:24, 0:40] / 40.0
    waves = rng.normal(size=(num, 2, 4, 4, 1, 1)) / np.array([1, 1, 2, 2])[:, None, None, None]
    frequency = 2 * np.pi * np.array([1, 2, 3, 4])[:, None, None]
    shapes = [np.sin(frequency * x), np.cos(frequency * x), np.sin(frequency * y), np.cos(frequency * y)]
    fields = sum(waves[:, :, :, k] * shape for k, shape in enumerate(shapes)).sum(2)  # [num, 2, 24, 40]
    values = np.einsum("cf,nfhw->nchw", MIXTURE, fields)
    if odd:
        values[:, 2:, 6:18, 10:30] = -values[:, 2:, 6:18, 10:30]
    values = values + 0.05 * rng.normal(size=values.shape)
    for image in values:
        top, left = rng.integers(0, 24 - 8), rng.integers(0, 40 - 12)
        image[:, top : top + 8, left : left + 12] = np.nan
    return (values * UNITS + 3 * UNITS).astype(np.float32)


def train(folder: Path, steps: int, num: int) -> unstir.Run:
    """A run on maps that are packed as they are: float32, NaN where they are missing, a scale a channel."""
    np.savez(folder / "maps.npz", images=maps(num, seed=0))
    store = unstir.pack(folder / "maps.npz", folder / "store")
    recipe = unstir.load_recipe("digits")
    data = replace(recipe.data, source=str(store.path), channels=5)
    model = replace(recipe.model, in_channels=5, channels=16, attention=())
    times = {"length": f"{steps} steps", "warmup": f"{steps // 10} steps"}
    learning = replace(recipe.train, **times, batch_size=16, lr=2e-3, ema_decay=0.99, device="cpu")
    log = replace(recipe.log, held_out_images=16, held_out_times=4)
    config = replace(recipe, data=data, model=model, train=learning, log=log)
    return unstir.train_run(config, folder / "run").run


def auroc(usual: torch.Tensor, odd: torch.Tensor) -> float:
    """The share of pairs of a usual and an odd map in which the odd one has the greater score."""
    return (odd[:, None] > usual[None]).double().mean().item()


def main(folder: Path, steps: int = 1000, num: int = 512) -> dict[str, float]:
    """Everything, with what came of it: errors in standard deviations of a channel, and the AUROC of odd maps."""
    folder.mkdir(parents=True, exist_ok=True)
    model = train(folder, steps, num).model(device="cpu")
    job = unstir.Job(num=8, chain=unstir.Chain("unipc", steps=10), batch_size=8)
    drawn = unstir.sample(model, job, folder / "drawn", format="npy").folder / "images.npy"
    print(drawn, "in units: deviations", np.load(drawn).std((0, 2, 3)))

    there, gaps = torch.from_numpy(maps(8, seed=1)), torch.zeros(8, 1, 24, 40, dtype=torch.bool)
    gaps[:, :, 4:12, 4:16] = True
    filled = inpaint_stack(model, there, ~gaps, replace(job, num=4))
    hidden = gaps & ~there.isnan()
    error = ((filled.mean - there) / torch.from_numpy(UNITS))[hidden].square().mean().sqrt().item()

    scores = [
        unstir.likelihood(model, torch.from_numpy(maps(24, seed, odd)), calls=12).bits_per_dim
        for seed, odd in ((2, False), (3, True))
    ]
    found = {"error where filled in": error, "AUROC of odd maps": auroc(*scores)}
    print(found)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "science"))
