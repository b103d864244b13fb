"""A perfect generator is seldom told from real images, and errors are those of independent sets."""

import math
import statistics

import pytest
import torch
from perfect import SEEDS, Source, simulated, store_of

from unstir.metrics import feature_figures as measures
from unstir.metrics.classifier import Classifier
from unstir.metrics.distances import moments, near
from unstir.metrics.feature_figures import bound, draws
from unstir.metrics.features import NEAR, Reference, Trust
from unstir.metrics.memorisation import memorisation
from unstir.metrics.plan import held_out_like

pytestmark = pytest.mark.slow

NUMBERS = torch.tensor([30] * 9 + [29])
SHARES = NUMBERS.double() / NUMBERS.sum()
CLASSES = torch.arange(10).repeat_interleave(NUMBERS)


@pytest.mark.parametrize(("options", "pages"), [({}, 3), ({"asked": True}, 2), ({"patches": True, "seeds": (3,)}, 2)])
def test_a_perfect_generator_is_seldom_told_from_real_images(options, pages):
    """One page in 50 may be; where held-out images have fixed shares of classes every page of 6 or 10 seeds is."""
    told = dict.fromkeys(options.get("seeds", SEEDS), 0)
    tested = {"patches/swd"} if "patches" in options else {f"classifier/{key}" for key in (*measures.NAMES, "classes")}
    for found, *_ in simulated(pages, 1, num=299, seed=1, **options):
        for k, effects in found.items():
            assert tested <= set(effects)
            told[k] += any(effect.decided for effect in effects.values())
    assert all(count <= 1 for count in told.values()), told


def test_sets_are_drawn_without_an_image_twice_and_with_classes_as_the_generator_has_them():
    of = draws(CLASSES, SHARES, 299, at_random=True)
    assert of.num == 299 and len(of.sets) == 1 and len(of.chance) == len(of.fixed) == measures.DRAWS
    assert 150 <= len(of.chance[0]) == len(of.fixed[0]) < 200
    assert all(len(index) == len(index.unique()) for index in (*of.sets, *of.chance, *of.fixed))
    numbers = lambda index: CLASSES[index].bincount(minlength=10).double()
    likely = len(of.fixed[0]) * SHARES
    assert all((numbers(index) - likely).abs().max() < 1 for index in of.fixed)
    spread = torch.stack([((numbers(index) - likely) ** 2 / likely).sum() for index in of.chance])
    assert 4 < spread.mean() < 14  # 9 for numbers at random
    few = draws(CLASSES, SHARES, 100, at_random=True)
    assert len(few.sets) == measures.DRAWS and not few.chance and {len(index) for index in few.sets} == {100}
    assert len({tuple(numbers(index).tolist()) for index in few.sets}) > 1
    fixed = draws(CLASSES, SHARES, 100, at_random=False).sets
    assert len({tuple(numbers(index).tolist()) for index in fixed}) == 1 and not torch.equal(fixed[0], fixed[1])


def test_what_the_held_out_images_cannot_give_is_drawn_smaller_or_not_at_all():
    one = torch.zeros(10, dtype=torch.float64).index_fill(0, torch.tensor(3), 1)
    of = draws(CLASSES, one, 100, at_random=False)  # images of class 3 alone were asked for
    assert of.num == 30 and bool((CLASSES[of.sets[0]] == 3).all())
    assert draws(CLASSES, SHARES, 1000, at_random=True).num == 299
    assert draws(torch.arange(10).repeat(3), SHARES, 30, at_random=True) is None  # three images a class
    twice = torch.tensor([2.0] + [1.0] * 9, dtype=torch.float64) / 11  # of 35 images of class 0, 30 are held
    assert {draws(CLASSES, twice, 299, at_random=kind).num for kind in (True, False)} == {192}
    many = torch.full((5000,), 1 / 5000, dtype=torch.float64)  # a held-out image a class: some class always runs short
    assert draws(torch.arange(5000), many, 1000, at_random=True).num == 100
    lone = torch.ones(1, dtype=torch.float64)
    assert len(draws(torch.zeros(50, dtype=torch.int64), lone, 50, at_random=False).sets[0]) == 50


