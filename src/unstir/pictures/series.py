"""How the lines of a chart differ, for all eyes and on grey paper: by colour, by marker and by dashes."""

from typing import Any

MARKERS = ("o", "s", "^", "D", "v", "X", "P", "<", "*")
DASHES = ("-", "--", "-.", ":")
PALETTE = "petroff10"
"""matplotlib's; ten colours chosen to be distinguished under all common forms of colour blindness (Petroff 2021)."""


def series(place: int) -> dict[str, Any]:
    """What matplotlib draws line number ``place`` with: of any nine neighbours no two share a colour or a marker."""
    from matplotlib import color_sequences

    colours = color_sequences[PALETTE]
    return {
        "color": colours[place % len(colours)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": DASHES[place % len(DASHES)],
    }
