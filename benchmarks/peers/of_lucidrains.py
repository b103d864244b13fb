"""denoising-diffusion-pytorch: its own U-Net of the same width and levels, another structure with fewer operations."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from denoising_diffusion_pytorch import GaussianDiffusion, Unet
from denoising_diffusion_pytorch import denoising_diffusion_pytorch as library
from torch import Tensor, nn

from peers.sizes import Size, T

LR = 1e-4


def network(size: Size, device: torch.device) -> Unet:
    """Two residual blocks a level, as it always has, with its own choice of attention."""
    return Unet(size.channels, dim_mults=size.mults, channels=size.colours, dropout=size.dropout).to(device)


def step_of(net: Unet, x_0: Tensor, *, autocast: bool, ema: bool) -> Callable[[], None]:
    """A training step: noising and loss by its GaussianDiffusion, backward, clipping at norm 1 and AdamW."""
    diffusion = _diffusion(net, T, x_0.shape[-1])
    optimiser = torch.optim.AdamW(net.parameters(), lr=LR)
    average = None
    if ema:
        from ema_pytorch import EMA

        average = EMA(net, update_after_step=0, update_every=1)
    net.train()

    def step() -> None:
        with torch.autocast(x_0.device.type, torch.bfloat16, enabled=autocast):
            loss = diffusion(x_0)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if average is not None:
            average.update()

    return step


def trained(size: Size, batches: Callable[[int], Tensor], num: int, lr: float) -> Unet:
    """The averaged network after ``num`` steps on the batches, in -1..1, as its Trainer trains it by default.

    The velocity is predicted, under its sigmoid schedule, by Adam at a constant rate; the average is renewed every ten
    steps.
    """
    from ema_pytorch import EMA

    diffusion = GaussianDiffusion(network(size, torch.device("cpu")), image_size=size.side)
    optimiser = torch.optim.Adam(diffusion.parameters(), lr=lr, betas=(0.9, 0.99))
    average = EMA(diffusion, beta=0.995, update_every=10)
    diffusion.train()
    for number in range(num):
        diffusion(batches(number) / 2 + 0.5).backward()
        nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        average.update()
    return average.ema_model.model.eval()


def drawn(net: Unet, side: int, num: int, steps: int) -> Tensor:
    """``num`` images in 0..1 of what `trained` gave: ancestral in T steps, as by default, in fewer by its DDIM."""
    library.tqdm = lambda steps, **_: steps
    diffusion = GaussianDiffusion(net, image_size=side, sampling_timesteps=steps)
    return diffusion.to(next(net.parameters()).device).sample(num)


def forward_of(net: Unet, x: Tensor) -> Callable[[], Tensor]:
    """A forward pass without gradients; to be called in evaluation mode."""
    t = torch.full((len(x),), 500, device=x.device)

    @torch.inference_mode()
    def forward() -> Tensor:
        return net(x, t)

    return forward


def drawing_of(net: Unet, side: int, num: int, steps: int) -> Callable[[], Tensor]:
    """``num`` images by its ancestral chain in so many steps; its default are T."""
    library.tqdm = lambda steps, **_: steps  # it draws a bar of its own
    diffusion = _diffusion(net, steps, side)
    return lambda: diffusion.sample(num)


def batches_of(folder: Path, size: Size, workers: int) -> Callable[[], Iterator[Tensor]]:
    """An epoch of the folder's images by its Dataset; its Trainer has a worker per core."""
    dataset = library.Dataset(folder, size.side, augment_horizontal_flip=True, convert_image_to="RGB")
    loader = torch.utils.data.DataLoader(dataset, batch_size=size.batch, shuffle=True, num_workers=workers)
    return lambda: iter(loader)


def first_step(size: Size, device: torch.device, folder: Path) -> None:
    """What a program does until its first training step is taken; ``folder`` is not needed for it."""
    x_0 = torch.rand(size.batch, *size.shape, device=device) * 2 - 1
    step_of(network(size, device), x_0, autocast=False, ema=False)()


def _diffusion(net: Unet, steps: int, side: int) -> GaussianDiffusion:
    made = GaussianDiffusion(
        net, image_size=side, timesteps=steps, objective="pred_noise", beta_schedule="cosine", auto_normalize=False
    )
    return made.to(next(net.parameters()).device)
