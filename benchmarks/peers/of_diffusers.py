"""diffusers: its UNet2DModel, trained as its example of unconditional generation does, and sampled by its pipeline."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from torch import Tensor, nn

from peers.sizes import Size, T

LR = 1e-4
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


def step_of(net: nn.Module, x_0: Tensor, *, autocast: bool, fused: bool, ema: bool) -> Callable[[], None]:
    """A training step: noising, forward, backward, clipping at norm 1 and AdamW, with ``ema`` its EMAModel too."""
    scheduler = DDPMScheduler(num_train_timesteps=T)
    optimiser = torch.optim.AdamW(net.parameters(), lr=LR, fused=fused or None)
    average = None
    if ema:
        from diffusers.training_utils import EMAModel

        average = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True)
    net.train()

    def step() -> None:
        eps = torch.randn_like(x_0)
        t = torch.randint(0, T, (len(x_0),), device=x_0.device)
        x_t = scheduler.add_noise(x_0, eps, t)
        with torch.autocast(x_0.device.type, torch.bfloat16, enabled=autocast):
            predicted = net(x_t, t, return_dict=False)[0]
        nn.functional.mse_loss(predicted.float(), eps).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if average is not None:
            average.step(net.parameters())

    return step


def trained(size: Size, batches: Sequence[Tensor], lr: float, warmup: int, velocity: bool = False) -> UNet2DModel:
    """The averaged network after a step on each of the batches, in -1..1, as its example trains it.

    The noise is predicted, under the linear schedule, or the ``velocity`` under the cosine one (`VELOCITY`); AdamW's
    rate falls as a cosine, and the average's length grows.
    """
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    device = batches[0].device
    net = network(size, device)
    scheduler = DDPMScheduler(num_train_timesteps=T, **(VELOCITY if velocity else {}))
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, betas=(0.95, 0.999), weight_decay=1e-6)
    rate = get_scheduler("cosine", optimiser, num_warmup_steps=warmup, num_training_steps=len(batches))
    average = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    net.train()
    for x_0 in batches:
        eps, t = torch.randn_like(x_0), torch.randint(0, T, (len(x_0),), device=device)
        predicted = net(scheduler.add_noise(x_0, eps, t), t, return_dict=False)[0]
        target = scheduler.get_velocity(x_0, eps, t) if velocity else eps
        nn.functional.mse_loss(predicted, target).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        rate.step()
        average.step(net.parameters())
        optimiser.zero_grad(set_to_none=True)
    average.copy_to(net.parameters())
    return net.eval()


def forward_of(net: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """A forward pass without gradients, in the type of the weights; to be called in evaluation mode."""
    t, given = torch.full((len(x),), 500, device=x.device), x.to(next(net.parameters()).dtype)

    @torch.inference_mode()
    def forward() -> Tensor:
        return net(given, t, return_dict=False)[0]

    return forward


def drawing_of(net: UNet2DModel, num: int, steps: int, solver: bool, velocity: bool = False) -> Callable[[], object]:
    """``num`` images by DDPMPipeline, whose default is T steps of DDPMScheduler; ``solver``: by its fast solver.

    A network of the ``velocity`` as `trained`; for its schedule the solver's documentation asks for the clipped lambda.
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
    step_of(network(size, device), x_0, autocast=False, fused=False, ema=False)()
