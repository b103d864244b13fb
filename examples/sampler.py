"""A sampler of your own: any generator of steps that asks a denoiser for estimates of the clean image.

After `unstir train digits`: PYTHONPATH=examples unstir sample runs/digits --sampler sampler:midpoint --steps 20
"""

from itertools import pairwise

import unstir


@unstir.sampler(calls=2)
def midpoint(denoise, process: unstir.Process, x_T, times, noise, place: float = 0.5):
    """The midpoint rule for the probability-flow ODE: two calls a step, of second order where ``place`` is a half.

    ``times`` fall to the end of the chain. A step of DDIM to the middle, and one over the whole stride with what is
    estimated there.
    """

    def moved(x, x0, t, s):
        return process.schedule.alpha(s) * x0 + process.schedule.sigma(s) * process.eps(x, x0, t)

    x = x_T
    for t, s in pairwise(times):
        x0, middle = denoise(x, t).x0, s + int(place * (t - s))
        if 0 < s < middle:  # the last step takes one call
            x0 = denoise(moved(x, x0, t, middle), middle).x0
        x = moved(x, x0, t, s)
        yield unstir.Step(s, x, x0)
