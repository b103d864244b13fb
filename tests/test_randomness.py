"""Random numbers: functions of seed, stream, step and slot, fair, and the same in each version."""

import inspect
import math

import numpy as np
import pytest
import torch

from unstir import randomness
from unstir.randomness import Key


def key(stream="noise", step=3, slots=8, seed=0):
    return Key(seed, stream, step, torch.arange(slots))


def test_splitmix64_matches_the_published_vector(monkeypatch):
    # SplitMix64 seeded with 1234567 (Vigna's splitmix64.c): the first five outputs.
    expected = [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip
    start, gamma = torch.tensor([1234567]), torch.tensor([0x9E3779B97F4A7C15 - (1 << 64)])
    monkeypatch.setattr(randomness, "_start_and_gamma", lambda key: (start, gamma))
    assert [int(x) % (1 << 64) for x in randomness.bits(key(slots=1), 5)[0]] == expected


def test_numbers_depend_on_each_coordinate_and_on_nothing_else():
    base = randomness.normal(key(), (3, 4, 4))
    assert torch.equal(base, randomness.normal(key(), (3, 4, 4)))
    for other in (
        key(seed=1),
        key(seed=-1),
        key(stream="sample"),
        key(step=4),
        Key(0, "noise", 3, torch.arange(8) + 8),
    ):
        assert not torch.isclose(base, randomness.normal(other, (3, 4, 4))).any(dim=(1, 2, 3)).all()


def test_a_slot_draws_the_same_in_any_batch_and_block(monkeypatch):
    whole = randomness.bits(key(slots=16), 100)
    assert torch.equal(whole[5:9], randomness.bits(key(slots=16)[5:9], 100))
    assert torch.equal(whole[:, :40], randomness.bits(key(slots=16), 40))
    monkeypatch.setattr(randomness, "_BLOCK", 250)
    assert torch.equal(whole, randomness.bits(key(slots=16), 100))


def test_an_odd_number_of_normals_is_of_as_many_pairs_as_the_next_even_one():
    four = randomness.normal(key(), (2, 2))
    assert torch.equal(randomness.normal(key(), (3,)), four.flatten(1)[:, :3])
    pairs = randomness.bits(key(), 2)
    radius = torch.sqrt(-2 * torch.log(((pairs & 0xFFFFFFFF).double() + 1) / 2**32))
    torch.testing.assert_close(four.double().square().sum(1), radius**2, rtol=1e-5, atol=1e-5)


def test_every_bit_is_fair():
    x = randomness.bits(key(slots=64), 4096).flatten().numpy().view(np.uint64)
    for bit in range(64):
        share = ((x >> np.uint64(bit)) & np.uint64(1)).mean()
        assert abs(share - 0.5) < 5 * 0.5 / math.sqrt(len(x))


def test_permutation_is_one_and_changes_with_the_step():
    a, b = (randomness.permutation(0, "order", epoch, 1000) for epoch in (0, 1))
    assert torch.equal(a.sort().values, torch.arange(1000))
    assert (a == b).sum() < 20


def test_an_order_that_is_listed_is_the_permutation():
    order = randomness.Order(3, "order", 2, 1000)
    assert torch.equal(order[10:20], randomness.permutation(3, "order", 2, 1000)[10:20])


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 1000, 4096, 4097])
def test_an_order_that_is_not_listed_has_each_number_once_wherever_it_is_cut(monkeypatch, n):
    monkeypatch.setattr(randomness, "LISTED", 0)
    order = randomness.Order(0, "order", 5, n)
    assert torch.equal(order[:].sort().values, torch.arange(n))
    parts = torch.cat([order[first : first + 700] for first in range(0, n, 700)])
    assert torch.equal(parts, order[: n + 50]) and torch.equal(order[n - 1 :], parts[-1:])


def test_an_order_that_is_not_listed_is_random():
    n = 2 * randomness.LISTED
    a, b, c = (
        randomness.Order(seed, "order", step, n)[:20_000].double() / n for seed, step in ((0, 0), (0, 1), (1, 0))
    )
    for one, other in ((a, b), (a, c), (a, torch.arange(20_000)), (a[1:], a[:-1]), (a[1024:], a[:-1024])):
        assert abs(torch.corrcoef(torch.stack((one, other.double())))[0, 1]) < 5 / math.sqrt(len(one))
    counts = torch.histc(a, 100, 0, 1)
    assert ((counts - 200).square() / 200).sum() < 99 + 5 * math.sqrt(2 * 99)
    assert abs((a[1:] > a[:-1]).double().mean() - 0.5) < 5 / math.sqrt(12 * 20_000)


ZEROS, ONES = (torch.full((1, 4), bits) for bits in (0, -1))
NAMED = {
    "normal": lambda: randomness.normal(key(slots=1), (2,)),
    "uniform": lambda: randomness.uniform(key(slots=1)),
    "double": lambda: randomness.uniform(key(slots=1), torch.float64),
    **{f"coin {p}": lambda p=p: randomness.coin(key(slots=1), p) for p in (0.0, 1 - 2**-32, 1.0)},
    **{f"kept {p}": lambda p=p: randomness.kept(key(slots=1), 2, p) for p in (0.5 - 2**-16, 0.5, 0.5 + 2**-16)},
}


