"""Which class a reverse chain draws, by Bayes' rule, from the steps that it has taken.

A network that knows classes gives every step a density for each of them, so that a chain that has come from x_T to x_s
says of a class c, equally probable before,

    log p(c | x_T..x_s) = log p(c | x_T..x_t) + log p(x_s | x_t, c) + a constant

where p(x_s | x_t, c) = N( mean_c, beta~ I ), and mean_c is that of the posterior for the estimate x_0_hat that is made
for c. With this small variance the evidence between two classes grows by (SNR_s - SNR_t) / 2 times the difference of
their squared errors: little is decided near T.
"""

import torch
from torch import Tensor

from unstir.theory.process import Process


def step_evidence(process: Process, x_t: Tensor, x_s: Tensor, estimates: Tensor, t: int, s: int) -> Tensor:
    """log p(x_s | x_t, c) for each of K classes in nats: float64 [K], for 0 < s < t.

    ``x_t`` and ``x_s`` are one image, [1, C, H, W]; ``estimates`` [K, C, H, W] are what the denoiser makes of x_t for
    each class.
    """
    reverse = process.posterior(x_t.double(), estimates.double(), t, s)
    return reverse.log_prob(x_s.double()).flatten(1).sum(1)


def decided(times: list[int], probabilities: Tensor) -> int:
    """The time from which on the class that is drawn in the end is the most probable one.

    ``times`` fall; ``probabilities`` [len(times), K] are those of the classes at each.
    """
    best = probabilities.argmax(1)
    changes = torch.nonzero(best != best[-1])[:, 0]
    return times[int(changes[-1]) + 1] if len(changes) else times[0]
