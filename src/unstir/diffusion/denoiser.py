"""From a network to an estimate of the clean image, which is all that samplers and losses need."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unstir.diffusion.arithmetic import autocast, repeatable
from unstir.diffusion.augmentation import unaugmented
from unstir.errors import NotFiniteError, UserError
from unstir.randomness import Key
from unstir.theory.parameterization import Parameterization
from unstir.theory.process import Process


@dataclass(frozen=True)
class Prediction:
    """A denoiser's output for x_t: the estimate ``x0`` of the clean image and the network's own output ``raw``.

    ``var_fraction``, only of a network that learned its variance, is where the logarithm of the reverse step's
    variance lies, 0 at beta~ and 1 at beta (it may lie outside). All are [B, C, H, W]. ``error``, where it was
    measured and t is an int, is the mean squared error of such estimates at t.
    """

    x0: Tensor
    raw: Tensor
    var_fraction: Tensor | None = None
    error: float | None = None


Denoise = Callable[[Tensor, int | Tensor], Prediction]
"""What the likelihood and every sampler ask for: (x_t [B, C, H, W], t) -> Prediction. Wrappers steer it; a `Denoiser`,
which training uses, is one for a network without conditions.

``t`` is an int in 1..T for all images, with coefficients that are exact floats, or int64 [B].
"""


@dataclass(frozen=True)
class Denoiser:
    """A trained network with the process it was trained on.

    ``net(x, network_time, condition)`` is called under autocast where ``dtype`` is bfloat16; all arithmetic around it
    keeps the dtype of x_t. The network receives t - 1 (0..T-1), the convention of every published checkpoint; nothing
    else in the package counts from there.

    With ``learned_variance`` the network has 2C output channels: F, then 2 v - 1 for the fraction v of the variance
    (Nichol & Dhariwal 2021, sec. 3.1), so that an output of 0 is the middle. ``augmentation``, in training alone, says
    how each image of the batch was augmented (float [B, 7], see `augmentation`); None: not at all, for which a network
    that ``needs_augmentation`` gets zeros. Where the network ``reuses_output``, its next call writes into the memory of
    the last output, which is therefore copied. ``errors``, where they were measured, are the mean squared errors of the
    estimate, clamped to [-1, 1], at each time: float64 [T + 1].
    """

    net: nn.Module
    process: Process
    parameterization: Parameterization
    dtype: torch.dtype = torch.float32
    learned_variance: bool = False
    augmentation: Tensor | None = None
    needs_augmentation: bool = False
    reuses_output: bool = False
    errors: Tensor | None = None

    def __call__(
        self, x_t: Tensor, t: int | Tensor, condition: int | Tensor | None = None, dropout_key: Key | None = None
    ) -> Prediction:
        """The prediction for x_t [B, C, H, W] at time t: int64 [B], or an int in 1..T for all; classes likewise.

        Other conditions are float [B, K + 1] or [B, C' + 1, H, W], as `UNet.forward` has them.
        ``dropout_key`` is needed in training mode with dropout. Raises UserError for another t or label; those in a
        tensor are not checked, which would wait for a device: on the CPU too high a label is a UserError all the same.
        """
        if not isinstance(t, int | Tensor) or (isinstance(t, Tensor) and t.is_floating_point()):  # type: ignore[redundant-expr]
            raise UserError("t", t, "is no int", f"give one in 1..{self.process.T}, or int64 [B]")
        if isinstance(t, int) and not 1 <= t <= self.process.T:
            raise UserError("t", t, f"is outside 1..{self.process.T}", "t = 0 is the clean image")
        if isinstance(condition, int):
            condition = self._one_label(condition, x_t)
        return self.predict(self.raw(x_t, t, condition, dropout_key), x_t, t)

    def _one_label(self, label: int, x_t: Tensor) -> Tensor:
        """A label for a batch; UserError where the network's own config has no such class."""
        known = getattr(getattr(self.net, "config", None), "num_classes", label + 1)
        if not 0 <= label < known:
            allowed = f"is outside 0..{known - 1}" if known else "was given, but this network knows no classes"
            raise UserError("label", label, allowed, () if known else {"label": None})
        return torch.full((len(x_t),), label, device=x_t.device)

    def predict(self, raw: Tensor, x_t: Tensor, t: int | Tensor) -> Prediction:
        """The prediction that the network's output ``raw`` [B, C, H, W] (2C with learned variance) stands for."""
        fraction = None
        if self.learned_variance:
            raw, interpolation = raw.chunk(2, dim=1)
            fraction = (interpolation + 1) / 2
        error = None if self.errors is None or isinstance(t, Tensor) else self.errors[t].item()
        return Prediction(self.parameterization.x0(self.process.schedule, x_t, t, raw), raw, fraction, error)

    def raw(
        self, x_t: Tensor, t: int | Tensor, condition: Tensor | None = None, dropout_key: Key | None = None
    ) -> Tensor:
        """The network's whole output in x_t's dtype, laid out as images are; UserError for another shape."""
        time = torch.full((len(x_t),), t, device=x_t.device) if isinstance(t, int) else t
        how = self.augmentation
        if how is None and self.needs_augmentation:
            how = unaugmented(len(x_t), x_t.device)
        given = {"dropout_key": dropout_key, "augmentation": how}
        options = {name: value for name, value in given.items() if value is not None}
        try:
            with repeatable(x_t.device), autocast(x_t.device, self.dtype):
                output: Tensor = self.net(x_t, time - 1, condition, **options)
        except IndexError as error:  # of the embedding, on the CPU
            if condition is None or condition.is_floating_point():
                raise
            raise UserError("label", condition.tolist(), "must be among the network's classes") from error
        due = [len(x_t), x_t.shape[1] * (2 if self.learned_variance else 1), *x_t.shape[2:]]
        if returned(output) != str(due):
            raise UserError("", "the network", f"returns {returned(output)} of {list(x_t.shape)}, not {due}")
        return output.to(x_t.dtype, copy=self.reuses_output, memory_format=torch.contiguous_format)


def takes(net: Any, name: str) -> bool:
    """Whether the forward pass of a network takes an argument of this name."""
    parameters = inspect.signature(net.forward).parameters
    return name in parameters or any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters.values())


