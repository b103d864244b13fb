"""unstir: what its commands do, by the functions that they call.

A training step is the trainer's own, with its batch from the packed store, its logged figures and its reproducible
randomness, all of which the peers' steps are timed without.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peers.kept import changed
from peers.sizes import Size, T
from unstir.data import Store, pack
from unstir.nn.config import ModelConfig
from unstir.runs.config import Config
from unstir.runs.sections import DataConfig, DiffusionConfig, LogConfig, TrainConfig
from unstir.train.launch import open_run
from unstir.train.trainer import Trainer


def settings(size: Size, device: torch.device, dtype: str, ema: bool) -> Config:
    """The config of a run with the same work as the peers': AdamW, clipping at norm 1, no average of the weights."""
    model = {key: getattr(size, key) for key in ("channels", "mults", "attention", "num_blocks", "groups", "dropout")}
    train = {
        "length": "100000 steps",
        "batch_size": size.batch,
        "optimizer": "adamw",
        "lr": 1e-4,
        "warmup": "0 steps",
        "clip": 1.0,
        "ema_decay": 0.9999 if ema else 0.0,
        "dtype": dtype,
        "compile": "no",
        "device": str(device),
    }
    return Config(
        data=DataConfig(source="images"),
        model=ModelConfig(**model),
        diffusion=DiffusionConfig(T=T),
        train=TrainConfig(**train),
        log=LogConfig(held_out_images=0),
    )


def store_of(images: Path, folder: Path) -> Store:
    """The images packed, as training does before its first step."""
    return pack(images, folder, held_out=0.0)


def trainer_of(folder: Path, store: Store, config: Config) -> Trainer:
    """A run in a new folder, ready to take its first step."""
    return Trainer(open_run(changed(config, {"data.store": str(store.path)}), folder, store), store)


def model_of(trainer: Trainer, dtype: str, device: torch.device, how: str = "no") -> Any:
    """The model of the trainer's weights, as commands that sample load it; ``how`` it is compiled."""
    from unstir import Run
    from unstir.runs import checkpoint

    run = trainer._run
    checkpoint.save(run.weights, trainer.state.to_slim(run))
    return Run.open(run.path).model(dtype=dtype, device=str(device), compile=how)


def forward_of(model: Any, x: Tensor) -> Callable[[], Tensor]:
    """The estimate of x_0, one call of the network, as a sampler asks for it."""
    denoise = model.denoise(None)

    @torch.inference_mode()
    def forward() -> Tensor:
        return denoise(x, 500).x0

    return forward


def drawing_of(model: Any, num: int, steps: int) -> Callable[[], list[Tensor]]:
    """``num`` images as bytes by the chain of `unstir evaluate` in so many steps."""
    from unstir.chain import FAST
    from unstir.generate.drawing import Job, sample_batches
    from unstir.pixels import to_uint8

    job = Job(num=num, chain=FAST.changed(steps=steps), batch_size=num)
    return lambda: [to_uint8(images) for _, images in sample_batches(model, job)]


def batches_of(
    store: Store, batch: int, device: torch.device, seed: int = 0, flip: bool = True
) -> Callable[[int], Tensor]:
    """What a step learns from, in -1..1: shuffled epochs without the last, smaller batch, mirrored at random."""
    from unstir.train.levers import Batches

    batches = Batches(store, seed=seed, batch_size=batch, flip=flip, labels=False, device=device)
    slots = torch.arange(batch, device=device)
    return lambda step: batches(step, slots, slice(None))[0]


def epochs_of(store: Store, size: Size, device: torch.device) -> Callable[[], Iterator[Tensor]]:
    """An epoch of the store's images, mirrored at random."""
    batches, steps = batches_of(store, size.batch, device), itertools.count()
    return lambda: map(batches, itertools.islice(steps, store.count("train") // size.batch))


def noise_of(size: Size, device: torch.device) -> Callable[[], object]:
    """The times and the noise of a batch."""
    from unstir import randomness
    from unstir.randomness import Key

    slots, steps = torch.arange(size.batch, device=device), iter(range(1_000_000))

    def draw() -> tuple[Tensor, Tensor]:
        step = next(steps)
        times = randomness.integers(Key(0, "time", step, slots), 1, T)
        return times, randomness.normal(Key(0, "noise", step, slots), size.shape)

    return draw


def masks_of(size: Size, device: torch.device) -> Callable[[], Tensor]:
    """All dropout masks of a batch."""
    from unstir import randomness
    from unstir.randomness import Key

    slots, steps = torch.arange(size.batch, device=device), iter(range(1_000_000))
    return lambda: randomness.kept(Key(0, "dropout", next(steps), slots), size.dropped, size.dropout)


def first_step(size: Size, device: torch.device, folder: Path) -> None:
    """What `unstir train` does until its first training step is taken, with the packed images in ``folder``."""
    import tempfile

    with tempfile.TemporaryDirectory(dir=folder) as new:
        values = settings(size, device, "auto", ema=False)
        trainer = trainer_of(Path(new) / "run", Store.open(folder / "store"), values)
        trainer.start()
        trainer.take_step()
