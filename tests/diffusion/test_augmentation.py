"""Augmented images against exact turns, shifts and mirrorings; and which random numbers a chain uses."""

import itertools
import math

import pytest
import torch
from scipy import stats

from refusals import refusing
from unstir.chain import SAMPLERS, Chain
from unstir.diffusion.augmentation import SCALE, augmentation, transformed
from unstir.diffusion.denoiser import Prediction
from unstir.diffusion.draw import draw, starting_noise
from unstir.generate.drawing import Job, sample_batches
from unstir.nn.config import AUGMENTATION
from unstir.parts import find
from unstir.pixels import to_uint8
from unstir.theory.process import Process
from unstir.theory.schedule import linear
from unstir.verify.sampling import ORDERS

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


RANDOM = {"ancestral": {}, "ddim": {"eta": 1.0}, "dpmpp_2m_sde": {}}
SHAPE = 3, 8, 8


def test_every_sampler_has_an_order_or_is_tried_for_its_noise():
    untried = SAMPLERS.keys() - ORDERS.keys() - RANDOM.keys()
    assert not untried  # a solver belongs in ORDERS of verify/solvers.py, a sampler that draws noise in RANDOM here


@pytest.mark.parametrize("sampler", RANDOM)
def test_the_images_of_any_batch_size_are_one_set(trained, sampler):
    run, _ = trained(train__length="1 step")
    made = {}
    for batch_size in (3, 7, 10):
        job = Job(num=10, chain=Chain(sampler, steps=4, **RANDOM[sampler]), batch_size=batch_size)
        parts = [to_uint8(images) for _, images in sample_batches(run.model(1, ema=False), job)]
        assert [len(part) for part in parts] == {3: [3, 3, 3, 1], 7: [7, 3], 10: [10]}[batch_size]
        made[batch_size] = torch.cat(parts).int()
    for images in made.values():
        assert (images - made[10]).abs().max() <= 1
        assert all((a - b).abs().max() > 20 for a, b in itertools.combinations(images, 2))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_noise_is_asked_for_once_a_step_but_the_last_and_by_no_other_sampler(sampler):
    process, asked = Process(linear(100, 1e-3, 0.2)), []
    half = lambda x, t: Prediction(x / 2, process.eps(x, x / 2, t))
    noise = lambda t: (asked.append(t), torch.ones(1))[1]
    visited, x_T = [100, 60, 30, 1, 0], torch.ones(1, 1, 1, 1)
    list(find("sampler", sampler)(half, process, x_T, visited, noise, **RANDOM.get(sampler, {})))
    assert asked == (visited[:-2] if sampler in RANDOM else [])


def test_the_noise_that_a_chain_begins_with_does_not_change():
    begun = starting_noise(7, torch.tensor([5]), (3,))
    torch.testing.assert_close(begun, torch.tensor([[-0.7685948, -0.5597600, 1.5058202]]))


def innovations(sampler, seed=0, indices=None):
    """What each step of a chain adds that is no multiple of where it was: [steps, B, 3 * 8 * 8], scaled to one.

    The estimate is 0, so each step is x <- a x + b z. Two chains of one noise from two beginnings differ by a alone.
    """
    process, indices = Process(linear(100, 1e-3, 0.2)), torch.arange(32) if indices is None else indices
    chain = Chain(sampler, steps=8, seed=seed, clip=False, **RANDOM[sampler])
    x_T = starting_noise(99, indices, SHAPE).double()
    zero = lambda x, t: Prediction(torch.zeros_like(x), x)
    ways = [[x_T * k, *(step.x for step in draw(zero, process, x_T * k, indices, chain))] for k in (1, 2)]
    added = []
    for (x, x_next), (y, y_next) in zip(*map(itertools.pairwise, ways), strict=True):
        gain = ((y_next - x_next) / (y - x)).nan_to_num().median()  # 0 / 0 where the first step forgot where it was
        added.append((x_next - gain * x).flatten(1))
    return torch.stack([each / each.std() for each in added if each.std() > 1e-6])


@pytest.mark.parametrize("sampler", RANDOM)
def test_each_step_and_each_image_has_noise_of_its_own(sampler):
    z = innovations(sampler)
    steps, images, values = z.shape
    assert steps >= 6
    bound = 6 / (images * values) ** 0.5
    for a, b in itertools.combinations(z, 2):
        assert abs((a * b).mean()) < bound
    for a, b in itertools.combinations(z.transpose(0, 1), 2):
        assert abs((a * b).mean()) < 6 / (steps * values) ** 0.5


@pytest.mark.parametrize("sampler", RANDOM)
def test_noise_is_a_function_of_the_seed_and_the_number_of_the_image(sampler):
    whole, part = innovations(sampler), innovations(sampler, indices=torch.arange(20, 25))
    unit = lambda z: z / z.std((1, 2), keepdim=True)
    assert torch.allclose(unit(whole[:, 20:25]), unit(part), atol=1e-6)
    other = innovations(sampler, seed=1)
    assert abs((whole * other).mean()) < 6 / whole.numel() ** 0.5


def test_a_variance_of_another_name_is_refused():
    x_T = torch.ones(1, 1, 1, 1)
    with refusing("variance", "huge"):
        list(find("sampler", "ancestral")(lambda x, t: Prediction(x, x), Process(linear()), x_T, [5, 0], None, "huge"))
