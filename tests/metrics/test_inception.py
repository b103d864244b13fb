"""Inception through torch-fidelity: its own figures come out of our features, and no file is read that is not known.

The published weights are not here. Random ones in their form stand in, for what is tested is everything around them.
"""

import hashlib
import pickle
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from refusals import mistake
from unstir.errors import UserError
from unstir.metrics import distances
from unstir.metrics import inception as module
from unstir.metrics.distances import frechet_of, moments
from unstir.metrics.feature_figures import NAMES
from unstir.metrics.inception import inception
from unstir.randomness import Key, bits, normal

pytest.importorskip("torch_fidelity", reason="pip install '.[fid]'")

pytestmark = pytest.mark.slow
NAME = "weights-inception-2015-12-05-6726825d.pth"


def random_weights():
    """Tensors as the published file holds them: no counts of batches, convolutions that keep the variance."""
    import io

    from torch_fidelity import FeatureExtractorInceptionV3

    class Bare(FeatureExtractorInceptionV3):
        def load_state_dict(self, *arguments, **options):
            pass

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    weights = {}
    for slot, (name, tensor) in enumerate(Bare("bare", ["2048"], empty).state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue
        if tensor.ndim > 1:
            fan_in = tensor[0].numel()
            draw = normal(Key(0, "inception", 0, torch.tensor([slot])), tuple(tensor.shape))[0]
            tensor = draw * (2 / fan_in) ** 0.5
        weights[name] = tensor.contiguous()
    return weights


@pytest.fixture(scope="module")
def weights():
    return random_weights()


@pytest.fixture(scope="module")
def pth(weights, tmp_path_factory):
    """The weights in the published file's form and under its name, in a folder laid out like torch's cache."""
    path = tmp_path_factory.mktemp("torch") / "hub/checkpoints" / NAME
    path.parent.mkdir(parents=True)
    torch.save(weights, path, _use_new_zipfile_serialization=False)  # as torch did when it was published
    return path


@pytest.fixture(scope="module")
def sha256(pth):
    return hashlib.sha256(pth.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def safe(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("safe") / "inception.safetensors"
    save_file(weights, path)
    return path


@pytest.fixture(scope="module")
def net(safe):
    return inception(safe)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A machine with an empty cache and no network; gives the cache's folder and the addresses asked for."""
    asked = []

    def unreachable(request, *arguments, **options):
        asked.append(request.full_url)
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    return tmp_path / "torch/hub/checkpoints", asked


def pictures(seed, num, channels=3, side=16):
    """Noise of a brightness and contrast of its own for each picture, so that they are told apart."""
    slots = torch.arange(num)
    noise = bits(Key(seed, "pictures", 0, slots), channels * side * side // 8 + 1).view(torch.uint8)
    noise = noise[:, : channels * side * side].reshape(num, channels, side, side).float()
    scale = torch.rand(num, 1, 1, 1, generator=torch.Generator().manual_seed(seed))
    return (noise * scale + 40 * seed).clamp(0, 255).byte()


class Pictures(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def test_every_figure_is_the_one_that_torch_fidelity_computes_from_images(net, pth):
    from torch_fidelity import calculate_metrics

    fake, real = pictures(1, 6), pictures(2, 7)
    how = {"feature_extractor": "inception-v3-compat", "feature_extractor_weights_path": str(pth), "batch_size": 5}
    how |= {"cuda": False, "save_cpu_ram": True, "cache": False, "verbose": False}  # save_cpu_ram: no processes
    how |= {"fid": True, "kid": True, "isc": True, "prc": True, "isc_splits": 2, "kid_subsets": 4, "kid_subset_size": 5}
    expected = calculate_metrics(input1=Pictures(fake), input2=Pictures(real), **how)
    looked, others = net.outputs(fake, batch_size=5), net.outputs(real, batch_size=5)
    assert looked.features.shape == (6, 2048) and looked.logits.shape == (6, 1008)
    assert looked.features.dtype == looked.logits.dtype == torch.float64
    a, b = looked.features, others.features
    reference = moments(b)
    # torch-fidelity's means are float32, and its roots of zero eigenvalues are of rounding errors
    assert frechet_of(a, reference) == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)
    mean, deviation = distances.kid(a, b, subsets=4, subset_size=5)
    assert mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert deviation == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-3)
    score = distances.inception_score(looked.logits, splits=2)
    assert score == pytest.approx(expected["inception_score_mean"], rel=1e-6) and score > 1 + 1e-6
    found = distances.near(b, a, distances.radii(b))[:2]
    assert found == pytest.approx((expected["precision"], expected["recall"]), abs=1e-6)


def test_the_logits_are_those_without_the_bias(net, weights):
    looked = net.outputs(pictures(3, 2))
    torch.testing.assert_close(looked.logits, looked.features @ weights["fc.weight"].T.double(), rtol=1e-4, atol=1e-4)
    assert looked.features.std() > 1e-3  # weights that let nothing through would agree with anything


def test_its_figures_have_the_published_names(net):
    assert [net.titles[key] for key in NAMES] == ["FID", "KID", "precision", "recall", "density", "coverage"]
    assert net.name == "inception-v3-compat" and net.trust is None


def test_grey_images_are_those_that_pillow_makes_rgb_of(net):
    import numpy as np
    from PIL import Image

    grey = pictures(1, 2, channels=1)
    turned = [np.asarray(Image.fromarray(image[0].numpy()).convert("RGB")) for image in grey]
    colour = torch.from_numpy(np.stack(turned)).permute(0, 3, 1, 2)
    torch.testing.assert_close(net.features(grey), net.features(colour), rtol=0, atol=0)


def test_the_published_file_is_read_and_named_by_its_hash(pth, sha256, net, monkeypatch, logged):
    monkeypatch.setattr(module, "SHA256", sha256)
    state = torch.get_rng_state()
    found = inception(pth)
    assert logged == [] and found.hash == sha256 and found.name == "inception-v3-compat"
    assert torch.equal(torch.get_rng_state(), state)  # the network's first weights are drawn, and thrown away
    for name, tensor in net.net.state_dict().items():
        assert torch.equal(tensor, found.net.state_dict()[name])
    assert not found.net.training and not any(p.requires_grad for p in found.net.parameters())


def test_the_file_in_torchs_cache_is_found_without_a_network(pth, sha256, monkeypatch, offline):
    monkeypatch.setenv("TORCH_HOME", str(pth.parents[2]))
    monkeypatch.setattr(module, "SHA256", sha256)
    assert inception(None).hash == sha256
    assert offline[1] == []


def test_it_is_downloaded_once(pth, sha256, monkeypatch, offline, logged):
    monkeypatch.undo()
    cache = offline[0]
    monkeypatch.setenv("TORCH_HOME", str(cache.parents[1]))
    monkeypatch.setattr(module, "URL", f"{pth.parent.as_uri()}/{NAME}")
    monkeypatch.setattr(module, "SHA256", sha256)
    assert inception(None).hash == sha256
    assert [str(cache / NAME) in line for line in logged] == [True]
    assert [path.name for path in cache.iterdir()] == [NAME]
    assert inception(None).hash == sha256
    (cache / NAME).unlink()
    monkeypatch.setattr(module, "SHA256", "0" * 64)
    with pytest.raises(UserError):
        inception(None)
    assert list(cache.iterdir()) == []


def test_offline_one_sentence_says_which_file_goes_where(offline):
    cache, asked = offline
    refused = mistake(inception, None)
    said = str(refused)
    assert asked == [module.URL]
    assert module.URL in said and f" {cache / NAME} " in said and module.SHA256 in said
    assert "\n" not in said and ". " not in said


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_no_other_pickle_is_opened(pth, tmp_path):
    bomb, target = Bomb(), tmp_path / "exploded"
    bomb.path = str(target)
    for name, data in {
        "bomb.pth": pickle.dumps(bomb),
        "other.pth": pth.read_bytes()[:-1] + b"!",
        "cut.pth": pth.read_bytes()[:1_000_000],
        "garbage.pth": bytes(range(256)) * 10,
        "empty.pth": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
        refused = mistake(inception, tmp_path / name)
        assert refused.given == tmp_path / name and module.URL in refused.remedy
    assert not target.exists()


def test_weights_that_do_not_fit_are_refused(weights, safe, tmp_path):
    few = {name: tensor for name, tensor in weights.items() if not name.startswith("Mixed_7c")}
    other = {**weights, "fc.bias": torch.zeros(1000)}
    for name, tensors in {"few.safetensors": few, "other.safetensors": other}.items():
        save_file(tensors, tmp_path / name)
    (tmp_path / "cut.safetensors").write_bytes(safe.read_bytes()[:-7])
    for name in ("few", "other", "cut"):
        assert mistake(inception, tmp_path / f"{name}.safetensors").given == tmp_path / f"{name}.safetensors"
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(OSError, match=str(path)):
            inception(path)


def test_a_device_that_is_not_there_is_refused_before_the_file_is_read(tmp_path):
    assert "device='tpu'" in str(mistake(inception, tmp_path / "none.pth", device="tpu"))
