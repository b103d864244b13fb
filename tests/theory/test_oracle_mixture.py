"""The exact denoiser of a mixture of Gaussians: its components, their weights, and what is none."""

import pytest
import torch
from exact import (
    SHAPE,
    close,
    covariance,
    eye,
    mixture,
    ones,
    rand,
    zeros,
)

from unstir.theory.oracle import MixtureData


def test_a_mixture_without_noise_needs_regular_covariances():
    full = torch.stack([covariance(2), covariance(3)])
    data = MixtureData(torch.tensor([0.5, 0.5], dtype=torch.float64), rand(2, *SHAPE), full)
    x = rand(3, *SHAPE, seed=1)
    close(data.estimate(0.5 * x, 0.5, 0.0), x, 1e-13)
    for method in (mixture().estimate, mixture().spread, mixture().log_prob):
        with pytest.raises(ValueError, match=r"sigma=0.0 "):
            method(x, 0.5, 0.0)


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "message"),
    [
        (ones(2) / 2, zeros(3, 1), ones(2, 1, 1), "one for each"),
        (ones(2), zeros(2, 1), ones(2, 1, 1), "with sum 2"),
        (zeros(0), zeros(0, 1), zeros(0, 1, 1), "sum to 1"),
        (torch.tensor([1.5, -0.5]).double(), zeros(2, 1), ones(2, 1, 1), "weights must be >= 0"),
        (ones(2) / 2, zeros(2, 1), -ones(2, 1, 1), "semi-definite"),
    ],
)
def test_what_is_no_mixture_is_refused(weights, means, covariances, message):
    with pytest.raises(ValueError, match=message):
        MixtureData(weights, means, covariances)


def test_weights_sum_to_one_as_far_as_rounding_goes():
    for off, made in ((0.5e-12, True), (-0.5e-12, True), (1.5e-12, False), (-1.5e-12, False)):
        parts = torch.tensor([0.5, 0.5 + off], dtype=torch.float64), zeros(2, 2), eye(2).expand(2, 2, 2)
        if made:
            MixtureData(*parts)
        else:
            with pytest.raises(ValueError, match="sum to 1"):
                MixtureData(*parts)
