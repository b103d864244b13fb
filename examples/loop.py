"""A training loop of your own (Ho et al. 2020, algorithm 1), and the images that come of it: python examples/loop.py"""

import torch
from dit import DiT

from unstir import Chain, Prediction, Process, cosine, draw, pack, starting_noise


def train(net, images, process, steps, loss=lambda error, t: error.square().mean(), batch_size=64):
    """Train a network to predict the velocity, on uint8 images [N, C, H, W]; yields the loss of each step."""
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(steps):
        x_0 = images[torch.randint(len(images), (batch_size,))] / 127.5 - 1
        t, eps = torch.randint(1, process.T + 1, (batch_size,)), torch.randn_like(x_0)
        alpha, sigma = process.schedule.gather(t, x_0)
        found = loss(net(process.diffuse(x_0, t, eps), t - 1) - (alpha * eps - sigma * x_0), t)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        yield found.item()


def sample(net, process, num, shape, chain=Chain("unipc", 10)):  # noqa: B008 - it is frozen
    """``num`` images of ``shape`` (C, H, W), float in about [-1, 1], by any of the samplers."""

    @torch.no_grad()
    def denoise(x_t, t):
        alpha, sigma = process.schedule.gather(t, x_t)
        v = net(x_t, torch.full((len(x_t),), t - 1))
        return Prediction(x0=alpha * x_t - sigma * v, raw=v)

    indices = torch.arange(num)  # image i is a function of the chain's seed and i
    return list(draw(denoise, process, starting_noise(chain.seed, indices, shape), indices, chain))[-1].x


if __name__ == "__main__":
    images, process, net = pack("digits", "data/digits").images("train"), Process(cosine(1000)), DiT(1, 1, 0)
    print(*(f"{loss:.3f}" for loss in train(net, images, process, steps=1500)))
    print(sample(net, process, 2, (1, 8, 8)).round(decimals=1))
