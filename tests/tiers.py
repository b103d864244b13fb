"""How often a fault is tried: few times in the ordinary run, many with UNSTIR_FAULTS=full; and by which seed."""

import os

FULL = os.environ.get("UNSTIR_FAULTS") == "full"
SEED = int(os.environ.get("UNSTIR_SEED", "0"))


def times(quick, full):
    """How often something is tried: ``quick``, or ``full`` where UNSTIR_FAULTS=full."""
    return full if FULL else quick


def proven(what, n):
    """A line for the record: none of n failed, and the failure rate that this excludes (95%: the rule of three)."""
    print(f"{what}: 0 of {n:,} failed, so fewer than {3 / n:.2g} do (95%)")