def test_the_floor_of_known_figures_is_what_new_sets_have_in_the_mean():
    """A figure whose mean at n is 3 + 40 / n owing to the classes, and the distance between shares of classes."""

    def figures(index):
        numbers = CLASSES[index].bincount(minlength=10).double() / len(index)
        apart = numbers - SHARES
        return {"square": 3 + 40 / 9 * (apart**2 / SHARES).sum().item(), "shares": apart.abs().sum().item() / 2}

    of = draws(CLASSES, SHARES, 299, at_random=True)
    values, errors = bound(of, figures, lambda index: {"square": 0.0, "shares": 0.0}, squares=("shares",))
    generator = torch.Generator().manual_seed(0)
    new = [torch.multinomial(SHARES, 299, replacement=True, generator=generator) for _ in range(2000)]
    counts = torch.stack([each.bincount(minlength=10) for each in new]).double() / 299
    shares = ((counts - SHARES).abs().sum(1) / 2).mean().item()
    assert values["square"] == pytest.approx(3 + 40 / 299, abs=3 * errors["square"])
    assert values["shares"] == pytest.approx(shares, abs=3 * errors["shares"])
    assert 0 < errors["square"] < 40 / 299 / 4 and 0 < errors["shares"] < shares / 5


def test_new_images_of_one_class_are_held_against_held_out_images_of_that_class(tmp_path):
    """Zeros lie nearer to each other than other digits do."""
    source, generator = Source(), torch.Generator().manual_seed(2)
    parts = {part: source.split(part, generator) for part in ("train", "held_out")}
    store = store_of(parts, tmp_path, "one")
    samples = source.draw(torch.zeros(200, dtype=torch.int64), generator)
    of_all, of_zeros = (
        memorisation(samples, store.images("train"), held_out_like(store, label)) for label in (None, 0)
    )
    assert (of_all.num_held_out, of_zeros.num_held_out) == (299, 30)
    assert of_all.verdict != "none" and of_zeros.verdict == "none"


def test_stated_errors_are_the_spread_over_new_samples_and_a_new_reference():
    """Also of neighbourhoods, which one subset of the reference made twice as uncertain as was said."""
    source = Source()
    generator = torch.Generator().manual_seed(0)
    network = Classifier(_Pixels(), (1, 8, 8), 0, Trust(0, 0, 0))
    shares = source.numbers["train"].double()
    new = lambda num: network.features(
        source.draw(torch.multinomial(shares, num, replacement=True, generator=generator), generator)
    )
    values, stated = [], []
    for number in range(40):
        real = new(900)
        held = Reference(moments(real), real)
        sets = [new(150) for _ in range(2)]
        rows = [[near(some, each, radii) for some, radii in held.subsets(150, measures.SUBSETS)] for each in sets]
        values.append([dict(zip(NEAR, row.tolist(), strict=True)) for row in torch.tensor(rows).mean(1)])
        if number < 12:
            found = measures.figures_of(measures.Sides(network, held, None, real[:150]), sets)
            figures = {key: found[f"classifier/{key}"] for key in NEAR}
            for key, each in figures.items():
                assert each.by_seed == pytest.approx([some[key] for some in values[-1]])
            stated.append({k: math.hypot(each.bootstrap / 2**0.5, each.reference_error) for k, each in figures.items()})
    for key in NEAR:
        spread = statistics.stdev(statistics.fmean(each[key] for each in sets) for sets in values)
        said = statistics.fmean(each[key] ** 2 for each in stated) ** 0.5
        assert 0.75 < said / spread < 1.3, (key, said, spread)


class _Pixels(torch.nn.Module):
    head = torch.nn.Identity()

    def features(self, x):
        return x.flatten(1)
