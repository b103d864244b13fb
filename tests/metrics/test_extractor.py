"""Any network of torch-fidelity's interface as a judge: how it is named, what it may answer, and what is refused."""

import pytest
import torch
from torch import nn

from refusals import refusing
from unstir.data import Store
from unstir.metrics.features import Extractor
from unstir.metrics.measure import measure


class Answer(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.answer(images)


def means(images):
    return (images.float().unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5)).flatten(1),)


@pytest.fixture(scope="module")
def images(digits):
    return Store.open(digits).images("held_out")[:40]


def test_what_is_no_extractor_is_refused(images):
    for name in ("../up", "", "-"):
        with refusing("name", name):
            Extractor(name, Answer(means))
    for answer, shape in ((lambda images: images, [40, 1, 8, 8]), (lambda images: images[:1].flatten(1), [1, 64])):
        with refusing("net", shape):
            Extractor("wrong", Answer(answer)).features(images)


def test_an_extractor_measures_under_its_name_and_is_known_by_its_hash(images, digits, monkeypatch):
    monkeypatch.setattr("unstir.metrics.reference.keep", lambda *given: None)
    network = Extractor("means-2", Answer(means))
    found = measure(Store.open(digits), [images], [network])["means-2/fd"]
    assert found.name == "FD-means-2" and not network.net.training
    assert found.floor < 3 * found.value < found.ceiling
    alone = Extractor("means-2", Answer(lambda images: means(images)[0]), hash="mine")
    assert alone.hash == "mine" and torch.equal(alone.features(images), network.features(images))
    torch.testing.assert_close(network.features(images), means(images)[0].double())
    assert len({network.hash, Extractor("b", Answer(means)).hash, Extractor("b", nn.Identity()).hash}) == 3
