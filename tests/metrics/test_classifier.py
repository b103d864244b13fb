"""The classifier that judges digits, and whether it may be trusted."""

import json
import os
import re
import shutil
import signal
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from math import comb

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from conftest import copied, cut
from refusals import mistake, refusing
from unstir.data import Store
from unstir.data.store import content_hash as hash_of_bytes
from unstir.metrics import classifier as module
from unstir.metrics.classifier import FEATURES, FILE, Classifier, ConvNet, classifier_for, train_classifier
from unstir.metrics.evaluation import describe_classifier
from unstir.metrics.features import SKILL, Trust
from unstir.progress import shown_by
from unstir.randomness import Key, bits
from unstir.runs.checkpoint import content_hash
from unstir.significance import TAIL, binomial_tail


@pytest.fixture(scope="module")
def store(classified, tmp_path_factory):
    """The digits in a folder of this file's own, with their classifier, which was trained in full."""
    folder = tmp_path_factory.mktemp("classified") / "digits"
    return Store.open(copied(classified, folder, classifier=True))


@pytest.fixture(scope="module")
def classifier(store):
    return classifier_for(store)


@pytest.fixture
def brief(monkeypatch):
    """Training of two steps."""
    monkeypatch.setattr(module, "budget", lambda store: 128)


@pytest.fixture
def copy(store, classifier, tmp_path):
    """A copy of the store with its cached classifier, to be spoilt."""
    shutil.copytree(store.path, tmp_path / "copy")
    return Store.open(tmp_path / "copy")


def never(*arguments, **options):
    raise AssertionError("trained anew")


def test_held_out_digits_are_told_apart(store, classifier):
    assert classifier.trust.accuracy >= 0.97
    right = classifier.classes_of(store.images("held_out")) == store.labels("held_out")
    assert right.double().mean().item() == classifier.trust.accuracy


def test_features_are_the_same_in_any_batches(store, classifier):
    images = store.images("held_out")
    features = classifier.features(images)
    assert features.dtype == torch.float64 and features.shape == (len(images), FEATURES)
    torch.testing.assert_close(classifier.features(images, batch_size=7), features, rtol=1e-4, atol=1e-5)
    logits = features.float() @ classifier.net.head.weight.T + classifier.net.head.bias
    torch.testing.assert_close(logits.double(), classifier.outputs(images).logits, rtol=1e-4, atol=1e-4)
    assert classifier.features(images[:0]).shape == (0, FEATURES)


def test_the_second_call_reads_what_the_first_wrote(store, classifier, monkeypatch):
    written = (store.path / FILE).read_bytes()
    monkeypatch.setattr(module, "train_classifier", never)
    again = classifier_for(store)
    assert again.shape == (1, 8, 8)
    assert (again.hash, again.trust) == (classifier.hash, classifier.trust)
    images = store.images("held_out")
    assert torch.equal(again.features(images), classifier.features(images))
    assert (store.path / FILE).read_bytes() == written
    assert not any(parameter.requires_grad for parameter in again.net.parameters())
    assert [path.name for path in store.path.glob(".*")] == []


def rewritten(path, change=None, tensors=None):
    """Write the cached file again with other metadata or tensors, and a hash that fits them."""
    with safe_open(path, framework="pt") as file:
        meta = json.loads(file.metadata()["unstir_classifier"])
        if tensors is None:
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    text = change if isinstance(change, str) else json.dumps({**meta, **(change or {})}, sort_keys=True)
    save_file(tensors, path, {"unstir_classifier": text, "sha256": content_hash(tensors, text)})


