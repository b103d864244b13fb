"""Which class a reverse chain draws, by Bayes' rule, from the steps that it has taken.

A network that knows classes gives every step a density for each of them, so that a chain that has come from x_T to x_s
says of a class c, equally probable before,

    log p(c | x_T..x_s) = log p(c | x_T..x_t) + log p(x_s | x_t, c) + a constant

where p(x_s | x_t, c) = N( mean_c, beta~ I ), and mean_c is that of the posterior for the estimate x_0_hat that is made
for c. With this small variance the evidence between two classes grows by (SNR_s - SNR_t) / 2 times the difference of
their squared errors: little is decided near T.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from unstir.diffusion.denoiser import Denoise, clipped
from unstir.diffusion.samplers import Step
from unstir.theory.process import Process


def step_evidence(process: Process, x_t: Tensor, x_s: Tensor, estimates: Tensor, t: int, s: int) -> Tensor:
    """log p(x_s | x_t, c) for each of K classes in nats: float64 [K], for 0 < s < t.

    ``x_t`` and ``x_s`` are one image, [1, C, H, W]; ``estimates`` [K, C, H, W] are what the denoiser makes of x_t for
    each class.
    """
    reverse = process.posterior(x_t.double(), estimates.double(), t, s)
    return reverse.log_prob(x_s.double()).flatten(1).sum(1)


def followed(
    denoise: Denoise, num: int, process: Process, x_T: Tensor, first: int, steps: Iterable[Step]
) -> Iterator[tuple[int, Tensor, Step, Tensor]]:
    """(t, x_t, step, probabilities) for each of the ``steps`` of one image from ``x_T`` [1, C, H, W] at time ``first``.

    The probabilities of ``num`` classes, float64 [num], are those after the step; a step to t = 0 adds nothing.
    ``denoise`` is told class i of image i of its batch.
    """
    t, x, evidence = first, x_T, torch.zeros(num, dtype=torch.float64, device=x_T.device)
    for step in steps:
        if num and step.t > 0:
            estimates = clipped(denoise)(x.expand(num, -1, -1, -1), t).x0
            evidence = evidence + step_evidence(process, x, step.x, estimates, t, step.t)
        yield t, x, step, evidence.softmax(0)
        t, x = step.t, step.x


def decided(times: list[int], probabilities: Tensor) -> int:
    """The time from which on the class that is drawn in the end is the most probable one.

    ``times`` fall; ``probabilities`` [len(times), K] are those of the classes at each.
    """
    best = probabilities.argmax(1)
    changes = torch.nonzero(best != best[-1])[:, 0]
    return times[int(changes[-1]) + 1] if len(changes) else times[0]
