"""The pages of the server and their fixed files. Addresses are names of these tables, and nothing else is read."""

from dataclasses import dataclass
from pathlib import Path

from unstir.insight.page import environment
from unstir.runs.recipes import sentences
from unstir.serve.state import MOST_BYTES, State
from unstir.serve.training import newest_first

HERE = Path(__file__).parent
KINDS = {".js": "text/javascript", ".css": "text/css"}


@dataclass(frozen=True)
class Page:
    """A page: its title in the navigation, and its template. A chapter has a line ``about`` it, and says its terms."""

    title: str
    template: str
    about: str = ""
    terms: str = ""


PAGES = {
    "": Page("Start", "start"),
    "forward": Page(
        "Stir",
        "forward",
        "an image becomes noise",
        "Pixels: −1 black, 1 white. α and σ: how much image and noise x<sub>t</sub> has. SNR: signal to noise.",
    ),
    "posterior": Page(
        "Step back",
        "posterior",
        "if the image were known",
        "A and B: how much x<sub>t</sub> and x<sub>0</sub> count in μ.",
    ),
    "predict": Page(
        "Predict",
        "predict",
        "what the network sees, and how wrong it is",
        "F: the output of the network. v: α ε − σ x<sub>0</sub>. D: values in an image.",
    ),
    "reverse": Page(
        "Unstir",
        "reverse",
        "noise becomes an image, step by step",
        "A and B: how much x<sub>t</sub> and the predicted image count in μ. z: new noise of std 1.",
    ),
    "guidance": Page(
        "Guide",
        "guidance",
        "a class, and more of it",
        "w: 0 is without the class, 1 with it. D: values in an image.",
    ),
    "sample": Page("Sample", "sample"),
    "compare": Page("Compare", "compare"),
    "edit": Page("Edit", "edit"),
    "train": Page("Train", "train"),
}
"""The pages by name, the last part of their address."""


def rendered(name: str, state: State) -> bytes:
    """A page as HTML."""
    page = PAGES[name]
    models = newest_first(state) if name == "train" else state.runs()
    shown = {"name": name, "page": page, "pages": PAGES, "models": models, "recipes": sentences()}
    return environment("unstir.serve").get_template(f"{page.template}.html").render(shown, most=MOST_BYTES).encode()


def fixed() -> dict[str, tuple[str, bytes]]:
    """The fixed files of the pages by name: kind (MIME) and content."""
    files = [*(HERE / "static").iterdir(), HERE.parent / "insight" / "templates" / "report.css"]
    return {file.name: (KINDS[file.suffix], file.read_bytes()) for file in files if file.suffix in KINDS}
