"""The pages of the server and their fixed files. Addresses are names of these tables, and nothing else is read."""

from dataclasses import dataclass
from pathlib import Path

from unstir.insight.page import environment
from unstir.runs.recipes import sentences
from unstir.serve.state import State

HERE = Path(__file__).parent
KINDS = {".js": "text/javascript", ".css": "text/css"}


@dataclass(frozen=True)
class Page:
    """A page: its title in the navigation, and its template. A chapter stands in the navigation of chapters."""

    title: str
    template: str
    chapter: bool = False


PAGES = {
    "": Page("Start", "start.html"),
    "forward": Page("Stir", "forward.html", chapter=True),
    "posterior": Page("Step back", "posterior.html", chapter=True),
    "predict": Page("Predict", "predict.html", chapter=True),
    "reverse": Page("Unstir", "reverse.html", chapter=True),
    "guidance": Page("Guide", "guidance.html", chapter=True),
    "sample": Page("Sample", "sample.html"),
    "compare": Page("Compare", "compare.html"),
    "edit": Page("Edit", "edit.html"),
    "train": Page("Train", "train.html"),
}
"""The pages by name, the last part of their address."""


def rendered(name: str, state: State) -> bytes:
    """A page as HTML."""
    shown = {"name": name, "page": PAGES[name], "pages": PAGES, "models": state.runs(), "recipes": sentences()}
    return environment("unstir.serve").get_template(PAGES[name].template).render(shown).encode()


def fixed() -> dict[str, tuple[str, bytes]]:
    """The fixed files of the pages by name: kind (MIME) and content."""
    files = [*(HERE / "static").iterdir(), HERE.parent / "insight" / "templates" / "report.css"]
    return {file.name: (KINDS[file.suffix], file.read_bytes()) for file in files if file.suffix in KINDS}
