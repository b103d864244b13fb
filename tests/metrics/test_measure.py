"""Every figure of sets of images, with floor and ceiling, and by networks of one's own."""

import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from conftest import copied, cut
from refusals import mistake, refusing
from unstir.data import Store
from unstir.metrics import distances, feature_figures, wasserstein
from unstir.metrics import features as referring
from unstir.metrics.classifier import classifier_for
from unstir.metrics.distances import frechet_of, moments
from unstir.metrics.evaluation import table
from unstir.metrics.feature_figures import FEWEST
from unstir.metrics.features import NEAR, NOISE, Extractor, reference
from unstir.metrics.figures import halved, too_rare
from unstir.metrics.measure import measure
from unstir.randomness import Key, normal
from unstir.runs.checkpoint import content_hash
from unstir.significance import with_error

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def store(classified, tmp_path_factory):
    """The digits in a folder of this file's own, for the classifier and the statistics are kept in it."""
    folder = tmp_path_factory.mktemp("judged") / "digits"
    return Store.open(copied(classified, folder, classifier=True))


@pytest.fixture(scope="module")
def network(store):
    return classifier_for(store)


def noisy(images, deviation):
    """Images with normal noise of the given deviation in grey levels."""
    noise = normal(Key(0, "test", 0, torch.arange(len(images))), tuple(images.shape[1:]))
    return (images.float() + deviation * noise).round().clamp(0, 255).byte()


def blurred(images, times):
    """Images whose every pixel was ``times`` times the mean of 9."""
    for _ in range(times):
        images = torch.nn.functional.avg_pool2d(images.float(), 3, 1, 1, count_include_pad=False).round().byte()
    return images


def figure(store, network, images, key="classifier/fd", **options):
    return measure(store, [images], [network], **options)[key]


def test_every_figure_moves_the_further_the_more_is_spoilt(store, network):
    images, labels = store.images("held_out"), store.labels("held_out")
    features = network.features(store.images("train"))
    whole, some = moments(features), features[: len(images)]
    radii = distances.radii(some)

    def figures(made):
        seen = network.features(made)
        values = distances.near(some, seen, radii)
        return [frechet_of(seen, whole), distances.kid(seen, features, 20, 100)[0], *values]

    real = figures(images)
    assert real[0] == pytest.approx(figure(store, network, images).value, rel=1e-6)
    steps = {
        "noise": [noisy(images, deviation) for deviation in (16, 32, 64)],
        "blur": [blurred(images, times) for times in (1, 2, 3)],
        "dropped": [images[labels < kept] for kept in (9, 7, 5)],
        "repeated": [images[torch.arange(len(images)) % kept] for kept in (150, 75, 30)],
    }
    moves = {"noise": (2, 4), "blur": (2, 4), "dropped": (3, 5), "repeated": (5,)}
    for kind, sets in steps.items():
        for place, column in enumerate(zip(real, *map(figures, sets), strict=True)):
            if place < 2:  # distances
                assert all(a < b for a, b in itertools.pairwise(column)) and column[-1] > 4 * abs(column[0]), kind
            elif place in moves[kind]:  # what is spoilt is less true to life, what is missing is not recalled
                assert all(a > b for a, b in itertools.pairwise(column)) and column[-1] < 0.6 * column[0], kind
            elif kind == "dropped":  # of half the classes each image is as true to life as before
                assert min(column) > column[0] - 0.1
    others = [images.flip(3), (images.float() * 0.7).round().byte(), images[:1].expand(len(images), -1, -1, -1)]
    assert all(2 * real[0] < figures(made)[0] for made in others)


