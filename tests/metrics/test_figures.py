"""Errors, floors and tables of figures by hand: each number that they are made of."""

import math
import re
import statistics
from types import SimpleNamespace

import pytest
import torch

from unstir.metrics import feature_figures, floor, measure
from unstir.metrics.distances import bias_of, infinite_fd, kid
from unstir.metrics.evaluation import name_of, shown, table
from unstir.metrics.features import Network, Outputs, Trust
from unstir.metrics.figures import (
    Figure,
    above_floor,
    as_share,
    error_of_halves,
    figure_effect,
    halved,
    halves_of,
    in_columns,
    two_halves,
    verdict,
)
from unstir.metrics.floor import Draws, bound, draws
from unstir.metrics.frechet import halves, moments, standard_error
from unstir.metrics.measure import reference_size
from unstir.metrics.reference import Reference, noise_images, other_split
from unstir.significance import counted


def figure(*by_seed, **options):
    return Figure(name="x", better="lower", by_seed=by_seed, **options)


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


def test_a_floor_has_its_own_error_or_that_of_one_set_of_its_size():
    known = figure(1.0, 2.0, 3.0, floor=0.5, num_floor=50)
    assert figure(1.0).floor_estimate(10) is above_floor(figure(1.0), 10) is above_floor(known, 49) is None
    assert known.floor_estimate(50) == (0.5, pytest.approx(1.0), 2)  # of one set, three of which vary by 1/sqrt(3)
    assert known.floor_estimate(200) == (0.5, pytest.approx(2.0), 2)
    of_none = figure(1.0, 2.0, 3.0, floor=0.5)
    assert of_none.floor_estimate(50) == (0.5, pytest.approx((2 / 3) ** 0.5), 2)
    assert figure(1.0, floor=0.5, floor_error=0.1).floor_estimate(9) == (0.5, 0.1, 19)
    found = above_floor(known, 50)
    assert found.value == 1.5 and figure_effect(figure(1.0), known).value == 1
    assert verdict(counted(1), "lower") == verdict(counted(-1), "higher") == "worse"


def test_a_share_moves_by_one_over_n_with_an_image():
    assert as_share(figure(0.3), 25).bootstrap == 0.1 and as_share(figure(0.3, bootstrap=0.2), 25).bootstrap == 0.2


def test_halves_share_every_class_and_an_odd_one_is_in_the_second():
    first, second = two_halves(7, 0, "test", 0)
    assert (len(first), len(second)) == (3, 4) and sorted([*first.tolist(), *second.tolist()]) == list(range(7))
    strata = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    first, second = two_halves(7, 0, "test", 0, strata)
    assert strata[first].bincount().tolist() == [2, 1] and strata[second].bincount().tolist() == [2, 2]
    alone = torch.arange(8)  # one image of each class
    kinds = {tuple(sorted(two_halves(8, 0, "test", repeat, alone)[0].tolist())) for repeat in range(20)}
    assert len(kinds) > 10 and {len(each) for each in kinds} == {4}
    heard = []
    found = halves_of(lambda part: {"a": float(len(heard)), "b": heard.append(len(part)) or 1.0}, 7)
    assert heard == [3] * 10  # five splits
    kept = []
    halves_of(lambda part: kept.append(part.tolist()) or {"a": 0.0}, 6, splits=1)
    assert kept == [part.tolist() for part in two_halves(6, 0, "halves of figures", 0)]
    assert found["a"][0].tolist() == [0.5 + 2 * k for k in range(5)] and found["a"][1].tolist() == [-0.5] * 5
    assert halved(lambda part: {"a": heard.append(0) or float(len(heard) % 2)}, 8)["a"] == 0.5


def test_the_error_of_halves_is_that_of_their_sum_and_of_half_at_the_least():
    means, differences = torch.tensor([1.0, 3.0]).double(), torch.tensor([2.0, 2.0]).double()
    assert error_of_halves(means, differences).item() == pytest.approx((4 - 2) ** 0.5)
    assert error_of_halves(means * 2, differences).item() == pytest.approx(2**0.5)  # 4 - 8 is below half of 4
    given, reference = draw(0, 40, 3), moments(draw(1, 50, 3))
    expected = error_of_halves(*halves(given, reference, 10, 0)).item()
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


