"""Any network of torch-fidelity's interface as a judge, against torch-fidelity's own figures."""

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

pytest.importorskip("torch_fidelity", reason="what is compared with: pip install '.[dev]'")

from torch_fidelity import calculate_metrics, register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from conftest import copied
from refusals import refusing
from unstir.data import Store
from unstir.errors import UserError
from unstir.metrics.inception import Extractor
from unstir.metrics.measure import measure

pytestmark = pytest.mark.slow


class Small(FeatureExtractorBase):
    """Eight features of a fixed convolution."""

    def __init__(self, name="small-test", features_list=("eight",), **kwargs):
        super().__init__(name, features_list)
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(8, 3, 3, 3, generator=generator) / 5)

    @staticmethod
    def get_provided_features_list():
        return ("eight",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "eight"

    @staticmethod
    def can_be_compiled():
        return False

    def forward(self, images):
        maps = nn.functional.conv2d(images.float() / 255, self.weight)
        return (maps.relu().mean((2, 3)),)


class Images(Dataset):
    def __init__(self, images):
        self.images = images.expand(-1, 3, -1, -1)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


@pytest.fixture
def store(digits, tmp_path):
    return Store.open(copied(digits, tmp_path / "digits"))


def test_figures_are_those_of_torch_fidelity(store):
    register_feature_extractor("small-test", Small)
    made = store.images("held_out").flip(3)
    found = measure(store, [made], [Extractor("small-test", Small())])
    theirs = calculate_metrics(
        input1=Images(made), input2=Images(store.images("train")), fid=True, feature_extractor="small-test",
        feature_layer_fid="eight", cuda=False, verbose=False, save_cpu_ram=True, cache=False,
    )  # fmt: skip
    figure = found["small-test/fd"]
    assert figure.name == "FD-small-test"
    assert figure.value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert figure.network_hash == Extractor("small-test", Small()).hash
    assert figure.floor < figure.value < figure.ceiling


def test_what_is_no_extractor_is_refused(store):
    images = store.images("held_out")[:9]
    for name in ("../up", "", "-"):
        with refusing("name", name):
            Extractor(name, Small())
    with pytest.raises(UserError, match="images="):
        Extractor("small", Small()).features(images.float())
    for net, shape in ((nn.Identity(), [9, 3, 8, 8]), (Answer(lambda images: images[:1].flatten(1)), [1, 192])):
        with refusing("net", shape):
            Extractor("wrong", net).features(images)


class Answer(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images):
        return self.answer(images)


def test_an_extractor_may_answer_alone_and_is_named_by_its_hash_in_evaluation_mode(store):
    images = store.images("held_out")[:9]
    net = Answer(lambda images: images.float().mean((2, 3)))
    made = Extractor("means-2", net, hash="mine")
    assert made.hash == "mine" and not net.training
    torch.testing.assert_close(made.features(images), images.double().mean((2, 3)).expand(-1, 3))
    hashes = {Extractor(name, Small()).hash for name in ("a", "b")} | {Extractor("a", nn.Identity()).hash}
    assert len(hashes) == 3
