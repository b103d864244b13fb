"""Copies of training images: found where they are and nowhere else; a training that draws them is ended."""

import dataclasses
import json
import math
import re
import statistics
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import kstest

from unstir.data import Store
from unstir.metrics import copies
from unstir.metrics import memorisation as search
from unstir.metrics.copies import NUM, CopyWatch
from unstir.metrics.memorisation import memorisation, nearest, nearest_features, picture
from unstir.significance import mann_whitney, precedence
from unstir.train.launch import train_run
from unstir.train.observer import Observer, Observers, Stop


def generator(seed):
    return torch.Generator().manual_seed(seed)


def noise(seed, *shape, high=256):
    return torch.randint(0, high, shape, dtype=torch.uint8, generator=generator(seed))


def by_brute_force(queries, train, k, flip):
    views = [train, train.flip(-1)] if flip else [train]
    each = [((queries[:, None].double() - view[None].double()) ** 2).flatten(2).mean(2).sqrt() for view in views]
    return torch.stack(each).amin(0).topk(k, dim=1, largest=False)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(search, "_QUERIES", 7)
    monkeypatch.setattr(search, "_TRAIN", 16)
    monkeypatch.setattr(search, "_EXACT_BYTES", 5000)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("k", [1, 4, 37])
def test_the_nearest_are_those_of_brute_force_in_blocks_of_any_size(small_blocks, flip, k):
    queries, train = noise(0, 30, 2, 3, 4), noise(1, 37, 2, 3, 4)
    found, expected = nearest(queries, train, k=k, flip=flip), by_brute_force(queries, train, k, flip)
    torch.testing.assert_close(found.distance, expected.values, rtol=1e-14, atol=0)
    seen = torch.where(found.mirrored[..., None, None, None], train.flip(-1)[found.index], train[found.index])
    measured = (seen.double() - queries[:, None].double()).square().flatten(2).mean(2).sqrt()
    assert torch.equal(measured, found.distance) and found.mirrored.any() == flip
    assert all(len(set(row)) == k for row in found.index.tolist())  # an image once, as it is or mirrored