def test_numbers_of_classes_are_the_nearest_that_are_held():
    shares = torch.tensor([0.5, 0.3, 0.2]).double()
    numbers = lambda held, n: floor._numbers(torch.tensor(held), shares, n).tolist()
    assert numbers([9, 9, 9], 10) == [5, 3, 2] and numbers([9, 9, 9], 9) == [4, 3, 2] and numbers([9, 9, 9], 4) == [
        2, 1, 1,
    ]  # fmt: skip
    assert numbers([3, 9, 9], 10) == [3, 4, 3]
    asked = lambda held, n: floor._as_asked(torch.tensor(held), shares, n)
    assert asked([5, 3, 2], 10) and not asked([5, 3, 2], 11) and not asked([3, 9, 9], 10)
    assert asked([100, 100, 20], 101) and not asked([100, 100, 20], 120)
    assert asked([19, 99, 99], 40) and not asked([9, 99, 99], 20)  # 1/20 + 1/12, and 1/10 + 1/6 where 1/5 are allowed
    most = floor._most
    assert most(lambda n: n < 5, 9) == 4 and most(lambda n: n <= 9, 9) == 9 and most(lambda n: n == 1, 9) == 1
    assert most(lambda n: False, 9) == 0
    chance = lambda held, n: floor._enough_for_chance(torch.tensor(held), shares, n)
    assert chance([9, 9, 9], 6) == chance([7, 6, 5], 6) is True  # 3 + 3 sqrt(1.5) = 6.7, 5.2, and 4.1
    assert floor._enough_for_chance(torch.tensor([12]), torch.ones(1).double(), 12)
    assert not chance([6, 6, 5], 6) and not chance([7, 5, 5], 6) and not chance([7, 6, 4], 6)


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


@pytest.mark.parametrize(("small", "large", "expected"), [(12, 48, (48, 12)), (12, 49, (12, 0)), (11, 49, None)])
def test_what_is_drawn_at_random_is_a_quarter_at_the_least(small, large, expected, monkeypatch):
    monkeypatch.setattr(floor, "_enough_for_chance", lambda held, shares, n: n <= small)
    monkeypatch.setattr(floor, "_as_asked", lambda held, shares, n: n <= large)
    monkeypatch.setattr(floor, "_by_chance", lambda classes, shares, n: (torch.arange(n),) * 2)
    classes, shares = torch.arange(60) % 3, torch.tensor([1.0, 1.0, 1.0]).double() / 3
    found = draws(classes, shares, 60, True)
    assert (found and (found.num, len(found.chance[0]) if found.chance else 0)) == expected


def test_trust_is_read_from_counts_alone_and_told_in_four_digits():
    counts = lambda *three: dict(zip(("right", "num", "most"), three, strict=True))
    for three in ((0, 3, 0), (3, 3, 3), (0, 0, 0)):
        assert Trust.read(counts(*three)) == Trust(*three)
    for three in ((-1, 3, 1), (4, 3, 1), (1, 3, -1), (1, 3, 4)):
        with pytest.raises(ValueError, match="no counts"):
            Trust.read(counts(*three))
    assert Trust(2, 3, 1).entry() == {
        "accuracy": 0.6667, "chance": 0.3333, "num": 3, "above_chance": False, "used": False,
    }  # fmt: skip
    assert Trust(0, 0, 0).entry()["accuracy"] is Trust(0, 0, 0).entry()["chance"] is None and Trust(1, 1, 1).chance == 1


class Means(Network):
    """Features are the values of an image, its logits their double."""

    name, hash, trust = "means", "m", None

    def _check(self, images):
        pass

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


def test_images_of_the_floor_are_four_sets_and_of_one_kind_without_labels():
    store = SimpleNamespace(labels=lambda split: None, count=lambda part: 1000)
    index, found = feature_figures.draws_of(store, "held_out", 100, None)
    assert len(index) == 400 and found.num == 100 and len(found.sets) == 12 and bool((found.classes == 0).all())
    assert len(feature_figures.draws_of(store, "held_out", 300, None)[0]) == 1000
    assert (reference_size(3000, 0, []), reference_size(3000, 5, []), reference_size(9, 0, [])) == (2000, 5, 9)
    assert (reference_size(3000, 0, [Means()]), reference_size(3000, 5000, [Means()])) == (3000, 3000)
    assert (other_split("train"), other_split("held_out")) == ("held_out", "train")
    noise = noise_images((1, 3, 3), 50)
    assert noise.shape == (50, 1, 3, 3) and noise.float().mean().item() == pytest.approx(127.5, abs=12)


