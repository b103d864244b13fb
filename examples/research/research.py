"""A study in one file: schedule, weighting, sampler, condition and network of its own. research.toml trains them."""

import torch
from torch import nn

import unstir


@unstir.schedule
def power(T: int, exponent: float = 1.0, end: float = 0.999):
    """A straight path from image to noise, of which the time t has gone the share end (t / T)^exponent."""
    u = end * (torch.arange(T + 1, dtype=torch.float64) / T) ** exponent
    return unstir.NoiseSchedule(2 * torch.log1p(-u) - torch.log((1 - u) ** 2 + u**2))


@unstir.weighting
def soft_min_snr(schedule, gamma: float = 5.0):
    """SNR gamma / (SNR + gamma) on the error of the image, that of the velocity divided by 1 + SNR."""
    return schedule.snr * gamma / (schedule.snr + gamma) / (1 + schedule.snr)


@unstir.sampler
def churned(denoise, process, x, times, noise, eta: float = 1.0, until: int = 0):
    """DDIM with the randomness eta above the time until, and none below it."""
    for number, s in enumerate(times[1:]):
        t, x0 = times[number], denoise(x, times[number]).x0
        var = (eta if s > until else 0.0) ** 2 * process.posterior_coefficients(t, s)[2]
        kept = (process.schedule.sigma(s) ** 2 - var) ** 0.5 * process.eps(x, x0, t)
        x = process.schedule.alpha(s) * x0 + kept + (var**0.5 * noise(t) if var else 0)
        yield unstir.Step(s, x, x0)


@unstir.condition
def ink(images):
    """How much ink an image has, and how far it lies to the right and below: float [B, 3]."""
    dark, ramp = (images + 1) / 2, torch.linspace(-1, 1, images.shape[-1], device=images.device)
    return torch.stack((dark.mean((1, 2, 3)), (dark * ramp).mean((1, 2, 3)), (dark.mT * ramp).mean((1, 2, 3))), 1)


@unstir.network
class CrossDiT(nn.Module):
    """A transformer of patches that attend to each other, to the time, and to each number of the vector."""

    def __init__(self, in_channels, out_channels, num_labels, width=64, depth=3, heads=4, patch=2):
        super().__init__()
        self.input, self.place = nn.Conv2d(in_channels, width, patch, patch), nn.Conv2d(width, width, 3, 1, 1, 1, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.values = nn.Parameter(torch.randn(num_labels, width))
        layer = nn.TransformerDecoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerDecoder(layer, depth)
        self.output = nn.ConvTranspose2d(width, out_channels, patch, patch)

    def forward(self, x, t, condition):
        """F(x, t) given a vector, float [B, num_labels], whose last number says whether it is given."""
        h = self.input(x)
        waves = t[:, None] * 1e4 ** -torch.linspace(0, 1, h.shape[1] // 2, device=t.device)
        time = self.time(torch.cat((waves.sin(), waves.cos()), 1))[:, None]
        memory = torch.cat((time, condition[..., None] * self.values), 1)
        tokens = self.blocks((h + self.place(h)).flatten(2).mT, memory)
        return self.output(tokens.mT.unflatten(2, h.shape[2:]))
