"""Figures of sets of images and of values in units: their errors, floors and comparison."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from refusals import mistake, refusing
from unstir.data import pack
from unstir.insight.write import write_images_report
from unstir.metrics import feature_figures
from unstir.metrics import figures as module
from unstir.metrics.distances import halves, infinite_fd, kid, moments, standard_error
from unstir.metrics.evaluate import evaluate_images
from unstir.metrics.evaluation import name_of, shown, table
from unstir.metrics.feature_figures import Draws, bound, draws
from unstir.metrics.features import Extractor, Network, Outputs, Reference, Trust, lacking, marginals, spread
from unstir.metrics.request import EvaluationRequest
from unstir.significance import effect


def figure(*by_seed, **options):
    return module.Figure(name="x", better="lower", by_seed=by_seed, **options)


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_an_estimate_has_the_degrees_of_freedom_of_seeds_and_bootstrap():
    assert figure(1.0, 2.0, 3.0).estimate == (2, pytest.approx(3**-0.5), 2)
    assert figure(1.0, 2.0, 3.0, bootstrap=3.0).estimate == (2, pytest.approx(3**0.5), 7)
    assert figure(1.0, bootstrap=0.5).estimate == (1, 0.5, 5)
    alone = figure(4.0).estimate
    assert math.isnan(alone.error) and alone.df == 1 and (figure(4.0).num_floor, figure(4.0).num_reference) == (0, 0)
    assert figure(1.0, bootstrap=3.0, reference_error=4.0).error == 5 and figure(1.0, bootstrap=3.0).error == 3
    assert figure(1.0, bootstrap=3.0, reference_error=4.0).own_error == 3


def test_a_floor_is_compared_with_where_its_error_and_as_many_images_are_known():
    known = figure(1.0, 2.0, 3.0, floor=0.5, floor_error=0.1, num_floor=50)
    assert figure(1.0).floor_estimate is module.above_floor(figure(1.0), 10) is module.above_floor(known, 49) is None
    assert figure(1.0, floor=0.5).floor_estimate is None and known.floor_estimate == (0.5, 0.1, 19)
    found = module.above_floor(known, 50)
    assert found.value == 1.5 and module.figure_effect(figure(1.0), known).value == 1
    assert module.verdict(effect(1.0, 0.1, 99), "lower") == module.verdict(effect(-1.0, 0.1, 99), "higher") == "worse"


def test_halves_share_every_class_and_an_odd_one_is_in_the_second():
    first, second = module.two_halves(7, 0, "test", 0)
    assert (len(first), len(second)) == (3, 4) and sorted([*first.tolist(), *second.tolist()]) == list(range(7))
    strata = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    first, second = module.two_halves(7, 0, "test", 0, strata)
    assert strata[first].bincount().tolist() == [2, 1] and strata[second].bincount().tolist() == [2, 2]
    alone = torch.arange(8)  # one image of each class
    kinds = {tuple(sorted(module.two_halves(8, 0, "test", repeat, alone)[0].tolist())) for repeat in range(20)}
    assert len(kinds) > 10 and {len(each) for each in kinds} == {4}
    heard = []
    found = module.halves_of(lambda part: {"a": float(len(heard)), "b": heard.append(len(part)) or 1.0}, 7)
    assert heard == [3] * 10  # five splits
    kept = []
    module.halves_of(lambda part: kept.append(part.tolist()) or {"a": 0.0}, 6, splits=1)
    assert kept == [part.tolist() for part in module.two_halves(6, 0, "halves of figures", 0)]
    assert found["a"][0].tolist() == [0.5 + 2 * k for k in range(5)] and found["a"][1].tolist() == [-0.5] * 5
    assert module.halved(lambda part: {"a": heard.append(0) or float(len(heard) % 2)}, 8)["a"] == 0.5


def test_the_error_of_halves_is_that_of_their_sum_and_of_half_at_the_least():
    means, differences = torch.tensor([1.0, 2.0]).double(), torch.tensor([2.0, 2.0]).double()
    assert module.error_of_halves(means, differences).item() == pytest.approx((4 - 0.5) ** 0.5)
    assert module.error_of_halves(means * 4, differences).item() == pytest.approx(2**0.5)  # 4 - 8 is below half of 4
    given, reference = draw(0, 40, 3), moments(draw(1, 50, 3))
    expected = module.error_of_halves(*halves(given, reference, 10, 0)).item()
    assert standard_error(given, reference) == expected
    assert infinite_fd(given, reference) == infinite_fd(given, reference, 0, 10)


def test_a_kernel_distance_that_knows_its_reference_is_the_same():
    reference, known = draw(1, 30, 3), {}
    for seed, subsets in ((2, 3), (3, 5), (4, 2)):
        given = draw(seed, 20, 3)
        assert kid(given, reference, subsets, 9, known=known) == kid(given, reference, subsets, 9)
    assert [len(own) for own in known.values()] == [5]


CLASSES = torch.tensor([0] * 6 + [1] * 6)


def test_the_floor_is_the_mean_of_its_sets_and_the_difference_that_chance_makes():
    sets = tuple(torch.tensor([k]) for k in (0, 2, 4))
    value = lambda index: {"a": index[0].item() + 1.0, "square": index[0].item() + 1.0}
    error = lambda index: {"a": 0.6, "square": 0.6}
    of = Draws(CLASSES, 4, sets)
    values, errors = bound(of, value, error, squares=("square",))
    assert values == {"a": 3, "square": 3}  # of 1, 3 and 5, whose variance is 4
    assert errors["a"] == errors["square"] == pytest.approx((4 / 3 + 0.36 * 4 / 12) ** 0.5)
    heard = []
    bound(Draws(CLASSES, 5, sets), value, lambda index: heard.append(index.item()) or error(index))
    bound(Draws(CLASSES, 20, sets), value, lambda index: heard.append(index.item()) or error(index))
    assert heard == [0, 2, 0]  # two sets of five are in twelve images, one of twenty at the least
    chance, fixed = (torch.tensor([5, 0]), torch.tensor([7, 0])), (torch.tensor([1, 0]), torch.tensor([3, 0]))
    values, errors = bound(Draws(CLASSES, 4, sets, chance, fixed), value, error, squares=("square",))
    assert values == {"a": 3 + 2 / 4 * (7 - 3), "square": pytest.approx((9 + 0.5 * (49 - 9)) ** 0.5)}
    own = 4 / 3 + 0.36 * 4 / 12
    assert errors["a"] == pytest.approx((own + 0.25 * (1 + 1)) ** 0.5)
    parts = 3**2 * own + 3.5**2 + 1.5**2
    assert errors["square"] == pytest.approx((parts / 29) ** 0.5)
    zero = bound(Draws(CLASSES, 4, sets), lambda index: {"a": 0.0}, error, squares=("a",))
    assert zero == ({"a": 0.0}, {"a": pytest.approx((0.36 * 4 / 12) ** 0.5)})


@pytest.mark.parametrize(
    ("held", "num", "at_random", "expected"),
    [
        (11, 12, False, None), (12, 12, False, (12, 1, 0)), (12, 20, False, (12, 1, 0)), (13, 12, False, (12, 12, 0)),
        (12, 12, True, (12, 12, 0)),
    ],
)  # fmt: skip
def test_the_fewest_that_a_floor_is_drawn_from(held, num, at_random, expected):
    found = draws(torch.zeros(held, dtype=torch.int64), torch.ones(1).double(), num, at_random)
    assert (found and (found.num, len(found.sets), len(found.chance))) == expected
    for index in found.sets if found else ():
        assert len(index.unique()) == found.num


def test_trust_is_told_in_four_digits():
    assert Trust(2, 3, 1).entry() == {
        "accuracy": 0.6667, "chance": 0.3333, "num": 3, "above_chance": False, "used": False,
    }  # fmt: skip
    assert Trust(0, 0, 0).entry()["accuracy"] is Trust(0, 0, 0).entry()["chance"] is None


class Means(Network):
    """Features are the values of an image, its logits their double."""

    name, hash, trust = "means", "m", None

    def _batch(self, images):
        self.sizes = [*getattr(self, "sizes", ()), len(images)]
        return Outputs(images.float().flatten(1), 2 * images.float().flatten(1))


def test_a_network_is_given_batches_and_tells_how_far_it_is(counts):
    network = Means()
    images = torch.arange(130, dtype=torch.uint8).view(130, 1, 1, 1)
    found = network.outputs(images, torch.arange(129, -1, -1))
    assert network.sizes == [64, 64, 2] and [of_job[1:] for of_job in counts] == [(64, 130), (128, 130), (130, 130)]
    assert found.features.flatten().tolist() == list(range(129, -1, -1)) and found.logits[0] == 258
    assert network.outputs(images, batch_size=1).features.shape == (130, 1)


def test_sets_in_fixed_shares_of_classes_are_split_in_these_shares():
    """Ten classes, each as often as in the reference: chance is within classes alone, and the true distance is 0."""
    means, classes = draw(0, 10, 8), torch.arange(200) % 10
    real = means.repeat(1000, 1) + 0.5 * draw(1, 10_000, 8)
    of = feature_figures.Sides(Means(), Reference(moments(real), real[:300]), None, draw(2, 200, 8))
    sets = [means[classes] + 0.5 * draw(seed, 200, 8) for seed in range(3, 15)]
    found, plain = feature_figures.figures_of(of, sets, [classes] * 12), feature_figures.figures_of(of, sets)
    value, error = found["means/fd"].infinite
    assert abs(value) < 4 * error and plain["means/fd"].infinite[0] < -8 * error
    deviation = found["means/fd"].deviation
    assert 0.6 * deviation < found["means/fd"].bootstrap < 1.5 * deviation < plain["means/fd"].bootstrap
    for key in ("means/kid", "means/coverage", "means/precision"):
        assert found[key].by_seed == plain[key].by_seed and found[key].bootstrap != plain[key].bootstrap


def test_names_of_files_and_hashes_are_cut():
    protocol = {"sampler": "ddim", "steps": 5, "seeds": 3, "num": 100, "networks": {"a": "f" * 64, "b": "f" * 63}}
    assert re.fullmatch(r"step7-ddim5-3x100-[0-9a-f]{8}", name_of(7, protocol))
    assert shown(protocol["networks"]) == f"a {'f' * 12}, b {'f' * 63}" and shown({}) == shown(None) == "none"
    assert [shown(value) for value in (True, False, 1, 0)] == ["yes", "no", "1", "0"]


def test_a_table_has_a_line_for_each_figure():
    known = figure(1.5, floor=0.25, num_floor=100, ceiling=9.0, infinite=(1.0, 0.5), floor_infinite=(0.1, 0.05))
    other = module.Figure(name="coverage", better="higher", by_seed=(0.5, 0.7), floor=0.9, num_floor=50)
    head, *lines = table({"a": known, "b": other}, 100).splitlines()
    assert head.split() == ["figure", "value", "real", "noise", "better"] and len(lines) == 3
    columns = [head.index(word) for word in head.split()[1:]]
    cells = [[line[column:].split("  ")[0] for column in columns] for line in lines]
    assert cells[0] == ["1.5", "0.25", "9", "lower"] and cells[2] == ["0.60 ± 0.10", "0.9 (n = 50)", "-", "higher"]


def test_a_row_has_the_value_and_its_bounds_each_with_its_error():
    made = figure(2.2321, bootstrap=0.56, floor=0.3, floor_error=0.1, num_floor=40, ceiling=45.0)
    assert module.in_rows([made], 40) == [("x", "2.2 ± 0.6", "0.30 ± 0.10", "45", "lower")]
    further = replace(made, infinite=(2.0, 0.3), floor_infinite=(0.1, 0.02), num_floor=30)
    assert module.in_rows([further, figure(1.0)], 40) == [
        ("x", "2.2 ± 0.6", "0.30 ± 0.10 (n = 30)", "45", "lower"),
        ("x, infinite n", "2.0 ± 0.3", "0.10 ± 0.02", "", "lower"),
        ("x", "1", "", "", "lower"),
    ]


def values(num, seed, factor=1.0):
    """Smooth images of two channels in other units, a tenth of the values missing."""
    rng = np.random.default_rng(seed)
    waves = rng.normal(size=(num, 2, 3, 1, 1)) * np.cos(np.arange(8)[:, None] * np.arange(3)[:, None, None])
    images = (factor * waves.sum(2) + 0.1 * rng.normal(size=(num, 2, 8, 8))) * np.array([1, 100])[:, None, None] + 7
    return np.where(rng.random(images.shape) < 0.1, np.nan, images).astype(np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return pack(values(400, 0), tmp_path_factory.mktemp("values") / "store", held_out=0.4)


def test_spread_and_marginals_are_what_was_changed():
    images = torch.from_numpy(values(200, 0))
    assert spread(images, images) == marginals(images, images) == 0
    assert spread(1.5 * images, images) == pytest.approx(0.5, rel=1e-5)
    deviation = torch.tensor([images[:, c][~images[:, c].isnan()].std() for c in range(2)]).view(-1, 1, 1)
    assert marginals(images + deviation, images) == pytest.approx(1, rel=0.02)


def test_sets_lack_values_where_the_data_do(store):
    (made,) = lacking(store, [torch.ones(50, 2, 8, 8)])
    masks = store.images("train").isnan()
    assert all((mask == masks).flatten(1).all(1).any() for mask in made.isnan()) and made.isnan().any()


def test_new_values_are_at_the_floor_and_spoilt_ones_are_not(store):
    request = EvaluationRequest(memorisation=True)
    good, _ = evaluate_images(torch.from_numpy(values(80, 1)).nan_to_num(7.0), store, request)
    weak, _ = evaluate_images(torch.from_numpy(values(80, 1, factor=0.6)).nan_to_num(7.0), store, request)
    assert {"pca/fd", "patches/swd", "values/marginals", "values/spread"} <= good.figures.keys()
    for key in ("pca/fd", "patches/swd", "values/spread"):
        near, far = good.figures[key], weak.figures[key]
        assert (
            near.value < near.floor + 5 * near.error + 5 * near.floor_error and far.value > near.value + 5 * far.error
        )
        assert near.ceiling > near.value
    assert good.memorisation is not None and good.protocol["rounding"] == "none"
    assert mistake(evaluate_images, torch.zeros(80, 2, 8, 8, dtype=torch.uint8), store, request).key == "images"


@pytest.mark.parametrize("apart", [False, True], ids=["some missing", "a channel in each split alone"])
def test_values_that_are_missing_spoil_no_figure_of_a_small_split(tmp_path, caplog, apart):
    images, request = values(60, 0), EvaluationRequest(split="held_out")
    if apart:
        images = np.arange(60, dtype=np.float32).repeat(128).reshape(60, 2, 8, 8)
        held_out = pack(images, tmp_path / "numbers", held_out=0.2).images("held_out")[:, 0, 0, 0].long()
        images[:, 1], images[held_out, 0], images[held_out, 1] = np.nan, np.nan, 1.0
    few = pack(images, tmp_path / "few", held_out=0.2)
    for _ in range(2):  # measured, and as it was saved
        figures = evaluate_images(np.nan_to_num(values(30, 1)), few, request)[0].figures
        assert {"values/marginals", "values/spread"}.isdisjoint(figures) == apart
        assert ("marginals is left out" in caplog.text) == apart
        assert "patches/swd" in figures and not any(map(math.isnan, (f.value + f.floor for f in figures.values())))


def flat(images):
    return images.flatten(1)


def test_features_of_ones_own_are_given_the_missing_values(store):
    request, made = EvaluationRequest(memorisation=False), torch.from_numpy(values(80, 1)).nan_to_num(7.0)
    with refusing(given="the features flat"):
        evaluate_images(made, store, request, networks=[Extractor("flat", flat)])
    filled = Extractor("filled", lambda images: flat(images.nan_to_num(7.0)))
    assert "filled/fd" in evaluate_images(made, store, request, networks=[filled])[0].figures


def test_images_of_values_have_a_page(store, tmp_path):
    np.save(tmp_path / "made.npy", np.nan_to_num(values(30, 1)))
    request = EvaluationRequest(store=store.path, memorisation=False)
    (page,) = write_images_report([tmp_path / "made.npy"], request)
    assert "FD-pca sees no more than its features" in page.read_text(encoding="utf-8")


def test_inception_is_refused_before_any_image_is_read(store, monkeypatch):
    monkeypatch.setattr("unstir.metrics.evaluate.installed", lambda: None)
    for key, given in (("fid", True), ("fid_weights", "net.pth")):
        with refusing(key, given):
            evaluate_images("no such folder", store, EvaluationRequest(**{key: given}))