def test_copies_are_at_zero_and_near_copies_in_their_order_where_float32_cancels():
    train = noise(0, 300, 3, 32, 32)
    train[:9] = train[40]  # differ by less than the rounding of |a|^2 + |b|^2 - 2 a.b
    for i in range(9):
        train[i, 0, 0, : 1 + i // 3] ^= 1
    queries = torch.stack((train[40], train[7], train[200].flip(-1), 255 - train[250]))
    found = nearest(queries, train, k=3, flip=True)
    assert found.distance[:3, 0].tolist() == [0.0, 0.0, 0.0] and found.mirrored[:, 0].tolist()[:3] == [
        False,
        False,
        True,
    ]
    assert found.index[:3, 0].tolist() == [40, 6, 200]  # of equals (6, 7 and 8) the first
    assert found.distance[0].tolist() == pytest.approx([0, math.sqrt(1 / 3072), math.sqrt(1 / 3072)], rel=1e-14)
    assert found.index[0].tolist() == [40, 0, 1]


def test_features_far_from_zero_are_told_apart_and_mirror_images_count():
    train = 1000 + 1e-3 * torch.randn(50, 64, dtype=torch.float64, generator=generator(0))
    mirrored = 1000 + 1e-3 * torch.randn(50, 64, dtype=torch.float64, generator=generator(1))
    queries = torch.cat((train[[9, 3]] + 1e-6, mirrored[[4]]))
    found = nearest_features(queries, train, mirrored=mirrored)
    assert found.index.flatten().tolist() == [9, 3, 4] and found.mirrored.flatten().tolist() == [False, False, True]
    assert found.distance.flatten().tolist() == pytest.approx([1e-6, 1e-6, 0], abs=1e-12)
    assert nearest_features(queries, train).distance[2, 0] > 5e-4
    assert nearest_features(queries[:0], train, k=2).index.shape == (0, 2)


def test_new_images_are_accused_as_seldom_as_the_level_says(digits):
    """Halves of the held-out digits are alike by construction: p is uniform, and for counts never smaller than that."""
    store = Store.open(digits)
    found = nearest(store.images("held_out"), store.images("train"), k=50).distance
    nearer, copies = [], []
    for seed in range(600):
        order = torch.randperm(len(found), generator=generator(seed))
        for d in (found[:, 0], found[:, 0] / found.mean(1)):
            a, b = d[order[:120]].contiguous(), d[order[120:]].contiguous()
            nearer.append(mann_whitney(a, b).p)
            copies.append(precedence(a, b, 0.01).p)
    assert kstest(nearer[::2], "uniform").pvalue > 0.01 and kstest(nearer[1::2], "uniform").pvalue > 0.01
    for level in (0.4, 0.1, 0.02):
        assert statistics.fmean(p <= level for p in copies) < level + 3 * math.sqrt(level / 600)
    assert min(copies) < 0.05  # it is not silent either


def coarse(images):
    """Features: the mean brightness of each 2x2 block."""
    return torch.nn.functional.avg_pool2d(images.double(), 2).flatten(1)


@pytest.fixture(scope="module")
def split(digits):
    """600 digits to train on, 600 held out, 500 fresh ones."""
    store = Store.open(digits)
    images = torch.cat((store.images("train"), store.images("held_out")))
    images = images[torch.randperm(len(images), generator=generator(0))]
    return images[:600], images[600:1200], images[1200:1700]


def at_p(result, p):
    """The result with another p of each search for copies."""
    spaces = [dataclasses.replace(each, copies=dataclasses.replace(each.copies, p=p)) for each in result.spaces]
    return dataclasses.replace(result, spaces=tuple(spaces))


@pytest.mark.parametrize("features", [None, coarse])
def test_two_in_a_hundred_copies_are_found_where_the_whole_looks_as_new(split, features):
    train, held_out, samples = split
    samples = samples.clone()
    samples[50:60] = train[100:110]  # copies, but for one grey level here and there
    samples[50:60] = torch.minimum(samples[50:60], noise(0, *samples[50:60].shape) | 254)
    result = memorisation(samples, train, held_out, features=features, closest=10)
    assert result.verdict == "copies" and (result.num, result.num_train, result.num_held_out) == (500, 600, 600)
    for space in result.spaces:
        assert 10 <= space.copies.count <= 13 and space.copies.least <= 10 and space.copies.p < 1e-3
        assert space.distance.p > 0.01 and space.relative.p > 0.01  # the whole hides them
        assert {pair.image for pair in space.closest} == set(range(50, 60))
        for pair in space.closest:
            assert all(match.index[0] == pair.image + 50 for match in pair.matches)
            assert len(pair.matches) == len(result.spaces) and pair.matches[0].distance[0] < 1
        own = [pair.matches[result.spaces.index(space)].relative for pair in space.closest]
        assert own == sorted(own)
    decided, undecided = (at_p(result, p).says for p in (1e-5, 1e-3))
    assert re.findall(r"\d+", decided)[:3] == ["500", "600", "600"] and "\npixels: 1" in decided
    assert "undecided" in undecided and "undecided" not in decided
    json.dumps(dataclasses.asdict(result), allow_nan=False)


def test_new_images_are_not_accused(split):
    train, held_out, fresh = split
    result = memorisation(fresh, train, held_out, features=coarse)
    assert result.verdict == "none" and "no sign" in result.says
    assert abs(result.spaces[0].distance.probability - 0.5) < 4 * result.spaces[0].distance.standard_error


def test_faint_images_are_near_but_no_copies():
    def images(seed, num, contrast):
        spread = contrast * (10 + 30 * torch.rand(num, 1, 1, 1, generator=generator(seed)))
        eps = torch.randn(num, 1, 8, 8, generator=generator(seed + 1))
        return (128 + spread * eps).round().clamp(0, 255).byte()

    train, held_out = images(0, 400, 1.0), images(10, 300, 1.0)
    result = memorisation(images(20, 300, 0.7), train, held_out)
    (space,) = result.spaces
    assert result.verdict == "nearer" and "none a copy" in result.says
    assert space.distance.p < 1e-6 and space.copies.count == 0 and space.copies.threshold == 0.5


def test_mirrored_copies_count_only_where_mirror_images_were_learned(split):
    train, held_out, samples = split
    samples = torch.cat((train[:20].flip(-1), samples[:480]))
    assert memorisation(samples, train, held_out).verdict == "none"
    for features in (None, coarse):
        result = memorisation(samples, train, held_out, flip=True, features=features, closest=20)
        assert result.verdict == "copies" and result.flip and "mirrored too" in result.says
        assert all(p.matches[0].mirrored[0] and p.matches[0].index[0] == p.image for p in result.spaces[-1].closest)


@pytest.mark.parametrize(
    ("num", "num_held_out", "verdict"), [(500, 0, None), (500, 18, "copies"), (19, 500, "copies"), (3, 2, None)]
)
def test_few_images_show_many_copies_but_not_that_there_are_none(split, num, num_held_out, verdict):
    train, held_out, samples = split
    result = memorisation(train[:num], train, held_out[:num_held_out], features=coarse)
    assert result.verdict == verdict
    for space in result.spaces:
        assert space.distance is space.relative is None and (space.copies is None) == (num_held_out == 0)
        assert len(space.closest) == min(6, num) and len(space.closest_held_out) == min(6, num_held_out)
    assert picture(result, samples, train, held_out).width > 100
    new = memorisation(samples[:num], train, held_out[:num_held_out], features=coarse)
    assert new.verdict is None and new.says.startswith("undecided")


def test_a_picture_taken_many_times_is_a_copy_all_the_same(split):
    train, held_out, samples = split
    doubled = torch.cat((train[:10].repeat(5, 1, 1, 1), train[50:]))  # each five times over
    copies = (train[:10].float() + 4 * torch.randn(10, 1, 8, 8, generator=generator(0))).clamp(0, 255).byte()
    result = memorisation(torch.cat((copies, samples[:400])), doubled, held_out)
    assert result.verdict == "copies" and result.spaces[0].copies.count >= 10


def test_the_picture_shows_samples_before_new_images_each_beside_its_nearest_training_images():
    train, held_out = noise(0, 30, 1, 8, 8, high=200), noise(1, 30, 1, 8, 8, high=200)
    samples = torch.cat((noise(2, 29, 1, 8, 8, high=200), train[4:5].flip(-1)))
    result = memorisation(samples, train, held_out, flip=True, closest=2)
    shown = picture(result, samples, train, held_out)
    assert shown.mode == "L" and shown.height == 2 + 4 * (48 + 2)
    pixels = torch.tensor(list(shown.tobytes())).view(shown.height, shown.width)[:, -4 * 50 :]
    tiles = [pixels[top : top + 48 : 6, left : left + 48 : 6] for top in (2, 102) for left in (0, 50)]
    new = held_out[result.spaces[0].closest_held_out[0].image, 0]
    for tile, image in zip(tiles, (samples[29, 0], samples[29, 0], new), strict=False):  # the mirrored one is the copy
        assert torch.equal(tile, image.long())


@pytest.mark.parametrize(("split", "step", "asked"), [("train", 12, 0), ("train", 0, None), ("held_out", 12, None)])
def test_it_asks_to_stop_where_training_images_are_drawn(run, store, monkeypatch, logged, split, step, asked):
    drawn = store.scale.to_model(store.images(split)[:NUM])
    monkeypatch.setattr(copies, "sample_batches", lambda model, job: [(range(NUM), drawn)])
    stop = Stop()
    CopyWatch(run.path, stop).grid(step, Path("any.png"))
    assert stop.signal == asked and len(logged) == (asked == 0)


def test_images_of_an_untrained_network_are_no_copies_nor_of_one_photograph(run, store, monkeypatch):
    stop = Stop()
    CopyWatch(run.path, stop).grid(12, Path("any.png"))
    monkeypatch.setattr(copies, "with_store", lambda run: (run, SimpleNamespace(count=lambda split: 1)))
    CopyWatch(run.path, stop).grid(12, Path("any.png"))
    assert stop.signal is None


class Asks(Observer):
    """Asks to stop at the first grid of a trained network."""

    def __init__(self, stop):
        self.stop, self.steps = stop, []

    def grid(self, step, file):
        if step:
            self.stop.request(0)

    def step(self, step):
        self.steps.append(step)


def test_a_training_that_an_observer_ends_is_saved_and_goes_on(make_run):
    run, _ = make_run("asked")
    stop = Stop()
    first, second = Asks(stop), Asks(stop)
    done = train_run(run.config, run.path, observer=Observers(first, second), stop=stop)
    assert not done.finished and 0 < done.step < run.length and run.newest_step() == done.step
    assert first.steps == second.steps == [*range(1, done.step + 1)]
    assert train_run(run.config, run.path).finished
