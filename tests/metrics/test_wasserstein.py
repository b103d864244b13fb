"""The sliced Wasserstein distance against closed forms, SciPy, and what it should see in digits."""

import statistics

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve
from scipy.stats import wasserstein_distance

from unstir import randomness
from unstir.data import Store
from unstir.metrics.wasserstein import descriptors, pyramid, swd, wasserstein
from unstir.randomness import Key


def generator(seed):
    return torch.Generator().manual_seed(seed)


def noise(seed, *shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(seed))


def ones(n):
    return torch.ones(1, n, dtype=torch.float64)


def on_a_line(a, b):
    return wasserstein(a[:, None], b[:, None], ones(len(a)), ones(len(b))).item()


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (30, 30), (30, 45), (31, 47)])
def test_it_is_scipys_for_any_numbers_ties_and_weights(n, m):
    a, b = (torch.randint(0, 20, (k, 3), generator=generator(k)).float() / 7 for k in (n, m + 100))
    b = b[:m]
    weights = [torch.stack([ones(k)[0], torch.bincount(torch.arange(k) // 3, minlength=k).double()]) for k in (n, m)]
    found = wasserstein(a, b, *weights)
    for row in range(2):
        of_a, of_b = (w[row].repeat_interleave(3).numpy() for w in weights)
        expected = wasserstein_distance(a.flatten().numpy(), b.flatten().numpy(), of_a, of_b)
        assert found[row].item() == pytest.approx(expected, abs=1e-7)
    assert on_a_line(a[:, 0], a[:, 0].flip(0)) == 0.0


@pytest.mark.parametrize(("height", "width"), [(32, 32), (14, 17), (28, 15)])
def test_the_pyramid_is_that_of_an_independent_convolution(height, width):
    image = torch.rand(1, 1, height, width, generator=generator(0)) * 255
    row = np.array([1, 4, 6, 4, 1]) / 16
    filter_ = np.outer(row, row)
    levels, rest = pyramid(image), image[0, 0].numpy().astype(float)
    for level in levels[:-1]:
        small = convolve(rest, filter_, mode="mirror")[::2, ::2]
        spread = np.zeros_like(rest)
        spread[::2, ::2] = small
        np.testing.assert_allclose(level[0, 0], rest - convolve(spread, 4 * filter_, mode="mirror"), atol=1e-3)
        rest = small
    np.testing.assert_allclose(levels[-1][0, 0], rest, atol=1e-3)
    flat = pyramid(torch.full((1, 1, height, width), 200.0))
    assert all(level.abs().max() < 1e-3 for level in flat[:-1]) and (flat[-1] - 200).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("height", "width", "sides"),
    [(8, 8, (8,)), (32, 32, (32, 16, 8)), (28, 28, (28, 14, 7)), (13, 64, (13, 7)), (12, 64, (12,)), (3, 5, (3,))],
)
def test_levels_are_halved_as_long_as_a_patch_fits(height, width, sides):
    assert [level.shape[2] for level in pyramid(noise(0, 4, 1, height, width).float())] == [*sides]
    found = descriptors(noise(0, 4, 1, height, width), patches=5)
    assert [tuple(level.shape[2:]) for level in found] == [(1, min(7, height), min(7, height))] * len(sides)


def test_small_images_give_every_patch_and_large_ones_the_same_places_in_any_set():
    small = noise(0, 3, 2, 8, 9)
    (found,) = descriptors(small, patches=6)
    assert torch.equal(found[1, 4], small[1, :, 1:8, 1:8].float())  # places run along rows: two rows of three
    assert len({tuple(patch.flatten().tolist()) for patch in found[0]}) == 6
    many = noise(1, 300, 1, 16, 16)  # more than are cut at once
    many[299] = many[43]  # the same place in its batch, another image: other places
    whole, part = descriptors(many, seed=3), descriptors(many[:270], seed=3)
    assert all(torch.equal(x[:270], y) for x, y in zip(whole, part, strict=True))
    assert not torch.equal(whole[0], descriptors(many, seed=4)[0]) and not torch.equal(whole[0][299], whole[0][43])
    level = pyramid(many.float())[0]
    places = level[299, 0].unfold(0, 7, 1).unfold(1, 7, 1).flatten(0, 1)
    index = [torch.nonzero((places - patch[0]).abs().amax((1, 2)) < 1e-3).item() for patch in whole[0][299]]
    assert len(set(index)) > 15 and min(index) < 20 and max(index) > 80  # all over the image


def test_all_together_is_a_plain_computation_by_scipy():
    a, b = noise(0, 20, 3, 8, 8), (noise(1, 30, 3, 8, 8) * torch.tensor([1.0, 0.5, 0.2])[:, None, None]).byte()
    patches = [np.lib.stride_tricks.sliding_window_view(x.numpy().astype(float), (7, 7), (2, 3)) for x in (a, b)]
    patches = [x.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 3, 49) for x in patches]
    mean = (patches[0].mean((0, 2)) + patches[1].mean((0, 2))) / 2
    var = sum(((x - mean[:, None]) ** 2).mean((0, 2)) for x in patches) / 2  # about the common mean
    rows = [((x - mean[:, None]) / np.sqrt(var)[:, None]).reshape(len(x), -1) for x in patches]
    directions = randomness.normal(Key(5, "swd directions", 0, torch.arange(10)), (147,)).double().numpy()
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    expected = statistics.fmean(wasserstein_distance(rows[0] @ d, rows[1] @ d) for d in directions)
    assert swd(a, b, seed=5, projections=10).mean == pytest.approx(1000 * expected, rel=1e-4)


def test_it_is_symmetric_and_zero_between_equals():
    a, b = noise(0, 40, 3, 32, 32), noise(1, 30, 3, 32, 32) // 2
    one, other = swd(a, b, projections=8), swd(b, a, projections=8)
    assert one.mean == pytest.approx(other.mean, rel=1e-5)
    assert swd(a, a, projections=8).mean == 0
    assert swd(a, b, projections=8) == one != swd(a, b, projections=8, seed=1)


def test_contrast_and_a_channel_that_is_constant_are_seen():
    a = noise(0, 50, 2, 8, 8)
    half = ((a.float() - 127.5) / 2 + 127.5).byte()
    assert swd(a, half).mean > 150  # sets scaled each by its own deviation would be about 0 apart
    blue, other = a.clone(), a.clone()
    blue[:, 1], other[:, 1] = 10, 10
    assert swd(blue, other).mean == 0
    other[:, 1] = 11
    assert 500 < swd(blue, other).mean <= 2000  # two constants are as different as distributions can be


def test_it_rises_with_noise_and_blur_from_a_floor_far_below_the_ceiling(digits):
    store = Store.open(digits)
    real, reference = store.images("train")[:290], store.images("held_out")[:290]
    floor, ceiling = swd(real, reference), swd(noise(0, *real.shape), reference)
    assert floor.mean < ceiling.mean / 8
    eps = torch.randn(real.shape, generator=generator(1))
    noised = [swd((real + s * eps).round().clamp(0, 255).byte(), reference).mean for s in (0, 20, 40, 80, 160)]
    assert noised == sorted(noised) and noised[-1] > 3 * noised[0]
    blurred, image = [], real.float()
    for _ in range(4):
        blurred.append(swd(image.round().byte(), reference).mean)
        image = 0.6 * image + 0.2 * image.roll(1, 3) + 0.2 * image.roll(-1, 3)
    assert blurred == sorted(blurred) and blurred[-1] > 2 * blurred[0]
    mixed = torch.cat((real[:145], noise(2, *real[:145].shape)))
    assert floor.mean < swd(mixed, reference).mean < ceiling.mean


def test_the_bootstrap_finds_the_deviation_between_independent_sets():
    def images(seed, low):  # brightness differs from image to image, so the patches of an image are much alike
        level = torch.randint(low, 150, (100, 1, 1, 1), generator=generator(seed))
        return (level + torch.randint(0, 50, (100, 1, 12, 12), generator=generator(seed + 1000))).byte()

    found = [swd(images(seed, 0), images(seed + 500, 60), projections=8, patches=8) for seed in range(50)]
    deviation = statistics.stdev(result.mean for result in found)
    assert statistics.fmean(result.standard_error for result in found) == pytest.approx(deviation, rel=0.3)
