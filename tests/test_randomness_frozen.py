"""The random numbers of VERSION 1, frozen: who changes them must say so, for continued runs and seeds rest on them."""

import inspect

import pytest
import torch

from unstir import randomness
from unstir.randomness import Key

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
