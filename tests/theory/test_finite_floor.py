"""The floor of a finite set: `unstir verify` (oracle-floor) integrates it; here are its ends and what it is not."""

import pytest
import torch

from unstir.theory.loss_floor import least_errors
from unstir.theory.oracle import FiniteData
from unstir.theory.schedule import linear

LINEAR = linear()
N, SHAPE = 24, (3, 2, 2)
IMAGES = torch.randint(0, 256, (N, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(N) % 3


def queries(num=N):
    index = torch.arange(num) % N
    return index, torch.randn(num, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_it_is_what_the_exact_denoiser_leaves():
    index, eps = queries(960)
    times = (200, 500, 800)
    found = least_errors(IMAGES, index, eps, [(LINEAR.alpha(t) / LINEAR.sigma(t)) ** 2 for t in times])
    data = FiniteData(IMAGES)
    for t, column in zip(times, found.unbind(1), strict=True):
        alpha, sigma = LINEAR.alpha(t), LINEAR.sigma(t)
        x_t = alpha * (IMAGES[index].double() / 127.5 - 1) + sigma * eps
        gap = column - data.spread(x_t, alpha, sigma)
        assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5 and gap.std() > 0


def test_without_noise_nothing_is_left_and_without_signal_the_variance():
    index, eps = queries()
    clear, blind = least_errors(IMAGES, index, eps, [1e4, 0.0]).mean(0)
    assert clear == 0
    variance = (IMAGES.double() / 127.5 - 1).var(0, correction=0).mean()
    assert blind.item() == pytest.approx(variance.item(), rel=1e-12)


def test_images_left_out_of_the_posterior_lower_it():
    """Why queries may be few and images may not."""
    index, eps = queries(240)
    some = index < N // 3
    whole = least_errors(IMAGES, index[some], eps[some], [0.5]).mean()
    assert least_errors(IMAGES[: N // 3], index[some], eps[some], [0.5]).mean() < 0.9 * whole


@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("block", [1, 7, N])
def test_blocks_labels_and_mirror_images_are_sets_written_out(block, mirrored, labels):
    index, eps = queries()
    found = least_errors(IMAGES, index, eps, [0.3, 3.0], labels, mirrored, block)
    for query in range(N):
        kept = torch.arange(N) if labels is None else (LABELS[query] == LABELS).nonzero()[:, 0]
        images = torch.cat((IMAGES[kept], IMAGES[kept].flip(-1))) if mirrored else IMAGES[kept]
        of = (kept == query).nonzero()[:, 0]
        alone = least_errors(images, of, eps[query : query + 1], [0.3, 3.0])
        assert torch.allclose(found[query], alone[0], rtol=1e-12, atol=1e-14)
