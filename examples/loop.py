"""A training loop of your own (Ho et al. 2020, algorithm 1), and what comes of it: python examples/loop.py"""

import torch
from dit import DiT

from unstir import Chain, Job, Model, Process, Run, cosine, pack, sample_batches


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
    model = Model.of(net, process, shape, predict="v")
    return next(sample_batches(model, Job(num=num, chain=chain, batch_size=num)))[1]


if __name__ == "__main__":
    store, process, net = pack("digits", "data/digits"), Process(cosine(1000)), DiT(1, 1, 0)
    print(*(f"{loss:.3f}" for loss in train(net, store.images("train"), process, steps=1500)))
    print(sample(net, process, 2, store.shape).round(decimals=1))
    Run.create("runs/loop", net, process, store, predict="v", step=1500)  # UNSTIR_PARTS=dit unstir report runs/loop
