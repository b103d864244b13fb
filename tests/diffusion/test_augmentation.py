"""Augmented images against exact turns, shifts and mirrorings, and the numbers that say so."""

import itertools
import math

import pytest
import torch
from scipy import stats

from unstir.diffusion.augmentation import SCALE, augmentation, transformed
from unstir.nn.config import AUGMENTATION, UNetConfig
from unstir.nn.unet import UNet

WIDE = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))


def told(**changed):
    """The numbers of a batch of two."""
    names = dict.fromkeys(AUGMENTATION, 0.0) | changed
    return torch.tensor([list(names.values())] * 2)


def augmented(images, seed, step, slots, probability):
    numbers = augmentation(seed, step, slots, probability)
    return transformed(images, numbers), numbers


def turned(angle):
    return told(**{"cos - 1": math.cos(angle) - 1, "sin": math.sin(angle)})


def test_an_image_that_nothing_happens_to_stays_to_the_last_bit():
    assert torch.equal(transformed(WIDE, told()), WIDE)
    assert torch.equal(transformed(WIDE, told(mirrored=1.0)), WIDE.flip(3))
    assert torch.equal(transformed(WIDE, told(**{"upside down": 1.0})), WIDE.flip(2))


def test_turns_are_turns():
    torch.testing.assert_close(transformed(WIDE, turned(math.pi)), WIDE.flip(2, 3), rtol=0, atol=1e-5)
    square = WIDE[..., :6]
    torch.testing.assert_close(transformed(square, turned(math.pi / 2)), square.rot90(-1, (2, 3)), rtol=0, atol=1e-5)
    quarter = transformed(WIDE, turned(math.pi / 2))  # what stays inside of a wide image turns as pixels do
    torch.testing.assert_close(quarter[..., 1:7], WIDE[..., 1:7].rot90(-1, (2, 3)), rtol=0, atol=1e-5)


def test_moves_reflect_at_the_edges():
    moved = transformed(WIDE, told(right=2.0, down=-4 / 3))  # by two pixels of eight, and one of six
    expected = torch.nn.functional.pad(WIDE, (2, 0, 0, 1), mode="replicate")[..., 1:, :8]
    torch.testing.assert_close(moved[..., 2:], expected[..., 2:], rtol=0, atol=1e-5)
    torch.testing.assert_close(moved[..., :5, :2], WIDE[..., 1:, :2].flip(3), rtol=0, atol=1e-5)


def test_an_image_is_scaled_about_its_middle():
    ramp = (torch.arange(8.0) - 3.5).expand(2, 1, 6, 8)
    larger = transformed(ramp, told(scale=1 / SCALE))  # by two
    torch.testing.assert_close(larger, ramp / 2, rtol=0, atol=1e-5)
    torch.testing.assert_close(transformed(ramp, told(scale=1.0)), ramp / 2**0.2, rtol=0, atol=1e-5)


def test_what_happens_is_by_slot_and_as_often_as_asked():
    images, slots = torch.rand(4000, 1, 4, 4), torch.arange(4000)
    made, numbers = augmented(images, 0, 7, slots, 0.3)
    assert torch.equal(made, transformed(images, numbers))
    for column, share in ((0, 0.5), (1, 0.15), (2, 0.3), (4, 0.3), (5, 0.3)):
        happened = numbers[:, column] != 0
        assert stats.binomtest(int(happened.sum()), 4000, share).pvalue > 1e-4
    assert torch.equal(numbers[:, 5] != 0, numbers[:, 6] != 0)
    for one, other in itertools.combinations([numbers[:, column] != 0 for column in (1, 2, 4, 5)], 2):
        assert abs(other[one].float().mean() - other.float().mean()) < 0.08  # each by itself; 600 images: 0.02
    scales, angles = numbers[numbers[:, 2] != 0, 2], torch.atan2(numbers[:, 4], numbers[:, 3] + 1)
    assert stats.kstest(scales.numpy(), "norm").pvalue > 1e-4
    assert stats.kstest(angles[angles != 0].numpy(), stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-4
    for seed, step in ((0, 8), (1, 7)):
        assert (augmented(images, seed, step, slots, 0.3)[1] != numbers).any(1).float().mean() > 0.4


@pytest.mark.parametrize("part", [1, 3, 5, 7, 9, 64])
def test_an_augmented_image_is_the_same_in_any_split_of_the_batch(part):
    images, slots = torch.rand(200, 3, 9, 7), torch.arange(200)
    made, numbers = augmented(images, 0, 7, slots, 0.7)
    parts = [augmented(images[some], 0, 7, some, 0.7) for some in slots.split(part)]
    assert torch.equal(torch.cat([images for images, _ in parts]), made)
    assert torch.equal(torch.cat([numbers for _, numbers in parts]), numbers)


def test_a_network_takes_no_numbers_for_zeros():
    torch.manual_seed(0)
    config = {"in_channels": 1, "channels": 8, "mults": (1,), "num_blocks": 1, "groups": 4, "attention": ()}
    net, x, t = UNet(UNetConfig(**config, augmented=True)).eval(), torch.rand(2, 1, 4, 4), torch.tensor([3, 5])
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    assert torch.equal(net(x, t), net(x, t, augmentation=told()))
    assert not torch.equal(net(x, t), net(x, t, augmentation=told(scale=1.0)))
    for other, numbers in ((net, told()[:1]), (UNet(UNetConfig(**config)), told())):
        with pytest.raises(ValueError, match="augmentation"):
            other(x, t, augmentation=numbers)
