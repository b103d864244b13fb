"""Near copies are told from images that lie near each other by nature."""

from types import SimpleNamespace

import pytest
import torch

from unstir.data import Store
from unstir.doctor import image_stats as module
from unstir.doctor.image_stats import _copied, grid_means, image_stats, near_copies
from unstir.runs.run import Run

pytest_plugins = ["spoiled"]


def share(images):
    """The share of images with a near copy, of those looked at."""
    count, num = near_copies(images, images.double().std().item())
    return count / num


def repeated(images, times, noise, generator):
    """Each image ``times`` times, every value changed by up to ``noise`` levels."""
    changes = torch.randint(-noise, noise + 1, (times * len(images), *images.shape[1:]), generator=generator)
    return (images.repeat_interleave(times, 0).int() + changes).clamp(0, 255).to(torch.uint8)


def shapes(generator):
    """Fifty binary shapes, thirty times each, float 0 and 1 [1500, 1, 8, 8]."""
    return (torch.rand(50, 1, 8, 8, generator=generator) > 0.5).float().repeat(30, 1, 1, 1)


def shades(generator):
    """Sprites: the same shapes in any shade of grey."""
    return (shapes(generator) * torch.randint(60, 256, (1500, 1, 1, 1), generator=generator)).to(torch.uint8)


def colours(generator):
    return (shapes(generator) * torch.randint(60, 256, (1500, 3, 1, 1), generator=generator)).to(torch.uint8)


def frames(generator):
    """Frames of animated sprites: of each shape two pixels change."""
    flipped = shapes(generator).bool()
    for image in flipped.view(1500, -1):
        image[torch.randint(0, 64, (2,), generator=generator)] ^= True
    return (flipped * 255).to(torch.uint8)


def blobs(generator):
    """A soft spot anywhere: images that vary in two ways alone."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    at = 16 * torch.rand(2, 1500, 1, 1, 1, generator=generator)
    return (255 * (-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 8).exp()).to(torch.uint8)


def waves(generator):
    """A wave of any phase: images that vary in one way alone."""
    at, phase = torch.arange(256.0).view(1, 1, 16, 16) / 9, torch.rand(1500, 1, 1, 1, generator=generator)
    return (127 + 100 * torch.sin(at + 6 * phase)).to(torch.uint8)


def skies(generator):
    """Dark frames with the noise of the camera, and few of them with anything on them."""
    dark = torch.randint(0, 8, (1500, 1, 8, 8), generator=generator)
    dark[:500, :, 2:6, 2:6] = torch.randint(0, 256, (500, 1, 4, 4), generator=generator)
    return dark.to(torch.uint8)


@pytest.mark.parametrize("kind", [shades, colours, frames, blobs, waves, skies])
@pytest.mark.parametrize("seed", range(3))
def test_images_near_by_nature_are_not_accused(kind, seed):
    assert share(kind(torch.Generator().manual_seed(seed))) < 0.07


@pytest.mark.parametrize(("times", "noise"), [(30, 3), (2, 3), (4, 1)])
def test_every_near_copy_is_found(healthy, times, noise):
    generator = torch.Generator().manual_seed(times)
    images = Store.open(Run.open(healthy).config.data.store).images("train")
    assert share(images) == 0
    assert share(repeated(images[:50], times, noise, generator)) == 1
    some = torch.cat([images[50:1050], repeated(images[:25], 20, noise, generator)])
    assert share(some) == pytest.approx(1 / 3, abs=0.09)


def test_equal_images_are_left_to_the_count_of_copies(healthy):
    images = Store.open(Run.open(healthy).config.data.store).images("train")
    assert share(images[:50].repeat(10, 1, 1, 1)) == 0


def test_means_over_a_grid_differ_by_no_more_than_the_images():
    for side in (1, 3, 4, 8, 17):
        images = torch.randint(0, 256, (20, 3, side, side), generator=torch.Generator().manual_seed(side))
        images = images.to(torch.uint8)
        apart = torch.cdist(grid_means(images), grid_means(images), p=torch.inf)
        most = (images[:, None].int() - images.int()).abs().flatten(2).amax(2)
        assert bool((apart <= most + 1e-3).all())


def test_of_a_large_set_copies_are_found_among_some():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1000, 1, 4, 4), generator=generator).to(torch.uint8)
    assert share(repeated(images, 30, 3, generator)) == 1
    assert share(torch.randint(0, 256, (30_000, 1, 4, 4), generator=generator).to(torch.uint8)) == 0


@pytest.mark.parametrize(
    ("apart", "copied"),
    [([], False), ([8], True), ([9], False), ([0], False), ([0, 8], True), ([8, 48], False), ([8, 49], True)],
)
def test_a_copy_is_within_8_levels_and_nothing_else_within_48(apart, copied):
    image = torch.tensor([[[0, 17]]], dtype=torch.uint8)
    others = torch.tensor([[[[0, 17 + each]]] for each in apart], dtype=torch.uint8).view(-1, 1, 1, 2)
    assert _copied(image, others, 8) is copied
    assert not _copied(torch.tensor([[[1, 17]]], dtype=torch.uint8), others, 8)  # of 16 levels, twice as many as 8


@pytest.mark.parametrize(
    ("levels", "std", "found"), [(8, 64.0, 2), (9, 640.0, 0), (5, 40.0, 2), (6, 40.0, 0), (1, 8.0, 2)]
)
def test_near_is_8_levels_and_an_eighth_of_the_contrast(levels, std, found):
    images = torch.tensor([[0, 100], [0, 100 + levels], [0, 200]], dtype=torch.uint8).view(3, 1, 1, 2)
    assert near_copies(images, std) == (found, 3)


def test_256_images_are_looked_at():
    assert near_copies(torch.zeros(300, 1, 1, 1, dtype=torch.uint8), 9.0) == (0, 256)


def test_of_no_images_none_has_a_near_copy():
    assert near_copies(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), 0.0) == (0, 0)


def test_one_pass_counts_and_measures(monkeypatch):
    train = torch.tensor([[1, 3], [7, 7], [1, 3], [1, 3], [9, 5]], dtype=torch.uint8).view(5, 1, 1, 2)
    held_out = torch.tensor([[7, 7], [8, 8], [255, 0]], dtype=torch.uint8).view(3, 1, 1, 2)
    splits, heard = {"train": train, "held_out": held_out}, []
    store = SimpleNamespace(shape=(1, 1, 2), count=lambda split: len(splits[split]), images=splits.__getitem__)
    monkeypatch.setattr(module, "BLOCK", 4)  # two images
    monkeypatch.setattr(module, "near_copies", lambda images, std: (1, 2))
    found = image_stats(store, lambda *done: heard.append(done))
    assert heard == [(2, 8), (4, 8), (5, 8), (7, 8), (8, 8)]
    values = train.double().flatten()
    assert (found.num, found.held_out, found.least, found.most) == (5, 3, 1, 9)
    assert (found.flat, found.copies, found.leaked, found.near) == (1, 2, 1, (1, 2))
    assert found.mean == pytest.approx(values.mean().item() / 127.5 - 1)
    assert found.std == pytest.approx(values.std(correction=0).item() / 127.5)
    monkeypatch.setattr(module, "BLOCK", 1)
    image_stats(store, lambda *done: heard.append(done))
    assert heard[5:] == [(k, 8) for k in range(1, 9)]
    splits["train"] = train * 0
    black = image_stats(store, lambda *done: None)
    assert (black.least, black.most, black.mean, black.std, black.copies) == (0, 0, -1, 0, 4)