def test_what_a_figure_comes_with(store, network):
    images, labels = store.images("held_out"), store.labels("held_out")
    found = measure(store, [images], [network], labels=[labels])
    distance = found["classifier/fd"]
    assert (distance.num_floor, distance.num_reference) == (len(images), store.count("train"))
    assert distance.value == pytest.approx(distance.floor, rel=1e-5)  # these are the very images of the floor
    assert distance.name == "FD-classifier"
    assert 0 < distance.error < distance.value < distance.ceiling and distance.deviation is None
    assert distance.infinite[0] < distance.value  # the bias is upwards
    assert distance.infinite[0] == pytest.approx(distance.floor_infinite[0], abs=2 * distance.infinite[1])
    seen, real = network.outputs(images).logits.argmax(1), store.labels("train").bincount() / store.count("train")
    imbalance = lambda part: {"a": (seen[part].bincount(minlength=10) / len(part) - real).abs().sum().item() / 2}
    in_shares = halved(imbalance, len(images), labels)["a"]
    assert found["classifier/classes"].bootstrap == pytest.approx(in_shares, rel=1e-3)
    accuracy = found["classifier/accuracy"]
    assert accuracy.value == accuracy.floor == network.trust.accuracy and accuracy.ceiling == 0.1
    assert found["classifier/classes"].value == found["classifier/classes"].floor < 0.05
    for key in ("fd", "kid", "precision", "recall", "density", "coverage"):
        assert found[f"classifier/{key}"].num_floor == len(images) and found[f"classifier/{key}"].floor_error > 0
    for key in ("precision", "recall", "coverage"):
        assert found[f"classifier/{key}"].ceiling < 0.4 < 0.8 < found[f"classifier/{key}"].value <= 1
    text = table(found, len(images))
    assert with_error(distance.value, distance.error) in text.splitlines()[1] and "higher" in text


def test_two_seeds_have_a_deviation_and_their_mean(store, network):
    half = store.images("held_out")[:298].split(149)
    both = measure(store, half, [network])["classifier/fd"]
    real = reference(store, "train", network).moments
    alone = [frechet_of(network.features(images), real) for images in half]
    assert both.by_seed == pytest.approx(alone, rel=1e-9) and both.value == pytest.approx(sum(alone) / 2)
    assert both.deviation == pytest.approx(abs(alone[0] - alone[1]) / 2**0.5)
    assert both.error == pytest.approx(max(both.deviation, both.bootstrap) / 2**0.5)


def test_one_class_alone_is_seen_in_the_shares_and_the_accuracy(store, network):
    images, labels = store.images("train")[:600], store.labels("train")[:600]
    zeros = measure(store, [images[labels == 0]], [network], labels=[torch.zeros_like(labels[labels == 0])])
    assert zeros["classifier/classes"].value > 0.85 and zeros["classifier/accuracy"].value > 0.9
    assert zeros["classifier/recall"].value < 0.3 and zeros["classifier/coverage"].value < 0.3
    shifted = measure(store, [images[:200]], [network], labels=[labels[:200].roll(1)])
    assert shifted["classifier/accuracy"].value < 0.3


def test_a_missing_class_is_named_and_none_of_real_images(store, network):
    images, labels = store.images("held_out"), store.labels("held_out")
    of_classes = lambda *given, **how: measure(store, *given, num_reference=100, **how)["classifier/classes"]
    rare = lambda *given, **how: [of.name for of, _ in too_rare(of_classes(*given, **how))]
    some, asked = images[labels != 3], labels[labels != 3]
    assert rare([some], [network]) == ["3"] and rare([images], [network]) == []
    of = {of.name: of for of in of_classes([some], [network], labels=[asked]).by_class}
    assert of["3"].expected == 0 and of["3"].p == 1  # nobody asked for it
    assert of_classes([images[labels == 3]], [network], labels=[labels[labels == 3]]).by_class == ()


def test_the_other_split_gives_the_floor_or_none_to_compare_with(store, network, tmp_path):
    images = store.images("held_out")
    found = figure(store, network, images, split="held_out")
    assert found.value < 1e-4 and found.num_reference == len(images) and 0.1 < found.floor < 5
    alone = cut(store, tmp_path / "alone", held_out=0)
    without = figure(alone, network, images)
    assert without.num_floor == 0 and 0 < without.floor < without.ceiling / 20  # of the reference, against the rest
    assert "0 held_out" in str(mistake(measure, alone, [images], [network], split="held_out"))


def test_the_floor_is_drawn_from_the_features_that_are_kept(store, network, monkeypatch):
    """Of a large split features are kept of some images alone; a floor of others would have none to look at."""
    for module in (referring, feature_figures):
        monkeypatch.setattr(module, "KEPT", 100)
    found = measure(store, [store.images("held_out")[:40]], [network], num_reference=300)
    assert found["classifier/fd"].num_floor == 40 and found["classifier/classes"].num_floor == 40


