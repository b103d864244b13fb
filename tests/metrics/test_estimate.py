"""An estimate of the likelihood: how many samples it is made of, and the error that they tell."""

import itertools
import math
import statistics

import pytest
import torch

from unstir.metrics import likelihood as module
from unstir.metrics.likelihood import SAMPLES, Protocol, split_likelihood


@pytest.fixture
def bounds(monkeypatch):
    """The bounds of each batch, as they are computed."""
    heard, compute = [], module.variational_bound

    def listening(*given, **options):
        heard.append(compute(*given, **options))
        return heard[-1]

    monkeypatch.setattr(module, "variational_bound", listening)
    return heard


@pytest.mark.parametrize(
    ("num", "batch_size", "sizes"),
    [(64, 64, [8] * 8), (20, 64, [3] * 6 + [2]), (5, 64, [1] * 5), (36, 4, [4] * 9)],
)
def test_an_estimate_is_made_in_eight_samples_or_more(run, store, bounds, counts, num, batch_size, sizes):
    split_likelihood(run.model(), store, Protocol(calls=4, num=num, batch_size=batch_size))
    assert SAMPLES == 8 and [len(bound.bits_per_dim) for bound in bounds] == sizes
    assert counts[-1][1:] == (4 * len(sizes), 4 * len(sizes))
    assert len({tuple(bound.times) for bound in bounds}) > 1  # each has its own times
    bounds.clear()
    split_likelihood(run.model(), store, Protocol(num=num, batch_size=batch_size))  # the whole sum needs none of that
    assert len(bounds[0].bits_per_dim) == min(num, batch_size)


def test_its_error_is_that_of_the_samples_and_not_of_their_images(run, store, bounds):
    found = split_likelihood(run.model(), store, Protocol(calls=3, num=256))
    means = [bound.bits_per_dim.mean().item() for bound in bounds]
    of_images = torch.cat([bound.bits_per_dim for bound in bounds]).tolist()
    assert found.standard_error == pytest.approx(statistics.stdev(means) / math.sqrt(8), rel=1e-6)
    assert found.num_samples == 8
    assert found.standard_error > 1.5 * statistics.stdev(of_images) / math.sqrt(256)  # images of a batch share times
    assert found.bits_per_dim == pytest.approx(statistics.fmean(of_images), rel=1e-6)


def test_the_sum_up_to_a_time_ends_at_the_bound(run, store):
    for protocol in (Protocol(num=40), Protocol(num=40, calls=5), Protocol(num=41, calls=3, batch_size=4)):
        found = split_likelihood(run.model(), store, protocol)
        assert len(found.total) == len(found.times)
        assert found.prior + found.total[-1] == pytest.approx(found.bits_per_dim, rel=1e-6)
        assert all(a <= b + 1e-9 for a, b in itertools.pairwise(found.total)) and found.total[0] >= found.decoder - 1e-9
    whole = split_likelihood(run.model(), store, Protocol(num=40))
    added = list(itertools.accumulate(whole.curve, initial=whole.decoder))[1:]
    assert whole.total == pytest.approx(added, rel=1e-5)


def test_the_estimated_sum_is_near_the_whole_one_at_every_time(run, store):
    whole = dict(
        zip(*(lambda r: (r.times, r.total))(split_likelihood(run.model(), store, Protocol(num=128))), strict=True)
    )
    sums = [split_likelihood(run.model(), store, Protocol(num=128, calls=6, seed=seed)) for seed in range(6)]
    for t in (5, 10, 20):
        at_t = [max(s for time, s in zip(found.times, found.total, strict=True) if time <= t) for found in sums]
        assert statistics.fmean(at_t) == pytest.approx(whole[t], abs=4 * statistics.stdev(at_t) / 6**0.5 + 0.02)
