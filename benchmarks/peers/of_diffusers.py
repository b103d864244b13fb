"""diffusers: its UNet2DModel, trained as its example of unconditional generation does, and sampled by its pipeline."""

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from torch import Tensor, nn

from peers.sizes import Size, T

VELOCITY = {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"}  # as the recipe's digits have them


def network(size: Size, device: torch.device) -> UNet2DModel:
    """The network of the size, with one head."""
    levels = range(len(size.mults))
    return UNet2DModel(
        sample_size=size.side,
        in_channels=size.colours,
        out_channels=size.colours,
        freq_shift=1,
        flip_sin_to_cos=False,
        down_block_types=tuple("AttnDownBlock2D" if i in size.attention else "DownBlock2D" for i in levels),
        up_block_types=tuple("AttnUpBlock2D" if i in size.attention else "UpBlock2D" for i in reversed(levels)),
        block_out_channels=size.widths,
        layers_per_block=size.num_blocks,
        downsample_padding=0,
        dropout=size.dropout,
        attention_head_dim=None,
        norm_num_groups=size.groups,
        norm_eps=1e-6,
    ).to(device)


class Training:
    """A network in training as its example trains one: by AdamW.

    The noise is predicted, under the linear schedule, or the ``velocity`` under the cosine one (`VELOCITY`).
    ``autocast``: in bfloat16. ``ema``: with an average, whose length grows.
    """

    def __init__(
        self,
        net: UNet2DModel,
        lr: float = 1e-4,
        *,
        velocity: bool = False,
        autocast: bool = False,
        fused: bool = False,
        ema: bool = True,
    ) -> None:
        self._net, self._lr, self._velocity, self._autocast = net.train(), lr, velocity, autocast
        self._scheduler = DDPMScheduler(num_train_timesteps=T, **(VELOCITY if velocity else {}))
        how = {"lr": lr, "betas": (0.95, 0.999), "weight_decay": 1e-6, "fused": fused or None}
        self._optimiser, self._average = torch.optim.AdamW(net.parameters(), **how), None
        if ema:
            from diffusers.training_utils import EMAModel

            self._average = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, power=0.75, foreach=fused)

    def step(self, x_0: Tensor, share: float = 1.0) -> None:
        """Noising, forward, backward, clipping at norm 1, and AdamW by a ``share`` of the rate, on images in -1..1."""
        eps, t = torch.randn_like(x_0), torch.randint(0, T, (len(x_0),), device=x_0.device)
        with torch.autocast(x_0.device.type, torch.bfloat16, enabled=self._autocast):
            predicted = self._net(self._scheduler.add_noise(x_0, eps, t), t, return_dict=False)[0]
        target = self._scheduler.get_velocity(x_0, eps, t) if self._velocity else eps
        nn.functional.mse_loss(predicted.float(), target).backward()
        nn.utils.clip_grad_norm_(self._net.parameters(), 1.0)
        self._optimiser.param_groups[0]["lr"] = self._lr * share
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.step(self._net.parameters())

    def save(self, path: Path, **more: float) -> None:
        """Replaces the file of all that a later `restore` needs, and of what is given besides."""
        state = {"net": self._net.state_dict(), "optimiser": self._optimiser.state_dict()}
        torch.save({**state, "average": self._average.state_dict(), **more}, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def restore(self, path: Path) -> dict[str, float]:
        """Goes on from a file of `save`; returns what was given besides."""
        state = torch.load(path, map_location=self._net.device)
        for name, of in (("net", self._net), ("optimiser", self._optimiser), ("average", self._average)):
            of.load_state_dict(state.pop(name))
        return state

    def averaged(self) -> UNet2DModel:
        """The network with its average for weights, which ends the training."""
        self._average.copy_to(self._net.parameters())
        return self._net.eval()


def falling(done: float, warmup: float) -> float:
    """The share of the rate when a share of the training is ``done``: a linear rise, then half a cosine."""
    return done / warmup if done < warmup else 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def trained(
    size: Size, batches: Callable[[int], Tensor], num: int, lr: float, warmup: int, velocity: bool = False
) -> UNet2DModel:
    """The averaged network after ``num`` steps on the batches, in -1..1, in float32 on the CPU."""
    training = Training(network(size, torch.device("cpu")), lr, velocity=velocity)
    for number in range(num):
        training.step(batches(number), falling(number / num, warmup / num))
    return training.averaged()


def imported(net: UNet2DModel, folder: Path, store: Any, velocity: bool) -> Any:
    """The network as a run of ours on a store, in FOLDER/imported, by way of a folder of diffusers, FOLDER/model."""
    from unstir import import_run
    from unstir.runs.stores import compared_with

    shutil.rmtree(folder / "imported", ignore_errors=True)
    process = VELOCITY if velocity else {}
    DDPMPipeline(net, DDPMScheduler(num_train_timesteps=T, **process)).save_pretrained(folder / "model")
    return compared_with(import_run(folder / "model", folder / "imported").run, store)


def forward_of(net: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """A forward pass without gradients, in the type of the weights; to be called in evaluation mode."""
    t, given = torch.full((len(x),), 500, device=x.device), x.to(next(net.parameters()).dtype)

    @torch.inference_mode()
    def forward() -> Tensor:
        return net(given, t, return_dict=False)[0]

    return forward


def drawing_of(net: UNet2DModel, num: int, steps: int, solver: bool, velocity: bool = False) -> Callable[[], Tensor]:
    """``num`` images in 0..1 by DDPMPipeline, in T steps of DDPMScheduler by default; ``solver``: by its fast solver.

    A network of the ``velocity`` is as `Training` has it; for its schedule the solver's documentation asks for the
    clipped lambda.
    """
    process = VELOCITY if velocity else {}
    scheduler = DDPMScheduler(num_train_timesteps=T, **process)
    if solver:
        clipped = {"lambda_min_clipped": -5.1} if velocity else {}
        scheduler = DPMSolverMultistepScheduler(num_train_timesteps=T, **process, **clipped)
    pipeline = DDPMPipeline(net, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return lambda: pipeline(batch_size=num, num_inference_steps=steps, output_type="pt").images


class Folder(torch.utils.data.Dataset):
    """The images of a folder, decoded and transformed at every access as in the example."""

    def __init__(self, folder: Path, side: int) -> None:
        from torchvision import transforms

        self.paths = sorted(folder.iterdir())
        self.transform = transforms.Compose(
            [
                transforms.Resize(side, interpolation=transforms.InterpolationMode.BILINEAR),
                transforms.CenterCrop(side),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        from PIL import Image

        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB"))


def batches_of(folder: Path, size: Size, workers: int) -> Callable[[], Iterator[Tensor]]:
    """An epoch of the folder's images; its example's default are no workers."""
    loader = torch.utils.data.DataLoader(
        Folder(folder, size.side), batch_size=size.batch, shuffle=True, num_workers=workers
    )
    return lambda: iter(loader)


def first_step(size: Size, device: torch.device, folder: Path) -> None:
    """What a program does until its first training step is taken; ``folder`` is not needed for it."""
    x_0 = torch.rand(size.batch, *size.shape, device=device) * 2 - 1
    Training(network(size, device), ema=False).step(x_0)
