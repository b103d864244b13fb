"""A noise schedule of your own: that of a straight path from image to noise, as in flow matching.

Train with it by `PYTHONPATH=examples unstir train examples/parts.toml`, or in a loop of your own, as below. A schedule
is a table of log abar_t in float64 for t = 0..T, which begins at 0 and falls strictly. Here image and noise are in the
proportion 1 - u to u with u = t / T, scaled to keep the variance.
"""

import torch

import unstir


@unstir.schedule
def straight(T: int, end: float = 1.0) -> unstir.NoiseSchedule:
    """abar = (1 - u)^2 / ((1 - u)^2 + u^2), so that alpha / sigma = (1 - u) / u; u ends at ``end``, 1 for no signal."""
    u = torch.arange(T + 1, dtype=torch.float64) * (end / T)
    return unstir.NoiseSchedule(2 * torch.log1p(-u) - torch.log((1 - u) ** 2 + u**2))


if __name__ == "__main__":
    from dit import DiT
    from loop import sample, train

    images = unstir.pack("digits", "data/digits").images("train")
    process, net = unstir.Process(straight(1000)), DiT(1, 1, 0)
    print(*(f"{loss:.3f}" for loss in train(net, images, process, steps=1500)))
    print(sample(net, process, 2, (1, 8, 8)).round(decimals=1))