def test_the_fewest_images_are_judged_where_no_floor_can_be_drawn(store, network, tmp_path):
    few = cut(store, tmp_path / "few", held_out=0)
    sets = [store.images("held_out")[:FEWEST], store.images("held_out")[-FEWEST:]]
    found = measure(few, sets, [network], num_reference=2 * FEWEST)  # which `plan.check` asks for at the least
    assert found["classifier/coverage"].num_floor == 0 and found["classifier/coverage"].error >= 0
    assert found["classifier/fd"].infinite is None  # of 64 features, that takes 130 images


def test_the_reference_is_computed_once_and_kept_with_the_store(store, network, counts):
    images = store.images("held_out")
    first = measure(store, [images], [network])
    counts.clear()
    assert measure(store, [images], [network]) == first
    judged = sum(total for job, done, total in counts if job == "computing features" and done == total)
    assert judged == 2 * len(images)  # the images, and as many held-out ones for the floor of their classes


def test_statistics_are_those_of_the_images_and_of_no_other_network_or_number(store, network):
    found = reference(store, "train", network)
    own = network.features(store.images("train"))
    assert found.moments.n == store.count("train") and frechet_of(own, found.moments) < 1e-8
    assert sorted(found.features.sum(1).tolist()) == pytest.approx(sorted(own.sum(1).tolist()), rel=1e-5)
    some = reference(store, "train", network, 100)
    assert some.moments.n == len(some.features) == 100 and frechet_of(own, some.moments) > 0.1
    other = replace(network, net=type(network.net)(store.shape, 10))
    assert other.hash != network.hash and frechet_of(own, reference(store, "train", other).moments) > 1e-3
    files = {path.name for path in (store.path / "statistics").iterdir()}
    assert f"classifier-{network.hash[:12]}-train-100.safetensors" in files


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-50], lambda data: data[:2000] + b"x" + data[2001:], lambda data: b""]
)
def test_damaged_statistics_are_computed_anew(store, network, spoil):
    whole = reference(store, NOISE, network, 64)
    path = store.path / "statistics" / f"classifier-{network.hash[:12]}-noise-64.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    again = reference(store, NOISE, network, 64)
    assert torch.equal(again.features, whole.features) and torch.equal(again.moments.mean, whole.moments.mean)


@pytest.mark.parametrize("name", ["features", "mean", "covariance"])
def test_forged_statistics_of_another_shape_are_computed_anew(store, network, name):
    made = reference(store, "train", network)
    (path,) = (store.path / "statistics").glob(
        f"classifier-{network.hash[:12]}-train-{store.count('train')}.safetensors"
    )
    with safe_open(path, framework="pt") as file:
        metadata, names = file.metadata(), file.keys()
        tensors = {key: file.get_tensor(key).clone() for key in names}
    tensors[name] = torch.zeros(*tensors[name].shape, 2, dtype=tensors[name].dtype)
    text = metadata["unstir_statistics"]
    save_file(tensors, path, {**metadata, "sha256": content_hash(tensors, text)})
    again = reference(store, "train", network)
    assert torch.equal(again.moments.mean, made.moments.mean) and again.features.shape == made.features.shape


def test_other_data_in_the_folder_has_other_statistics(store, network, counts):
    other = Store(store.path, {**store.manifest, "content_hash": "1" * 64})
    reference(store, "train", network, 50)
    counts.clear()
    reference(other, "train", network, 50)
    assert [of_job[1:] for of_job in counts] == [(50, 50)]


def test_a_store_that_cannot_be_written_to_is_judged_all_the_same(store, network, watched):
    watched(referring, "make_folder", PermissionError(13, "Permission denied"))
    assert reference(store, "train", network, 33).moments.n == 33


def test_what_does_not_fit_is_refused(store, network):
    images = store.images("held_out")
    for wrong in (images.float(), images.expand(-1, 3, -1, -1), images[:11]):
        assert "images=" in str(mistake(measure, store, [wrong], [network]))


def test_without_labels_the_distance_is_of_patches(store):
    images = store.images("held_out")
    found = measure(store, [images], [])
    assert list(found) == ["patches/swd"]
    figure = found["patches/swd"]
    assert figure.floor == pytest.approx(figure.value, rel=0.5) and 5 * figure.value < figure.ceiling
    assert measure(store, [noisy(images, 48)], [])["patches/swd"].value > 2 * figure.value


