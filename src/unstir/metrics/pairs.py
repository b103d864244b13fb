"""Images that another image describes, against held-out pairs: is the mean of samples near, and is their spread right?

    error     mean over pairs of (mean of n samples given c - x_0)^2           a mean over pixels, of values in [-1, 1]
    spread    sqrt( (1 + 1/n) mean over pairs of the samples' variance / error )      1 where samples are calibrated

If x_0 and the samples are drawn alike given c, the expected error is their variance times 1 + 1/n.
"""

from dataclasses import replace

import torch
from torch import Tensor

from unstir.data import Store
from unstir.metrics.drawn import Drawn
from unstir.metrics.figures import LOWER, NEAR_ONE, Figure

PAIRS, SAMPLES = 64, 16


def paired(drawn: Drawn, store: Store) -> tuple[Drawn, int] | None:
    """What draws `SAMPLES` images for each of some held-out conditions, and how many; None unless these are images."""
    conditions, pairs = drawn.model.conditions, min(PAIRS, store.count("held_out"))
    if conditions is None or not conditions.is_image or pairs < 2:
        return None
    rows = conditions.rows_of(store, "held_out", pairs)
    return replace(drawn, condition=rows.repeat_interleave(SAMPLES, 0)), pairs * SAMPLES


def pair_figures(drawn: Drawn, store: Store) -> dict[str, Figure]:
    """The two figures of this module, of images drawn now as far as they are not there; none without such pairs."""
    if (pair := paired(drawn, store)) is None:
        return {}
    images = store.scale.to_model(pair[0].sets(pair[1], 1)[0]).double().view(-1, SAMPLES, *store.shape)
    real = store.scale.to_model(store.images("held_out")[: len(images)]).double()
    errors = (images.mean(1) - real).square().flatten(1).nanmean(1)
    variances = (1 + 1 / SAMPLES) * images.var(1).where(~real.isnan(), torch.nan).flatten(1).nanmean(1)
    error, ratio = errors.mean(), (variances.mean() / errors.mean()).sqrt()
    # of the square root of a ratio of means, by its derivatives (the delta method)
    of_ratio = (variances - ratio.square() * errors) / (2 * ratio * error)
    num = len(images)

    def figure(name: str, better: str, value: Tensor, parts: Tensor) -> Figure:
        deviation = parts.std().item() / num**0.5
        return Figure(name=name, better=better, by_seed=(value.item(),), bootstrap=deviation, num_reference=num)

    of_error = figure(f"error of the mean of {SAMPLES}", LOWER, error, errors)
    return {"pairs/error": of_error, "pairs/spread": figure("spread over error", NEAR_ONE, ratio, of_ratio)}