def flipped(path):
    """Turn one bit of the last weight over."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


SPOILT = {
    "absent": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "one bit": flipped,
    "no safetensors": lambda path: path.write_bytes(b"not a tensor" * 1000),
    "not ours": lambda path: save_file({"a": torch.zeros(3)}, path),
    "another version": lambda path: rewritten(path, {"version": module.VERSION + 1}),
    "another store": lambda path: rewritten(path, {"data": "0" * 64}),
    "no object": lambda path: rewritten(path, "[1, 2]"),
    "no JSON": lambda path: rewritten(path, "{"),
    "other tensors": lambda path: rewritten(path, tensors={"a": torch.zeros(3)}),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_cache_that_is_not_what_was_written_is_trained_anew(copy, classifier, how, brief, monkeypatch):
    SPOILT[how](copy.path / FILE)
    made = classifier_for(copy)
    assert made.hash == train_classifier(copy).hash != classifier.hash  # two steps give other weights
    monkeypatch.setattr(module, "train_classifier", never)
    assert classifier_for(copy).hash == made.hash


def test_other_data_in_the_folder_is_learned_anew_and_unknown_bytes_are_refused(copy, brief, classifier):
    file = copy.path / "train.images.npy"
    content = bytearray(file.read_bytes())
    content[128:] = bytes(255 - byte for byte in content[128:])
    file.write_bytes(content)
    with refusing("", copy.path):
        classifier_for(copy)
    digest = hash_of_bytes(copy.path, copy.manifest)
    other = Store(copy.path, {**copy.manifest, "content_hash": digest})
    assert classifier_for(other).hash == classifier_for(other).hash != classifier.hash


def test_a_store_that_cannot_be_written_to_is_judged_all_the_same(copy, brief):
    (copy.path / FILE).unlink()
    (copy.path / FILE).mkdir()  # a place that no file can take, even as root
    made = classifier_for(copy)
    assert isinstance(made, Classifier) and (copy.path / FILE).is_dir()
    assert list(copy.path.glob(".*")) == []


def test_the_weights_are_a_function_of_the_seed_alone(store, brief):
    torch.rand(3)  # or the state might be the very one that an earlier training left behind
    state = torch.random.get_rng_state()
    first = train_classifier(store)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)  # what torch's own generator has done before is of no account
    assert train_classifier(store).hash == first.hash
    assert train_classifier(store, seed=1).hash != first.hash


@pytest.mark.parametrize("side", [8, 9, 16, 28])
def test_images_are_shifted_by_an_eighth_at_most_and_never_mirrored(side):
    image = bits(Key(0, "test", 0, torch.zeros(1, dtype=torch.int64)), side * side).view(torch.uint8)
    image = image[:, : side * side].reshape(1, 1, side, side)
    reach = side // 8
    padded = torch.nn.functional.pad(image.double(), (reach,) * 4, mode="reflect").byte()
    shifts = [padded[0, 0, y:, x:][:side, :side] for y in range(2 * reach + 1) for x in range(2 * reach + 1)]
    plain = [shift.flatten().tolist() for shift in shifts]
    moved = [row.tolist() for row in module.moved(image.expand(400, -1, -1, -1), 0, 0).flatten(1)]
    assert {plain.index(row) for row in moved} == set(range(len(plain)))  # every shift occurs, and nothing else


@pytest.mark.parametrize(
    ("shape", "last"),
    [((1, 8, 8), 4), ((3, 12, 12), 6), ((3, 15, 15), 4), ((1, 28, 28), 7), ((3, 32, 32), 4), ((3, 64, 64), 4)],
)
def test_the_network_fits_any_size(shape, last):
    net = ConvNet(shape, 5)
    x = torch.zeros(2, *shape)
    assert net.body(x).shape == (2, FEATURES, last, last) and net(x).shape == (2, 5)
    assert ConvNet((3, 4, 20), 3)(torch.zeros(2, 3, 4, 20)).shape == (2, 3)


def test_images_that_do_not_fit_are_refused(store, classifier):
    images = store.images("held_out")
    for wrong in (images.float(), images.expand(-1, 3, -1, -1), images[0]):
        assert mistake(classifier.features, wrong).key == "images"


def test_nothing_held_out_leaves_the_accuracy_unknown(store, brief, tmp_path):
    assert train_classifier(cut(store, tmp_path / "all", held_out=0)).trust.accuracy is None


def test_killed_it_begins_again_and_is_trained_to_its_end_once(copy, brief, counts):
    (copy.path / FILE).unlink()
    child = os.fork()
    if child == 0:
        kill = nullcontext(lambda done, total: os.kill(os.getpid(), signal.SIGKILL))
        try:
            with shown_by(lambda job, unit: kill):
                classifier_for(copy)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and not (copy.path / FILE).exists()
    classifier_for(copy)
    assert [done for job, done, _ in counts if "classifier" in job] == [64, 128]


def sized(store, num, shape):
    counts = {**store.manifest["counts"], "train": num}
    return replace(store, manifest={**store.manifest, "counts": counts, "shape": list(shape)})


def test_the_budget_grows_with_the_set_and_falls_with_the_pixels(store):
    budgets = {num: module.budget(sized(store, num, (1, 8, 8))) for num in (1, 100, 274, 1000, 1498, 50_000)}
    assert budgets == {1: 16_000, 100: 16_000, 274: 16_000, 1000: 44_992, 1498: 64_000, 50_000: 64_000}
    large = {side: module.budget(sized(store, 50_000, (3, side, side))) for side in (64, 128, 256, 4096)}
    assert large == {64: 64_000, 128: 16_000, 256: 3968, 4096: 64}


def test_the_hash_names_the_budget_and_a_classifier_of_another_is_not_taken(copy, classifier, brief):
    assert replace(classifier, seen=classifier.seen + 64).hash != classifier.hash
    other = classifier_for(copy)
    assert other.hash != classifier.hash and other.seen == 128


def exact(right, num, chance):
    p = Fraction(chance)
    return float(sum(comb(num, k) * p**k * (1 - p) ** (num - k) for k in range(right, num + 1)))


@pytest.mark.parametrize(
    ("right", "num", "chance"), [(0, 5, 0.1), (26, 299, 0.1), (50, 299, 0.1), (9, 10, 0.5), (7, 7, 0.25)]
)
def test_the_tail_is_that_of_the_binomial(right, num, chance):
    assert binomial_tail(right, num, chance) == pytest.approx(exact(right, num, chance), rel=1e-9)
    assert binomial_tail(right, num, 1.0) == 1.0 and binomial_tail(max(right, 1), num, 0.0) == 0.0


def test_guessing_is_trusted_no_more_often_than_promised():
    draw = torch.Generator().manual_seed(0)
    for num, chance in ((299, 0.1), (60, 0.3), (20, 0.5)):
        right = torch.binomial(torch.full((20_000,), float(num)), torch.full((20_000,), chance), generator=draw)
        counts = zip(*right.unique(return_counts=True), strict=True)
        above = sum(int(n) for k, n in counts if Trust(int(k), num, round(num * chance)).above_chance)
        assert above / 20_000 < 1.5 * TAIL


@pytest.mark.parametrize(
    ("right", "num", "most", "above", "given"),
    [
        (26, 299, 31, False, False),  # shuffled labels
        (290, 299, 31, True, True),
        (1150, 10_000, 1000, True, False),  # decidedly above chance, and of no use
        (3700, 10_000, 1000, True, True),  # of the 9,000 that chance gets wrong, 30%
        (3699, 10_000, 1000, True, False),
        (4, 4, 2, False, False),  # too few to tell
        (960, 1000, 960, False, False),  # always the most frequent class
        (985, 1000, 960, True, True),
        (0, 0, 0, False, False),  # nothing held out
    ],
)
def test_trust_takes_a_decided_and_a_large_skill(right, num, most, above, given):
    found = Trust(right, num, most)
    assert (found.above_chance, found.given) == (above, given)
    assert found.entry()["used"] is given and found.entry()["num"] == num
    assert SKILL == 0.3


def test_what_is_said_has_the_accuracy_chance_and_what_is_used_instead():
    good, lost, useless = Trust(290, 299, 31), Trust(26, 299, 31), Trust(1150, 10_000, 1000)
    for trust, networks, figures, instead in (
        (good, {"classifier": "c"}, ["97.0", "299", "10.4"], None),
        (lost, {}, ["8.7", "299", "10.4"], "sliced Wasserstein"),
        (lost, {"inception": "i"}, ["8.7", "299", "10.4"], "inception"),
        (useless, {}, ["11.5", "10000", "10.0"], "sliced Wasserstein"),
        (Trust(0, 0, 0), {}, [], "sliced Wasserstein"),
    ):
        text = describe_classifier({"classifier": trust.entry(), "networks": networks})
        assert re.findall(r"\d+\.\d|\d+", text.replace(",", "")) == figures, text
        assert ("instead" in text) == (instead is not None) and (instead or "") in text
    assert describe_classifier({"classifier": None, "networks": {}}) is describe_classifier({"networks": {}}) is None