def sides_of(real):
    return feature_figures.Sides(Means(), Reference(moments(real), real), None, draw(9, 20, 2))


def test_the_errors_of_a_figure_are_those_of_four_sets_and_the_reference_of_its_subsets():
    real, sets = draw(0, 60, 2), [draw(seed, 12, 2) + 0.3 for seed in range(1, 7)]
    of = sides_of(real)
    found = feature_figures.figures_of(of, sets)
    stated = [feature_figures._errors(of, each) for each in sets[:4]]
    choices = [feature_figures._choices(of, each) for each in sets[:4]]
    mean = lambda each, key: pytest.approx(statistics.fmean(value[key] for value in each), rel=1e-12)
    for key in ("fd", "kid", "precision", "coverage"):
        assert found[f"means/{key}"].bootstrap == mean(stated, key)
    assert found["means/fd"].reference_error is None and found["means/recall"].reference_error == mean(
        choices, "recall"
    )
    rows = torch.stack([feature_figures._neighbours(Reference(moments(s), s), sets[0])[0] for s in real.split(12)])
    assert choices[0]["density"] == pytest.approx((rows[:, 2].var() / 5).sqrt().item())
    assert stated[0]["fd"] == standard_error(sets[0], of.real.moments, 10)
    alone = sides_of(real[:20])
    halves_ = [[feature_figures._neighbours(alone.real, part, 2)] for part in (sets[0][:6], sets[0][6:])]
    rows = (halves_[0][0] + halves_[1][0]) / 2
    assert feature_figures._choices(alone, sets[0])["precision"] == pytest.approx((rows[:, 0].var() / 2).sqrt().item())
    assert found["means/fd"].num_floor == 0 and found["means/fd"].num_reference == 60
    rest = sides_of(real[12:])  # the floor: the first of the reference against the rest
    assert found["means/kid"].floor == feature_figures._measure(rest, real[:12])["kid"]
    half = feature_figures._floor(sides_of(real[:27]), 14)[0]
    assert half == feature_figures._measure(sides_of(real[13:27]), real[:13])
    kernel = lambda subsets: kid(sets[0], real, subsets, 12, seed=0)[0]
    assert found["means/kid"].by_seed[0] == kernel(50) and feature_figures._kid(of, sets[0], 10) == kernel(10)
    lines = [infinite_fd(each, of.real.moments, seed) for seed, each in enumerate(sets)]
    expected = statistics.fmean(line.value for line in lines), math.hypot(*(line.error for line in lines)) / 6
    assert found["means/fd"].infinite == pytest.approx(expected, rel=1e-12)
    assert found["means/fd"].bias == pytest.approx(bias_of(lines, 12, 2), rel=1e-12)
    assert feature_figures._infinite(of, [draw(0, 5, 2)] * 2, [None] * 2) == (
        None,
        None,
    )  # six do
    assert None not in feature_figures._infinite(of, [draw(0, 6, 2)] * 2, [None] * 2)
    assert feature_figures._infinite(of, [draw(0, 6, 2)], [None])[1] is None


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


def test_the_floor_is_drawn_by_twenty_splits_and_its_sets_by_fifty_subsets(monkeypatch):
    real, errors, measured = draw(0, 60, 2), feature_figures._errors, feature_figures._measure
    heard = []
    monkeypatch.setattr(
        feature_figures, "_errors", lambda of, *given: heard.append(given[2]) or errors(of, given[0], given[1], 2)
    )
    monkeypatch.setattr(
        feature_figures, "_measure", lambda of, features, subsets: heard.append(subsets) or measured(of, features, 1)
    )
    drawn = Draws(CLASSES.repeat(2), 20, (torch.arange(20),), (torch.arange(12),), (torch.arange(12, 24),))
    of = sides_of(real)
    of = feature_figures.Sides(of.network, of.real, feature_figures.Floor(None, draw(3, 24, 2), drawn), None)
    assert feature_figures._floor(of, 20)[2] == 20 and heard == [50, 10, 10, 20]


