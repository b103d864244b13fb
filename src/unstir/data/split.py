"""Which images are held out when the data itself does not say: a hash decides, class by class."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence


def hold_out(names: Sequence[str], labels: Sequence[Hashable], fraction: float, seed: int) -> set[int]:
    """Choose the indices to hold out: round(n * fraction) of each label's n images, at least one where n >= 2.

    fraction in [0, 1); 0 holds out nothing. Images are ranked by SHA-256 of (seed, name), so the choice depends
    on names alone, and one more image changes at most one other image's side of its class.
    """
    if fraction == 0:
        return set()
    groups: dict[Hashable, list[tuple[bytes, int]]] = {}
    for index, (name, label) in enumerate(zip(names, labels, strict=True)):
        key = f"{seed}\0{name}".encode("utf-8", "surrogateescape")
        groups.setdefault(label, []).append((hashlib.sha256(key).digest(), index))
    held: set[int] = set()
    for ranked in groups.values():
        count = min(max(1, round(len(ranked) * fraction)), len(ranked) - 1)
        held.update(index for _, index in sorted(ranked)[:count])
    return held
