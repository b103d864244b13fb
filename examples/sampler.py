"""A sampler of your own: any generator of steps that asks a denoiser for estimates of the clean image.

After `unstir train`: python examples/sampler.py
"""

from itertools import pairwise

import torch

from unstir import Process, Run, Step, starting_noise


def midpoint(denoise, process: Process, x_T, times):
    """The midpoint rule for the probability-flow ODE: two calls a step, of second order.

    ``times`` fall to 0. A step of DDIM to the middle, and one over the whole stride with what is estimated there.
    """

    def moved(x, x0, t, s):
        return process.schedule.alpha(s) * x0 + process.schedule.sigma(s) * process.eps(x, x0, t)

    x = x_T
    for t, s in pairwise(times):
        x0, middle = denoise(x, t).x0, (t + s) // 2
        if middle > 0:
            x0 = denoise(moved(x, x0, t, middle), middle).x0
        x = moved(x, x0, t, s)
        yield Step(s, x, x0)


if __name__ == "__main__":
    model = Run.open("runs/digits").model()
    noise = starting_noise(0, torch.arange(2), model.shape)
    with torch.no_grad():
        *_, last = midpoint(model.denoise(None), model.process, noise, range(model.process.T, -1, -50))
    print(last.x.round(decimals=1))