def test_errors_of_means_are_within_classes():
    values = torch.tensor([[1.0, 3.0, 10.0, 14.0]]).double()
    plain = statistics.stdev(values[0].tolist()) / 2
    assert feature_figures._errors_of_means(values, None) == [pytest.approx(plain)]
    within = feature_figures._errors_of_means(values, torch.tensor([0, 0, 2, 2]))
    assert within == [pytest.approx(((1 + 1 + 4 + 4) / 2 / 4) ** 0.5)]
    assert feature_figures._errors_of_means(values[:, :1], None) == [0.0]


def test_subsets_are_disjoint_and_as_many_as_there_are():
    real = draw(0, 25, 2)
    found = Reference(moments(real), real)
    assert [len(some) for some, _ in found.subsets(6, 3)] == [6] * 3 and len(found.subsets(6, 10)) == 4
    assert torch.equal(torch.cat([some for some, _ in found.subsets(6, 10)]), real[:24])
    assert len(found.subsets(25, 10)) == 1 and len(found.subsets(6, 2)) == 2


def test_class_accuracy_has_the_error_of_a_share_and_chance_as_its_ceiling():
    network = Means()
    network.trust = Trust(9, 10, 5)
    asked = [torch.tensor([0, 1, 2, 3])] * 2
    seen = [torch.tensor([0, 1, 2, 0]), torch.tensor([0, 0, 0, 0])]
    found = measure._class_accuracy(network, seen, asked, 5)
    assert found.by_seed == (0.75, 0.25) and found.bootstrap == 0.25 and (found.floor, found.ceiling) == (0.9, 0.2)


def test_names_of_files_and_hashes_are_cut():
    protocol = {"sampler": "ddim", "steps": 5, "seeds": 3, "num": 100, "networks": {"a": "f" * 64, "b": "f" * 63}}
    assert re.fullmatch(r"step7-ddim5-3x100-[0-9a-f]{8}", name_of(7, protocol))
    assert shown(protocol["networks"]) == f"a {'f' * 12}, b {'f' * 63}" and shown({}) == shown(None) == "none"
    assert [shown(value) for value in (True, False, 1, 0)] == ["yes", "no", "1", "0"]


def test_a_table_has_a_line_for_each_figure():
    known = figure(1.5, floor=0.25, num_floor=100, ceiling=9.0, infinite=(1.0, 0.5), floor_infinite=(0.1, 0.05))
    other = Figure(name="coverage", better="higher", by_seed=(0.5, 0.7), floor=0.9, num_floor=50)
    assert table({"a": known, "b": other}, 100).splitlines() == [
        "          value    +-         real  noise",
        "x          1.50     -         0.25   9.00  lower is better; of infinitely many images 1.00 +- 0.50 "
        "(real 0.10 +- 0.05)",
        "coverage   0.60  0.10  0.90 (n=50)      -  higher is better",
    ]


@pytest.mark.parametrize(
    ("errors", "shown"),
    [
        ((0.56, 0.029), ["2.23 ± 0.56", "2.23 ± 0.03"]),  # as many decimals in both, of value and error
        ((0.56, 0.012), ["2.232 ± 0.560", "2.232 ± 0.012"]),
        ((30.0, 0.00003), ["2.2321 ± 30.0000", "2.23210 ± 0.00003"]),  # but for an error that would be 0
        ((None, None), ["2.232", "2.232"]),
        ((None, 400.0), ["2.232", "2.232 ± 400.000"]),
        ((8e-17, 1e-310), ["2.232 ± 0.000", "2.232 ± 0.000"]),
    ],
)
def test_figures_of_a_column_have_equally_many_decimals(errors, shown):
    of = [Figure(name="x", better="lower", by_seed=(2.2321,), bootstrap=error) for error in errors]
    assert [each.error for each in of] == list(errors)
    assert [each.whole for each in in_columns(of)] == shown
