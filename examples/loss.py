"""A loss of your own: of the error of each image, whatever you like; here large errors count less (pseudo-Huber)."""

from dit import DiT
from loop import sample, train

from unstir import Process, cosine, pack


def pseudo_huber(error, t, c=0.1):
    """The mean of sqrt(d^2 + c^2) - c, where d^2 is the mean squared error of an image [C, H, W] at its time t."""
    return ((error.square().flatten(1).mean(1) + c**2).sqrt() - c).mean()


if __name__ == "__main__":
    images, process, net = pack("digits", "data/digits").images("train"), Process(cosine(1000)), DiT(1, 1, 0)
    print(*(f"{loss:.3f}" for loss in train(net, images, process, steps=1500, loss=pseudo_huber)))
    print(sample(net, process, 2, (1, 8, 8)).round(decimals=1))
