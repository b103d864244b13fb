"""Maps of five quantities with gaps, in units of their own: packed, learned, drawn, filled in, and odd ones found.

    python examples/science.py FOLDER

The maps are made up: two smooth fields, of which five channels are mixtures, in units from 1e-3 to 100. A block of each
is missing, and a number, its strength, is known beside it. In an odd map the last channel is a mixture with other
shares, which no value and no channel alone gives away.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import unstir

UNITS = np.array([1.0, 10.0, 100.0, 0.1, 1e-3])[:, None, None]
MIXTURE = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0], [0.5, 1.0]])
ODD = np.array([*MIXTURE[:4], [0.1, 1.1]])  # of the same deviation
GAP = slice(6, 14), slice(10, 22)  # what is filled in


def maps(num: int, seed: int, odd: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Maps, float32 [num, 5, 24, 40] with NaN where they are missing, and their strengths [num, 1]."""
    rng = np.random.default_rng(seed)
    strength = rng.uniform(0.5, 1.5, (num, 1))
    phases, y, x = rng.uniform(0, 2 * np.pi, (num, 2, 2, 1, 1)), *(np.mgrid[0:24, 0:40] * (2 * np.pi / 40))
    fields = np.sin(x + phases[:, :, 0]) + np.cos(y - x + phases[:, :, 1])  # [num, 2, 24, 40]
    values = np.einsum("cf,nfhw->nchw", ODD if odd else MIXTURE, strength[:, :, None, None] * fields)
    values = (values + 0.05 * rng.normal(size=values.shape) + 3) * UNITS
    for image, top, left in zip(values, rng.integers(0, 16, num), rng.integers(0, 28, num), strict=True):
        image[:, top : top + 8, left : left + 12] = np.nan
    return values.astype(np.float32), strength.astype(np.float32)


def train(folder: Path, steps: int, num: int) -> unstir.Run:
    """A run on maps that are packed as they are: float32, NaN where they are missing, a scale a channel."""
    images, strengths = maps(num, seed=0)
    np.savez(folder / "maps.npz", images=images, conditions=strengths)
    store = unstir.pack(folder / "maps.npz", folder / "store")
    recipe = unstir.load_recipe("digits")
    data = replace(recipe.data, source=str(store.path), channels=5, condition="stored")
    model = replace(recipe.model, in_channels=5, channels=16, attention=(), condition_values=1)
    times = {"length": f"{steps} steps", "warmup": f"{steps // 10} steps", "condition_dropout": 0.1}
    learning = replace(recipe.train, **times, batch_size=16, ema_decay=0.95, device="cpu")
    log = replace(recipe.log, held_out_images=8, held_out_times=2)
    grids = replace(recipe.grids, num=8, steps=10, log_spaced=1, channels=(0, 1, 2))
    config = replace(recipe, data=data, model=model, train=learning, log=log, grids=grids)
    return unstir.train_run(config, folder / "run").run


def auroc(usual: torch.Tensor, odd: torch.Tensor) -> float:
    """The share of pairs of a usual and an odd map in which the odd one has the greater score."""
    return (odd[:, None] > usual[None]).double().mean().item()


def main(folder: Path, steps: int = 1000, num: int = 512) -> dict[str, float]:
    """Everything, with what came of it, in the units: the deviation of the drawn, the error of what is filled in; and
    the AUROC of the bits of odd maps."""
    folder.mkdir(parents=True, exist_ok=True)
    model = train(folder, steps, num).model(device="cpu")
    job = unstir.Job(num=4, chain=unstir.Chain("unipc", steps=10), condition=torch.tensor([1.5]))
    drawn = np.load(unstir.sample(model, job, folder / "drawn").folder / "images.npy")  # float32 [4, 5, 24, 40]

    hidden = torch.from_numpy(maps(4, seed=1)[0])
    given = hidden.clone()
    given[:, :, GAP[0], GAP[1]] = torch.nan
    filled = unstir.inpaint_stack(model, given, None, replace(job, num=2, condition=None))
    errors = ((filled.mean - hidden) / torch.from_numpy(UNITS))[:, :, GAP[0], GAP[1]]

    scored = [maps(16, seed, odd) for seed, odd in ((2, False), (3, True))]
    bits = [
        unstir.likelihood(model, torch.from_numpy(images), condition=torch.from_numpy(strengths), calls=8)
        for images, strengths in scored
    ]
    return {
        "drawn": float((drawn.std((0, 2, 3)) / UNITS[:, 0, 0]).mean()),
        "filled in": errors[~errors.isnan()].square().mean().sqrt().item(),
        "auroc": auroc(*(result.bits_per_dim for result in bits)),
    }


if __name__ == "__main__":
    print(main(Path(sys.argv[1] if len(sys.argv) > 1 else "science")))