@pytest.mark.parametrize(
    ("bits", "name", "wanted"),
    [
        (ZEROS, "normal", [math.sqrt(64 * math.log(2)), 0]), (ONES, "normal", [0, 0]),
        (ZEROS, "uniform", [0]), (ONES, "uniform", [1 - 2**-24]), (ONES, "double", [1 - 2**-53]),
        (ZEROS, "coin 0.0", [0]), (ONES, f"coin {1 - 2**-32}", [0]), (ONES, "coin 1.0", [1]),
        (ZEROS, "kept 0.5", [1, 1]), (ZEROS, f"kept {0.5 + 2**-16}", [0, 0]),
        (ONES, "kept 0.5", [0, 0]), (ONES, f"kept {0.5 - 2**-16}", [1, 1]),
    ],
)  # fmt: skip
def test_numbers_of_known_bits(monkeypatch, bits, name, wanted):
    """The ends of what 64 random bits may become, which chance shows once in 2^16 or 2^32 numbers."""
    monkeypatch.setattr(randomness, "bits", lambda key, n: bits[:, :n])
    assert NAMED[name]().double().flatten().tolist() == pytest.approx(wanted, rel=1e-6, abs=0)


@pytest.mark.parametrize("slots", [torch.arange(4.0), torch.arange(4).int(), torch.zeros(2, 2).long(), torch.tensor(1)])
def test_slots_are_whole_numbers_in_a_row(slots):
    with pytest.raises(ValueError, match="slots"):
        Key(0, "noise", 3, slots)


KEY = Key(7, "frozen", 3, torch.tensor([0, 1, 5]))
FAR = Key(-1, "frozen", -2, torch.tensor([2**40]))
COINS = Key(7, "frozen", 3, torch.arange(16))


def hexadecimal(bits):
    return [[f"{int(x) & (1 << 64) - 1:016x}" for x in row] for row in bits]


FROZEN = {
    "bits": (
        lambda: hexadecimal(randomness.bits(KEY, 2)) + hexadecimal(randomness.bits(FAR, 1)),
        [
            ["346a738476e67832", "a8e1368c91a47e2b"],
            ["830f0ed49096b8c3", "c6ff47bb5237ebec"],
            ["0d8130bd100959dc", "d85ad3bc79f93b73"],
            ["1d0798b119e17ab5"],
        ],
    ),
    "integers": (lambda: randomness.integers(KEY, 1, 1000).tolist(), [205, 512, 53]),
    "uniform": (
        lambda: randomness.uniform(KEY).tolist() + randomness.uniform(KEY, torch.float64).tolist(),
        [
            0.20474928617477417, 0.5119484663009644, 0.05275249481201172,
            0.2047493170165583, 0.5119485157925635, 0.05275253883158848,
        ],
    ),
    "coin": (lambda: randomness.coin(COINS, 0.5).int().tolist(), [1, 0, 0, 0, 0, 1, 1, 0, 1, 1, 1, 1, 0, 1, 0, 0]),
    "kept": (
        lambda: randomness.kept(KEY, 8, 0.3).int().tolist(),
        [[1, 1, 1, 1, 1, 0, 1, 0], [0, 0, 1, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1]],
    ),
    "permutation": (
        lambda: [randomness.permutation(*of).tolist() for of in ((7, "frozen", 3, 10), (2**70, "é", 0, 5))],
        [[6, 1, 3, 4, 9, 0, 5, 7, 8, 2], [2, 4, 0, 1, 3]],
    ),
    "Order": (lambda: randomness.Order(7, "frozen", 3, 3 * 2**20)[:3].tolist(), [2083070, 2323409, 1405016]),
    "derive_seed": (lambda: randomness.derive_seed(7, "frozen"), 9090712798269768604),
    "normal": (
        lambda: randomness.normal(KEY, (3,)).tolist(),
        [
            [0.3473922610282898, -0.5708640813827515, 1.1887402534484863],
            [-1.0658987760543823, 0.25756800174713135, -0.0801728367805481],
            [2.225731611251831, 0.6852978467941284, 0.7659860849380493],
        ],
    ),
}  # fmt: skip
"""Of each public function what it gives for fixed keys."""

CHANGED = "these keys give other random numbers than before: raise randomness.VERSION and freeze the new ones here"


@pytest.mark.parametrize("name", FROZEN)
def test_random_numbers_do_not_change_without_a_new_version(name):
    made, frozen = FROZEN[name]
    if name == "normal":  # whose logarithms and cosines may differ in the last bits from machine to machine
        assert torch.allclose(torch.tensor(made()), torch.tensor(frozen), rtol=1e-5, atol=1e-6), CHANGED
    else:
        assert made() == frozen, CHANGED
    assert randomness.VERSION == 1  # a new version has new numbers: freeze them here


def test_every_public_function_is_frozen():
    functions = {name for name, _ in inspect.getmembers(randomness, inspect.isfunction) if not name.startswith("_")}
    own = {name for name in functions if getattr(randomness, name).__module__ == "unstir.randomness"}
    assert own | {"Order"} == set(FROZEN)