def returned(output: object) -> str:
    """What a network returned, for a message: the shape of a tensor, or another type."""
    return str(list(output.shape)) if isinstance(output, Tensor) else f"a {type(output).__name__}"


@dataclass(frozen=True)
class Conditioned:
    """A denoiser with its batch's condition, int64 [B], float [B, K + 1], [B, C' + 1, H, W] or None: a `Denoise`."""

    denoiser: Denoiser
    condition: Tensor | None
    dropout_key: Key | None = None

    @property
    def process(self) -> Process:
        """The forward process."""
        return self.denoiser.process

    @property
    def parameterization(self) -> Parameterization:
        """What the network predicts: its target, and the image of its output."""
        return self.denoiser.parameterization

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Prediction:
        """The prediction for x_t [B, C, H, W] at time t, an int or int64 [B]."""
        return self.denoiser(x_t, t, self.condition, self.dropout_key)


def at_each_time(function: Callable[[Tensor, int], Prediction]) -> Denoise:
    """The `Denoise` of a function that takes one int t for all images: of a tensor of times, it is called by image."""

    def denoise(x_t: Tensor, t: int | Tensor) -> Prediction:
        if isinstance(t, int):
            return function(x_t, t)
        rows = [function(x[None], int(time)) for x, time in zip(x_t, t, strict=True)]
        fractions = [row.var_fraction for row in rows if row.var_fraction is not None]
        x0, raw = (torch.cat([getattr(row, name) for row in rows]) for name in ("x0", "raw"))
        return Prediction(x0, raw, torch.cat(fractions) if fractions else None)

    return denoise


def finite(denoise: Denoise, indices: Tensor | None = None) -> Denoise:
    """The denoiser, raising NotFiniteError for an output that is not finite; the message names the image and t.

    Raises UserError for an estimate of another shape than x_t, which would be broadcast.

    ``indices`` int64 [B] are the numbers of the images; without them they are counted from 0 within the batch. The
    output is checked before a clamp could hide an infinity. This waits for the device once per call.
    """

    def finite_denoise(x_t: Tensor, t: int | Tensor) -> Prediction:
        prediction = denoise(x_t, t)
        if prediction.x0.shape != x_t.shape:
            answer = f"answers {list(prediction.x0.shape)} for x_t of {list(x_t.shape)}"
            raise UserError("denoise", None, answer, "return an x0 of the shape of x_t")
        outputs = [prediction.x0] if prediction.var_fraction is None else [prediction.x0, prediction.var_fraction]
        sound = torch.stack([output.isfinite().flatten(1).all(1) for output in outputs]).all(0)
        if not bool(sound.all()):
            rows = torch.nonzero(~sound)[:, 0]
            row = int(rows[0])
            first, at = row if indices is None else int(indices[row]), t if isinstance(t, int) else int(t[row])
            more = f" (and of {len(rows) - 1} more)" if len(rows) > 1 else ""
            raise NotFiniteError(
                f"the network's output is NaN or infinite at t={at} of image {first}{more}, so nothing is made of it; "
                "training has ruined these weights: take an earlier checkpoint, or train again with a lower train.lr"
            )
        return prediction

    return finite_denoise


def clipped(denoise: Denoise) -> Denoise:
    """The denoiser with its estimate clamped to [-1, 1], before any sampler's mean is computed from it."""

    def clipped_denoise(x_t: Tensor, t: int | Tensor) -> Prediction:
        prediction = denoise(x_t, t)
        return replace(prediction, x0=prediction.x0.clamp(-1, 1))

    return clipped_denoise


def thresholded(denoise: Denoise, quantile: float) -> Denoise:
    """Dynamic thresholding (Saharia et al. 2022, sec. 2.3): each image's estimate clamped to [-q, q], divided by q.

    q is the ``quantile`` in (0, 1) of the absolute values in that image, or 1 where it is less. Where guidance drives
    many values out of range this keeps their differences.
    """

    def thresholded_denoise(x_t: Tensor, t: int | Tensor) -> Prediction:
        prediction = denoise(x_t, t)
        limit = torch.quantile(prediction.x0.abs().flatten(1).float(), quantile, dim=1).clamp(min=1).to(x_t.dtype)
        limit = limit.view(-1, *[1] * (x_t.ndim - 1))
        return replace(prediction, x0=prediction.x0.clamp(-limit, limit) / limit)

    return thresholded_denoise
