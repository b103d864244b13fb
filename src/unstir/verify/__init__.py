"""The theory checked: the equations the package rests on, each with the error that was measured.

Each row runs the package's own functions and compares them with something that shares no code with them: decimals, an
integral, linear algebra, a closed form, a published value.
"""

from collections.abc import Iterable

from unstir.errors import UserError, nearest
from unstir.progress import counting
from unstir.verify import bound, forward, oracles, paths, reverse, sampling
from unstir.verify.check import Check, Row, measure

THEMES: dict[str, tuple[Check, ...]] = {
    theme: tuple(value for module in modules for value in vars(module).values() if isinstance(value, Check))
    for theme, modules in {
        "forward": (forward,),
        "reverse": (reverse,),
        "bound": (bound,),
        "sampling": (sampling, paths),
        "oracles": (oracles,),
    }.items()
}
"""The checks by theme, in the order of the theory and of their definition."""
_THEME_OF = {check.name: theme for theme, checks in THEMES.items() for check in checks}


def choose(names: Iterable[str] | None = None) -> tuple[Check, ...]:
    """The checks of these names or themes, by default all, in the order of `THEMES`; UserError for an unknown name."""
    wanted, known = set(names or THEMES), {*THEMES, *_THEME_OF}
    for name in sorted(wanted - known):
        near = nearest(name, sorted(known))
        hint = f"did you mean {near}?" if near else f"name themes ({', '.join(THEMES)}) or rows of `unstir verify`"
        raise UserError("", name, "is no check", hint)
    return tuple(check for theme, checks in THEMES.items() for check in checks if {theme, check.name} & wanted)


def verify(names: Iterable[str] | None = None) -> list[Row]:
    """Run the chosen checks, by default all, and return a row for each. UserError, before any, as `choose`."""
    rows, chosen = [], choose(names)
    with counting("verifying", "equations") as count:
        for check in chosen:
            rows.append(measure(check, _THEME_OF[check.name]))
            count(len(rows), len(chosen), check.name)
    return rows


__all__ = ["THEMES", "Check", "Row", "choose", "verify"]
