"""How a source is cut into chunks and shared among workers."""

import numpy as np
import pytest
from encoding import options

from unstir.data import packing
from unstir.data.cifar10 import BINARY_SHA256, CifarSource
from unstir.data.packing import source_of
from unstir.data.source import hold_out


def test_an_archive_to_be_downloaded_is_known_by_the_hash_it_will_have():
    made = CifarSource(None, options("cifar10"))
    assert made.source_hash((3, 32, 32)) == made.stamp() == BINARY_SHA256


def test_options_at_their_bounds_are_taken():
    made = source_of(options("digits", size=packing.MAX_SIZE, held_out=0))
    assert (packing.MAX_SIZE, made.size, made.held_out, made.options.seed) == (4096, 4096, 0.0, 0)
    assert source_of(options("digits", seed=np.int64(3))).options.seed == 3


@pytest.mark.parametrize(
    ("count", "fraction", "held"),
    [(1, 0.5, 0), (2, 0.1, 1), (3, 0.1, 1), (15, 0.1, 2), (20, 0.1, 2), (2, 0.9, 1), (10, 0.9, 9), (9, 0, 0)],
)
def test_of_each_class_a_share_is_held_out_and_never_all(count, fraction, held):
    assert len(hold_out([str(number) for number in range(count)], [7] * count, fraction, 0)) == held
