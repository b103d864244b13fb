"""The optimizers: Adam and AdamW, fused, and Muon for the matrices.

Muon is momentum whose update of a weight matrix is orthogonalised (Jordan et al. 2024, "Muon"): it sets the momentum's
singular values to about 1, so that directions which gradients rarely visit move as far as the others. A convolution
[out, in, k, k] counts as the matrix [out, in k k]. The factor 0.2 sqrt(max(rows, columns)) gives an update the root
mean square of Adam's, about 0.2 (Liu et al. 2025, "Muon is scalable for LLM training", eq. 4): one learning rate and
one weight decay serve both.

torch.optim.Muon (torch 2.9) takes matrices alone and one by one; here convolutions are flattened, and matrices of one
height are orthogonalised together: small networks would wait for many small products.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unstir.diffusion.arithmetic import rounds_products
from unstir.runs.sections import TrainConfig

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of a x + b x^3 + c x^5, which in five rounds moves the singular values in (0.01, 1] into about 0.7..1.2."""
UPDATE_RMS = 0.2
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
ENDS = ("input", "input_conv", "output", "output_conv", "label", "augment")
"""The parts of a network, by their first name, whose matrices are not Muon's."""


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov's momentum for ``matrices``, of two dimensions or more, and ``adam`` for all other parameters.

    As with fused Adam, a step changes nothing where ``found_inf``, a float scalar on the device, is 1: the device is
    not waited for. Of a matrix the state is its ``momentum_buffer``.
    """

    found_inf: Tensor | None = None

    def __init__(self, matrices: Iterable[Tensor], adam: torch.optim.AdamW) -> None:
        of_adam = adam.param_groups[0]
        super().__init__(matrices, {"lr": of_adam["lr"], "weight_decay": of_adam["weight_decay"]})
        self._adam, self._of_matrices = adam, self.param_groups[0]
        self.param_groups, self.state = [*self.param_groups, of_adam], adam.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # nothing is evaluated again
        """m <- 0.95 m + g;  w <- (1 - lr decay) w - lr 0.2 sqrt(max(rows, columns)) O(g + 0.95 m)."""
        self._adam.found_inf = self.found_inf  # type: ignore[attr-defined]
        self._adam.step()
        alike = defaultdict[torch.Size, list[Tensor]](list)
        for parameter in (p for p in self._of_matrices["params"] if p.grad is not None):
            self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
            alike[parameter.flatten(1).shape].append(parameter)
        directions = orthogonalised([self._directions(parameters) for parameters in alike.values()])
        taken = 1.0 if self.found_inf is None else 1 - self.found_inf
        lr, weight_decay = self._of_matrices["lr"], self._of_matrices["weight_decay"]
        for parameters, direction in zip(alike.values(), directions, strict=True):
            update = direction.mul_(UPDATE_RMS * max(direction.shape[1:]) ** 0.5 * taken)
            if weight_decay:
                torch._foreach_mul_(parameters, 1 - lr * weight_decay * taken)
            moves = [move.view_as(p) for p, move in zip(parameters, update, strict=True)]
            torch._foreach_add_(parameters, moves, alpha=-lr)

    def _directions(self, parameters: list[Tensor]) -> Tensor:
        """g + 0.95 m of parameters whose matrices have one shape, [N, rows, columns], after m <- 0.95 m + g.

        Of a step that is skipped g is 0, and m is as it was.
        """
        gradients = torch.stack([p.grad.flatten(1) for p in parameters])  # type: ignore[union-attr]  # see `step`
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        momentum = torch.stack([buffer.flatten(1) for buffer in buffers])
        kept: float | Tensor = MOMENTUM
        if self.found_inf is not None:
            gradients.masked_fill_(self.found_inf > 0, 0.0)
            kept = MOMENTUM + (1 - MOMENTUM) * self.found_inf
        momentum.mul_(kept).add_(gradients)
        torch._foreach_copy_(buffers, [new.view_as(buffer) for buffer, new in zip(buffers, momentum, strict=True)])
        return gradients.add_(momentum, alpha=MOMENTUM)


def orthogonalised(groups: Sequence[Tensor]) -> list[Tensor]:
    """About U V^T of each matrix U S V^T of the ``groups``, [N, rows, columns] each: 0.7 to 1.2 in place of S; zeros
    stay zeros.

    Five Newton-Schulz iterations x <- (a + b x x^T + c (x x^T)^2) x: products alone, no decomposition. They are
    computed on the small square matrix x x^T, which each turns into R x x^T R by its symmetric factor R, and the
    product of the factors meets x once: convolutions are many times as wide as high. Errors of x x^T grow by up to
    a^10 = 2e5 there, so where torch was told to round float32 numbers before products, all is done in float64.
    """
    wide = [group if group.shape[1] <= group.shape[2] else group.mT for group in groups]
    if wide and rounds_products(wide[0].device):
        wide = [x.double() for x in wide]
    wide = [x / x.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None] for x in wide]  # no singular value is above 1
    factors = _each_size(_factors, [x @ x.mT for x in wide])
    levelled = [factor @ x for factor, x in zip(factors, wide, strict=True)]
    return [(x if x.shape == group.shape else x.mT).to(group.dtype) for x, group in zip(levelled, groups, strict=True)]


def _each_size(function: Callable[[Tensor], Tensor], groups: Sequence[Tensor]) -> list[Tensor]:
    """``function`` of square matrices [N, m, m], called once for all of one size m."""
    results: dict[int, Tensor] = {}
    for size in {group.shape[1] for group in groups}:
        same = [i for i, group in enumerate(groups) if group.shape[1] == size]
        parts = torch.split(function(torch.cat([groups[i] for i in same])), [len(groups[i]) for i in same])
        results.update(zip(same, parts, strict=True))
    return [results[i] for i in range(len(groups))]


def _factors(square: Tensor) -> Tensor:
    """The product of the factors of all iterations on symmetric matrices x x^T, [N, m, m]."""
    factors = factor = _factor(square)
    for _ in range(ITERATIONS - 1):
        square = factor @ (factor @ square)
        factor = _factor(square)
        factors = factor @ factors
    return factors


def _factor(square: Tensor) -> Tensor:
    """a + b s + c s^2 of symmetric matrices s, [N, m, m]."""
    a, b, c = COEFFICIENTS
    factor = torch.baddbmm(square, square, square, beta=b, alpha=c)
    factor.diagonal(dim1=1, dim2=2).add_(a)
    return factor


def matrices(net: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a network that Muon is for, by name: weights of its linear and convolutional layers.

    Not those of its `ENDS`, which map between pixels or labels and features, nor tables, norms and biases.
    """
    weights = {id(layer.weight) for layer in net.modules() if isinstance(layer, LAYERS)}
    tables = {id(table.weight) for table in net.modules() if isinstance(table, nn.Embedding)}  # one may be tied to both
    named = net.named_parameters()
    return {name: p for name, p in named if id(p) in weights - tables and name.split(".")[0] not in ENDS}


def make_optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """What ``config`` asks for; Adam is fused, as is AdamW, which beside Muon moves what is no matrix."""
    named = dict(net.named_parameters())
    mine = matrices(net) if config.optimizer == "muon" else {}
    adam = (torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW)(
        [{"params": [p for name, p in named.items() if name not in mine]}],  # a group may be empty, a list may not
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.adam_eps,
        weight_decay=config.weight_decay,
        fused=True,
    )
    return Muon(mine.values(), adam) if isinstance(adam, torch.optim.AdamW) and mine else adam
