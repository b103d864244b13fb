"""An output of the network that is not finite makes no image: NaN would be saved as black pixels, without a warning."""

import torch
from torch import Tensor

from unstir.diffusion.denoiser import Denoise, Prediction
from unstir.errors import UserError


class NotFiniteError(UserError):
    """The network's output holds NaN or an infinity."""


def finite(denoise: Denoise, indices: Tensor | None = None) -> Denoise:
    """The denoiser, raising NotFiniteError for an output that is not finite; the message names the image and t.

    ``indices`` int64 [B] are the numbers of the images; without them they are counted from 0 within the batch. The
    output is checked before a clamp could hide an infinity. This waits for the device once per call, far less time than
    the network takes.
    """

    def finite_denoise(x_t: Tensor, t: int | Tensor) -> Prediction:
        prediction = denoise(x_t, t)
        outputs = [prediction.x0] if prediction.var_fraction is None else [prediction.x0, prediction.var_fraction]
        sound = torch.stack([output.isfinite().flatten(1).all(1) for output in outputs]).all(0)
        if not bool(sound.all()):
            rows = torch.nonzero(~sound)[:, 0]
            row = int(rows[0])
            first, at = row if indices is None else int(indices[row]), t if isinstance(t, int) else int(t[row])
            more = f" (and of {len(rows) - 1} more)" if len(rows) > 1 else ""
            raise NotFiniteError(
                f"the network's output is not a finite number (NaN or infinite) at t={at} of image {first}{more}, so "
                "nothing is made of it; training has ruined these weights, as too high a train.lr does: take an "
                "earlier step with --checkpoint, or train again with a lower rate"
            )
        return prediction

    return finite_denoise
