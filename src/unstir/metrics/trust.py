"""Whether a classifier knows its classes: a test on held-out images, without which its features measure nothing.

Whoever names the most frequent class every time is right as often as that class occurs: that is *chance*. A classifier
is trusted where both hold:

* it is decidedly right more often than chance: the exact binomial tail is below `significance.TAIL`;
* of the images that chance gets wrong, it gets the share `SKILL` or more right, net of those that it loses:
  (accuracy - chance) / (1 - chance), Cohen's kappa against that guess. Among ten thousand images 11% is decidedly more
  than 10%, and features that know no more are of no use.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import index
from typing import Any

from unstir.significance import TAIL, binomial_tail

SKILL = 0.3
"""The least skill of a classifier whose features are used; docs/judging.md has what they see at which skill."""

WASSERSTEIN = "the sliced Wasserstein distance"


@dataclass(frozen=True)
class Trust:
    """How a classifier did: ``right`` of ``num`` held-out images, of which ``most`` are of the most frequent class."""

    right: int
    num: int
    most: int

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Trust":
        """From its fields as JSON has them. Raises KeyError, TypeError or ValueError for what are none."""
        right, num, most = (index(values[name]) for name in ("right", "num", "most"))
        if not (0 <= right <= num and 0 <= most <= num):
            raise ValueError(f"no counts: {values}")
        return cls(right, num, most)

    @property
    def accuracy(self) -> float | None:
        """The share of held-out images classified rightly; None where nothing was held out."""
        return self.right / self.num if self.num else None

    @property
    def chance(self) -> float | None:
        """The share of the most frequent class among the held-out images."""
        return self.most / self.num if self.num else None

    @property
    def above_chance(self) -> bool:
        """Whether the accuracy is decidedly above chance."""
        return self.num > 0 and binomial_tail(self.right, self.num, self.most / self.num) < TAIL

    @property
    def given(self) -> bool:
        """Whether the features may be used."""
        return self.above_chance and self.right - self.most >= SKILL * (self.num - self.most)

    def entry(self) -> dict[str, Any]:
        """What a protocol says of it, as JSON has it."""
        values = {"accuracy": self.accuracy, "chance": self.chance}
        rounded = {name: None if value is None else round(value, 4) for name, value in values.items()}
        return {**rounded, "num": self.num, "above_chance": self.above_chance, "used": self.given}


def describe(protocol: Mapping[str, Any]) -> str | None:
    """The held-out accuracy of the classifier of a protocol, and what is used where it is not trusted.

    None where there was no classifier: the data has no classes.
    """
    entry = protocol.get("classifier")
    if not entry:
        return None
    instead = " and ".join(protocol["networks"]) or WASSERSTEIN
    if not entry["num"]:
        return f"the classifier is not used, for no image is held out to test it with; {instead} is used instead"
    right = f"right in {entry['accuracy']:.1%} of {entry['num']:,} held-out images"
    chance = f"{entry['chance']:.1%}, the share of the most frequent class"
    if entry["used"]:
        return f"the classifier is {right} (by chance: {chance})"
    above = "hardly above" if entry["above_chance"] else "not decidedly above"
    return f"the classifier is {right}, {above} chance ({chance}): it is not used, but {instead}"
