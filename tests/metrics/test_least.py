"""The least and the usual of what measures: defaults, first values that are allowed, and numbers a table would hold."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

from unstir.errors import UserError
from unstir.metrics import classifier
from unstir.metrics import classifier_training as learning
from unstir.metrics import likelihood as bounding
from unstir.metrics import memorisation as copying
from unstir.metrics.classifier import ConvNet
from unstir.metrics.classifier_training import Lesson
from unstir.metrics.likelihood import Protocol
from unstir.metrics.memorisation import Memorisation, describe, memorisation
from unstir.metrics.nearest import Nearest
from unstir.metrics.wasserstein import descriptors, swd, wasserstein
from unstir.nn.blocks import GroupNorm
from unstir.significance import Precedence, Shift


def noise(seed, *shape, low=0, high=256):
    return torch.randint(low, high, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def found_at(*distances):
    """Images at these distances from their nearest training images."""
    rows = torch.tensor(distances).double()
    return Nearest(torch.arange(rows.shape[1]).expand(rows.shape), rows, torch.zeros(rows.shape).bool())


def test_the_relative_distance_is_over_the_mean_of_all_and_0_among_copies():
    assert copying._relative(found_at([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0])).tolist() == [0.5, 0, 0]
    near = copying._closest(found_at(*([1.0 + i, 9.0, 9.0, 9.0] for i in (2, 0, 1))), [], 2)
    assert [pair.image for pair in near] == [1, 2]
    (pair,) = copying._closest(*(lambda found: (found, [found]))(found_at([1.0, 3.0, 4.0, 8.0])), 1)
    assert pair.matches[0].index == (0, 1, 2) and pair.matches[0].distance == (1, 3, 4)
    assert pair.matches[0].relative == 0.25


def space(p_copies=1.0, p_distance=1.0, p_relative=1.0):
    copies = Precedence(3, 1.0, 0.5, p_copies, 2)
    return copying.Space("pixels", 1.0, 1.0, Shift(0.6, 0.1, p_distance), Shift(0.6, 0.1, p_relative), copies, (), ())


def test_a_verdict_is_reached_at_its_level():
    level = 0.01 / 3
    verdict = lambda **p: copying._verdict([space(), space(**p)], level)
    assert verdict(p_copies=level) == "copies" and verdict(p_copies=level * 1.01) == verdict() == "none"
    assert verdict(p_distance=level) == verdict(p_relative=level) == "nearer"
    assert verdict(p_copies=level, p_distance=0.0) == "copies"
    assert copying._verdict([dataclasses.replace(space(), distance=None, relative=None, copies=None)], 1.0) is None


def test_twenty_images_are_enough_and_fifty_neighbours_are_compared(monkeypatch):
    heard, train = [], noise(0, 60, 1, 4, 4)
    nearest = copying.nearest
    monkeypatch.setattr(copying, "nearest", lambda *given, k, flip: heard.append((k, flip)) or nearest(*given, k=k))
    levels, precedence = [], copying.precedence
    monkeypatch.setattr(copying, "precedence", lambda a, b, *how: levels.append(how) or precedence(a, b, *how))
    found = memorisation(noise(1, 20, 1, 4, 4), train, noise(2, 20, 1, 4, 4), flip=True)
    assert found.verdict is not None and heard == [(50, True)] * 2 and len(found.spaces[0].closest) == 6
    assert levels == [(pytest.approx(0.01 / 3, rel=1e-15), 0.5)]
    mean = lambda images: images.double().flatten(1)
    memorisation(noise(1, 20, 1, 4, 4), train[:2], noise(2, 20, 1, 4, 4), features=mean)
    assert levels[1:] == [(pytest.approx(0.01 / 6, rel=1e-15), 0.5)] * 2 and heard[-1] == (2, False)
    (one,) = memorisation(noise(1, 1, 1, 4, 4), train, noise(2, 0, 1, 4, 4)).spaces
    assert one.median > 0 and one.median_held_out is None


def test_copies_that_are_decided_are_said_so():
    says = lambda p, spaces=1: describe(Memorisation((space(p_copies=p),) * spaces, "copies", 9, 9, 9, False))
    assert says(2.2e-4).startswith("training images are copied") and says(2.4e-4).startswith("some samples may be")
    assert says(2.2e-4, 2).startswith("some samples may be")


def test_the_wasserstein_distance_by_default():
    a, b = noise(0, 6, 1, 20, 20), noise(1, 5, 1, 20, 20, high=200)
    assert swd(a, b) == swd(a, b, seed=0, patches=32, projections=128, repeats=20)
    assert [each.shape[1] for each in descriptors(a)] == [32, 16]  # 10 pixels have 16 places
    assert all(torch.equal(x, y) for x, y in zip(descriptors(a), descriptors(a, seed=0, patches=32), strict=True))
    least = swd(a, b, patches=1, projections=1, repeats=2)
    assert least.standard_error > 0 and least.sides == (20, 10)
    assert swd(noise(0, 2, 1, 13, 13), noise(1, 2, 1, 13, 13), projections=1).sides == (13, 7)
    assert swd(noise(0, 2, 1, 12, 12), noise(1, 2, 1, 12, 12), projections=1).sides == (12,)
    one = torch.ones(1, 2).double()
    values = torch.tensor([[0.0, 1.0], [2.0, 3.0]]), torch.tensor([[1.0], [5.0]])
    assert wasserstein(*values, one, one).tolist() == [1.5]  # half of all moves by 1, half by 2


BOUNDS = {"process": SimpleNamespace(T=20), "folder": None, "data": None, "learned_variance": False, "distilled": False}


@pytest.mark.parametrize(
    ("protocol", "count", "words"),
    [
        ({}, 1, None), ({}, 0, "has no held_out images"), ({"num": 9}, 9, None), ({"num": 10}, 9, "outside 1..9"),
        ({"num": -1}, 9, "outside 1..9"), ({"calls": 2}, 9, None), ({"calls": 20}, 9, None),
        ({"calls": 21}, 9, "outside 2..20"), ({"calls": 1}, 9, "outside 2..20"), ({"batch_size": 1}, 9, None),
        ({"batch_size": 0}, 9, "at least 1"),
    ],
)  # fmt: skip
def test_the_least_of_a_bound(protocol, count, words, monkeypatch):
    monkeypatch.setattr(bounding, "check_data", lambda *given: None)
    store = SimpleNamespace(count=lambda split: count, path="store", verify=lambda: None)
    if words is None:
        bounding.check(SimpleNamespace(**BOUNDS), store, Protocol(**protocol))
    else:
        with pytest.raises(UserError, match=words):
            bounding.check(SimpleNamespace(**BOUNDS), store, Protocol(**protocol))
    usual = Protocol()
    assert (usual.num, usual.calls, usual.clip, usual.seed, usual.batch_size) == (0, 0, True, 0, 64)


@pytest.mark.parametrize(
    ("shape", "widths"),
    [
        ((1, 7, 7), [32, 64]), ((1, 8, 8), [32, 64, 64]), ((3, 16, 16), [32, 32, 64, 64]),
        ((3, 32, 32), [16, 16, 32, 64, 64]), ((3, 256, 256), [8, 8, 8, 8, 16, 32, 64, 64]), ((3, 8, 99), [32, 64, 64]),
    ],
)  # fmt: skip
def test_the_network_halves_and_doubles(shape, widths):
    net = ConvNet(shape, 5)
    convolutions = [layer for layer in net.body if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == widths
    assert [layer.stride[0] for layer in convolutions] == [1] + [2] * (len(widths) - 2) + [1]
    assert {layer.kernel_size[0] for layer in convolutions} == {3} and {c.padding[0] for c in convolutions} == {1}
    assert [layer.bias is None for layer in convolutions] == [False] + [True] * (len(widths) - 1)
    norms = [layer for layer in net.body if isinstance(layer, GroupNorm)]
    assert [norm.num_groups for norm in norms] == [4] * (len(widths) - 1) and {norm.eps for norm in norms} == {1e-5}


def lesson(steps):
    images = noise(0, 100, 1, 8, 8)
    return Lesson(images, torch.arange(100) % 3, steps, 0)


def test_the_rate_warms_up_over_a_tenth_and_falls_as_a_cosine(monkeypatch, counts):
    net, of = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), lesson(40)
    rates, step = [], torch.optim.Adam.step

    def stepping(self):
        rates.append(self.param_groups[0]["lr"])
        assert self.defaults["betas"] == (0.9, 0.99)
        return step(self)

    monkeypatch.setattr(torch.optim.Adam, "step", stepping)
    learning.learn(net, of)
    cosine = [0.5 * (1 + math.cos(math.pi * k / 40)) for k in range(40)]
    assert rates == pytest.approx([6e-3 * min((k + 1) / 4, 1) * cosine[k] for k in range(40)], rel=1e-12)
    assert [of_job[1:] for of_job in counts] == [((k + 1) * 64, 40 * 64) for k in range(40)]
    assert [len(each) for each in of.order] == [64] * 40
    for epoch in torch.cat(of.order)[:2500].view(25, 100):
        assert sorted(epoch.tolist()) == list(range(100))


def test_two_classes_are_the_least_that_a_classifier_tells_apart(monkeypatch):
    monkeypatch.setattr(classifier, "cached_classifier", lambda store: "there")
    store = lambda classes, count: SimpleNamespace(classes=classes, count=lambda split: count)
    found = [classifier.networks_for(store(*given)) for given in (("ab", 1), ("a", 1), ("ab", 0))]
    assert [len(networks) for networks in found] == [1, 0, 0]
