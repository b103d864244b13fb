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
    """A page: its title in the navigation, and its template. A chapter has a line ``about`` it too."""

    title: str
    template: str
    about: str = ""


PAGES = {
    "": Page("Start", "start"),
    "forward": Page("Stir", "forward", "an image becomes noise"),
    "posterior": Page("Step back", "posterior", "if the image were known"),
    "predict": Page("Predict", "predict", "what the network sees, and how wrong it is"),
    "reverse": Page("Unstir", "reverse", "noise becomes an image, step by step"),
    "guidance": Page("Guide", "guidance", "a class, and more of it"),
    "sample": Page("Sample", "sample"),
    "compare": Page("Compare", "compare"),
    "edit": Page("Edit", "edit"),
    "train": Page("Train", "train"),
}
"""The pages by name, the last part of their address."""


def rendered(name: str, state: State) -> bytes:
    """A page as HTML."""
    shown = {"name": name, "page": PAGES[name], "pages": PAGES, "models": state.runs(), "recipes": sentences()}
    return environment("unstir.serve").get_template(f"{PAGES[name].template}.html").render(shown).encode()


def fixed() -> dict[str, tuple[str, bytes]]:
    """The fixed files of the pages by name: kind (MIME) and content."""
    files = [*(HERE / "static").iterdir(), HERE.parent / "insight" / "templates" / "report.css"]
    return {file.name: (KINDS[file.suffix], file.read_bytes()) for file in files if file.suffix in KINDS}