def test_the_directions_of_a_set_are_those_of_its_number_and_the_floor_s_are_the_first_set_s(store, monkeypatch):
    images, swd, seeds = store.images("held_out"), wasserstein.swd, []
    monkeypatch.setattr(wasserstein, "swd", lambda a, b, seed: seeds.append(seed) or swd(a, b, seed))
    measure(store, [images[:20], images[20:40]], [])
    assert seeds == [0, 1, 0, 0]  # two sets, the floor, the noise


def test_errors_from_halves_are_those_of_independent_sets(store, network, monkeypatch):
    from statistics import stdev

    from unstir.metrics.features import Reference

    features = torch.cat([network.features(store.images(split)) for split in ("train", "held_out")])
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    real, pool = features[order[:700]], features[order[700:]]
    of = feature_figures.Sides(network, Reference(moments(real), real), None, real)
    generator = torch.Generator().manual_seed(1)
    sets = [pool[torch.randperm(len(pool), generator=generator)[:150]] for _ in range(30)]
    monkeypatch.setattr(feature_figures, "FEW_SETS", 6)
    monkeypatch.setattr(feature_figures, "SUBSETS", 10)
    found = feature_figures.figures_of(of, sets)
    kept = (1 - 150 / len(pool)) ** 0.5  # sets from a pool without replacement vary less
    for key, each in found.items():
        deviation = stdev(each.by_seed) / kept
        assert 0.6 * deviation < each.bootstrap < 1.5 * deviation, key


def test_the_shares_of_a_sorted_store_are_those_of_images_chosen_at_random(store, network, tmp_path):
    """A folder's images come class by class; the first hundred of them would be of one class or two."""
    images, labels = store.images("held_out"), store.labels("held_out")
    order = labels.argsort()
    ordered = replace(store, manifest=store.manifest)
    object.__setattr__(ordered, "images", lambda split: images[order] if split == "held_out" else store.images(split))
    floor = measure(ordered, [images[:100]], [network])["classifier/classes"].floor
    assert floor < 0.2


def test_patches_are_compared_with_as_many_images_as_asked(store, tmp_path):
    images = store.images("held_out")
    few, many = (measure(store, [images], [], num_reference=n)["patches/swd"] for n in (60, 900))
    assert (few.num_reference, many.num_reference) == (60, 900)
    assert few.value > many.value and few.error > 0 and many.ceiling == pytest.approx(few.ceiling, rel=0.2)
    alone = measure(cut(store, tmp_path / "alone", held_out=0), [images], [], num_reference=900)
    assert alone["patches/swd"].num_floor == 0 and alone["patches/swd"].value == many.value


class Answer(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.answer(images)


def means(images):
    return (images.float().unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5)).flatten(1),)


def test_a_set_larger_than_the_reference_is_in_no_order(store, network):
    images, order = noisy(store.images("train")[:1200], 8), store.labels("train")[:1200].argsort()
    mixed, by_class = (measure(store, [some], [network], num_reference=300) for some in (images, images[order]))
    for key in NEAR:
        assert by_class[f"classifier/{key}"].value == pytest.approx(mixed[f"classifier/{key}"].value, abs=0.1)


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


def test_a_function_is_known_by_the_weights_that_it_names():
    def features(seed):
        torch.manual_seed(seed)
        net = nn.Linear(4, 2)
        return Extractor("inner", lambda images: net(images))

    def scaled(scale):
        return Extractor("inner", lambda images: images.flatten(1) * scale)

    assert features(0).hash == features(0).hash != features(1).hash
    assert scaled(1).hash != scaled(2).hash != scaled(np.ones(64)).hash != scaled(np.zeros(64)).hash
    with refusing("net", "partial"):
        Extractor("partial", functools.partial(means))


def test_an_extractor_measures_under_its_name_and_is_known_by_its_hash(images, digits, monkeypatch):
    monkeypatch.setattr("unstir.metrics.features.keep", lambda *given: None)
    network = Extractor("means-2", Answer(means))
    found = measure(Store.open(digits), [images], [network])["means-2/fd"]
    assert found.name == "FD-means-2" and not network.net.training
    assert found.floor < 3 * found.value < found.ceiling
    alone = Extractor("means-2", Answer(lambda images: means(images)[0]), hash="mine")
    assert alone.hash == "mine" and torch.equal(alone.features(images), network.features(images))
    torch.testing.assert_close(network.features(images), means(images)[0].double())
    assert len({network.hash, Extractor("b", Answer(means)).hash, Extractor("b", nn.Identity()).hash}) == 3
