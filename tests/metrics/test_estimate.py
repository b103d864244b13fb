"""An estimate of the likelihood: how many samples it is made of, and the error that they tell."""

import math
import statistics

import pytest
import torch

from unstir.metrics import likelihood as module
from unstir.metrics.likelihood import SAMPLES, Protocol, likelihood


@pytest.fixture
def bounds(monkeypatch):
    """The bounds of each batch, as they are computed."""
    heard, compute = [], module._bound

    def listening(*given):
        heard.append(compute(*given))
        return heard[-1]

    monkeypatch.setattr(module, "_bound", listening)
    return heard


@pytest.mark.parametrize(
    ("num", "batch_size", "sizes"),
    [(64, 64, [8] * 8), (20, 64, [3] * 6 + [2]), (5, 64, [1] * 5), (64, 4, [4] * 16)],
)
def test_an_estimate_is_made_in_eight_samples_or_more(trained, bounds, num, batch_size, sizes):
    run, store = trained()
    calls = []
    likelihood(run, store, Protocol(calls=4, num=num, batch_size=batch_size), progress=lambda *of: calls.append(of))
    assert SAMPLES == 8 and [len(bound.bits_per_dim) for bound in bounds] == sizes
    assert calls[-1] == (4 * len(sizes), 4 * len(sizes))
    assert len({tuple(bound.times) for bound in bounds}) > 1  # each has its own times
    bounds.clear()
    likelihood(run, store, Protocol(num=num, batch_size=batch_size))  # the whole sum needs none of that
    assert len(bounds[0].bits_per_dim) == min(num, batch_size)


def test_its_error_is_that_of_the_samples_and_not_of_their_images(trained, bounds):
    run, store = trained()
    found = likelihood(run, store, Protocol(calls=3, num=256))
    means = [bound.bits_per_dim.mean().item() for bound in bounds]
    of_images = torch.cat([bound.bits_per_dim for bound in bounds]).tolist()
    assert found.standard_error == pytest.approx(statistics.stdev(means) / math.sqrt(8), rel=1e-6)
    assert found.standard_error > 1.5 * statistics.stdev(of_images) / math.sqrt(256)  # images of a batch share times
    assert found.bits_per_dim == pytest.approx(statistics.fmean(of_images), rel=1e-6)
