"""Measurements as Markdown, and into a page between two comments."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peers.timing import Timed, spread

OURS, DIFFUSERS, LUCIDRAINS = "unstir", "diffusers", "denoising-diffusion-pytorch"


@dataclass(frozen=True)
class Section:
    """What was timed in turns: ``of`` which network, and a ``note`` on how. All is compared with ``base``.

    ``limits`` are FLOP/s of the machine's fastest products and convolutions by dtype.
    """

    title: str
    of: str
    note: str
    rows: Sequence[Timed]
    base: Timed
    limits: dict[str, float]

    def markdown(self) -> str:
        head = ("", "median (quartiles)", "images/s", f"times {self.base.contestant.name}", "of the limit")
        body = [self._cells(row) for row in self.rows]
        return f"### {self.title}: {self.of}\n\n{self.note}\n\n{table(head, body)}"

    def _cells(self, row: Timed) -> tuple[str, ...]:
        share = row.share(self.limits)
        ratio = "1" if row is self.base else with_quartiles(row.faster_than(self.base))
        per_second = f"{row.images_per_second:,.0f}" if row.images_per_second >= 10 else f"{row.images_per_second:.2g}"
        part = "" if share is None else f"{share:.{0 if share >= 0.095 else 1}%}"
        return row.contestant.name, seconds(row), per_second, ratio, part

    def fastest(self, side: str) -> Timed | None:
        """The fastest setting of a side; None where it takes no part."""
        return min((row for row in self.rows if row.contestant.side == side), key=lambda row: row.median, default=None)

    def first(self, side: str) -> Timed | None:
        """The first setting of a side, the one that it comes with."""
        return next((row for row in self.rows if row.contestant.side == side), None)


def headline(sections: Iterable[Section]) -> str:
    """How many times as fast our fastest setting is: as diffusers' default and fastest ones, and as the other peer."""
    head = ("", "network", "unstir's fastest setting", "diffusers' default", "its fastest", f"{LUCIDRAINS}'s fastest")
    body = []
    for section in sections:
        ours = section.fastest(OURS)
        others = section.first(DIFFUSERS), section.fastest(DIFFUSERS), section.fastest(LUCIDRAINS)
        if ours is not None and any(others):
            ratios = ("" if other is None else with_quartiles(ours.faster_than(other)) for other in others)
            body.append((section.title, section.of, ours.contestant.setting, *ratios))
    return table(head, body)


SPENT = {"Data": "the batch", "Times and noise": "times and noise", "Dropout masks": "dropout masks"}


def spent(sections: Iterable[Section]) -> str:
    """What part of our training step the batch and the random numbers take; "" where that was not measured."""
    ours = {section.title: row.images_per_second for section in sections if (row := section.first(OURS)) is not None}
    if "Training step" not in ours or not SPENT.keys() & ours.keys():
        return ""
    shares = {name: ours["Training step"] / ours[title] for title, name in SPENT.items() if title in ours}
    return f"Of our training step {', '.join(f'{share:.2%} goes into {name}' for name, share in shares.items())}."


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def seconds(row: Timed) -> str:
    """The median and the quartiles of a time, in the unit that suits it."""
    values = spread(row.seconds)
    scale, unit = (1.0, "s") if values[0] >= 1 else (1e3, "ms") if values[0] >= 1e-3 else (1e6, "µs")
    middle, low, high = (figure(value * scale) for value in values)
    return f"{middle} {unit} ({low}–{high})"


def with_quartiles(values: tuple[float, float, float]) -> str:
    middle, low, high = map(figure, values)
    return f"**{middle}** ({low}–{high})"


def figure(value: float) -> str:
    """A number of three digits, or of all its whole ones."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def between(name: str, by: str = "against.py") -> tuple[str, str]:
    """The comments around a part of a page, which name the program ``by`` which it is written."""
    return f"<!-- {name}: written by benchmarks/{by} -->", f"<!-- {name}: end -->"


def around(page: Path, name: str, by: str = "against.py") -> tuple[str, str]:
    """What stands before and after the two comments of ``name`` in a page; SystemExit where they are not there once."""
    begin, end = between(name, by)
    before, found, rest = (page.read_text() if page.exists() else "").partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended) or begin in rest or end in before + after:
        raise SystemExit(f"{page} has not one place for these tables; put two lines there:\n{begin}\n{end}")
    return before, after


def write(page: Path, name: str, text: str, by: str = "against.py") -> None:
    """Replace what stands between the two comments of ``name`` in a page; SystemExit as `around`."""
    (before, after), (begin, end) = around(page, name, by), between(name, by)
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")
