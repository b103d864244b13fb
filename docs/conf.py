"""The site: the pages beside this file as they are, the notebook, and a reference of `import unstir`.

    pip install '.[docs]' && sphinx-build -W docs site

Nothing is fetched, by the build or by a page: equations become MathML, and pictures from elsewhere become their words.
"""

import base64
import inspect
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_type_hints

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import unstir

HERE = Path(__file__).parent
PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADDRESS = PROJECT["urls"]["Repository"]
SITE = re.sub(r"https://github\.com/([^/]+)/(.*)", r"https://\1.github.io/\2/", ADDRESS)
NOTEBOOK = HERE.parent / "examples/unstir.ipynb"
MADE = HERE / "made"
"""Pages that are made from other files; not kept by git."""

project = title = html_title = "unstir"
author = PROJECT["authors"][0]["name"]
version = release = PROJECT["version"]
root_doc = "README"
exclude_patterns = ["images"]
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["attrs_inline", "dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # sections of the notebook begin at level 2
autodoc_default_options = {"members": True, "undoc-members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
default_role = "py:obj"
html_theme = "furo"
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False


def on_the_site(text: str, folder: Path) -> str:
    """The Markdown of a file in a folder, as the site has it: equations for MyST, links to where things are there."""

    def link(match: re.Match[str]) -> str:
        path, mark, part = match[1].partition("#")
        file = folder / path
        if not path or not file.exists():
            return match[0]
        file = file.resolve().relative_to(HERE.parent)
        if file == NOTEBOOK.relative_to(HERE.parent):
            return "](made/notebook.md)"
        if file.parts[0] == HERE.name:
            return f"]({'../' * (folder != HERE)}{'/'.join(file.parts[1:])}{mark}{part})"
        return f"]({ADDRESS}/blob/main/{file.as_posix()})"

    text = re.sub(r"\$`([^`]*)`\$", r"{math}`\1`", text)
    text = re.sub(r"!\[([^]]*)\]\(https:[^)]*\)", r"\1", text)
    text = text.replace(f"]({SITE}made/reference.html)", "](made/reference.rst)")
    text = re.sub(rf"\]\({SITE}([^)]+)\)", r"](\1){.external}", text)
    return re.sub(r"\]\(([^)\s]+)\)", link, text)


def notebook() -> str:
    """The notebook as Markdown, with the output that is stored in it."""
    parts = []
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(on_the_site(source, NOTEBOOK.parent))
            continue
        parts.append(f"```python\n{source}\n```")
        for number, output in enumerate(cell["outputs"]):
            if "text" in output:
                parts.append("```text\n{}```".format("".join(output["text"])))
            elif picture := output.get("data", {}).get("image/png"):
                (MADE / f"{cell['id']}-{number}.png").write_bytes(base64.b64decode(picture))
                parts.append(f"![what the cell above shows]({cell['id']}-{number}.png)")
    return "\n\n".join(parts)


def reference() -> dict[str, str]:
    """The pages of the reference by name, one for each room of the package, and the page that lists them."""
    rooms: dict[str, list[str]] = {}
    for name in unstir.__all__:
        rooms.setdefault(getattr(unstir, name).__module__.split(".")[1], []).append(name)
    pages = {}
    for room, names in rooms.items():
        kinds = {name: "class" if inspect.isclass(getattr(unstir, name)) else "function" for name in names}
        entries = "\n".join(f".. auto{kind}:: unstir.{name}\n" for name, kind in kinds.items())
        pages[room] = f"{room}\n{'=' * len(room)}\n\n{', '.join(f'`unstir.{name}`' for name in names)}\n\n{entries}"
    head = "What ``import unstir`` offers, by the room of the code where it is."
    listed = "\n".join(f"   {room}" for room in rooms)
    pages["reference"] = f"Reference\n=========\n\n{head}\n\n.. toctree::\n   :maxdepth: 1\n\n{listed}\n"
    return pages


def make_pages(app: Sphinx) -> None:
    """Write what is made from other files."""
    shutil.rmtree(MADE, ignore_errors=True)
    MADE.mkdir()
    (MADE / "notebook.md").write_text(notebook(), encoding="utf-8")
    for name, text in reference().items():
        (MADE / f"{name}.rst").write_text(text, encoding="utf-8")


def add_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """Read a page as `on_the_site`; the root's sections of links are the table of contents too."""
    if name.startswith("made/"):
        return
    text = source[0] = on_the_site(source[0], HERE)
    if name == root_doc:
        for section in text.split("\n## ")[1:]:
            caption, _, body = section.partition("\n")
            pages = "\n".join(page for page in re.findall(r"^\| \[.*?\]\((\S+\.(?:md|rst))\)", body, re.MULTILINE))
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n"


def as_it_stands(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """In a docstring a star outside of a literal is no emphasis, and @ makes no address."""
    lines[:] = [re.sub(r"(``.*?``)|([*@])", lambda mark: mark[1] or f"\\{mark[2]}", line) for line in lines]


def without_bounds(
    app: Sphinx, what: str, name: str, thing: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Of settings show no signature, since all are listed below it, and their types without the bounds."""
    if not hasattr(thing, "__pydantic_fields__"):
        return (signature.replace("<factory>", "..."), returns) if signature else None
    for cls in thing.__mro__:
        if cls.__module__.startswith("unstir."):
            hints = get_type_hints(cls)
            cls.__annotations__ = {field: hints[field] for field in inspect.get_annotations(cls)}
    return "", None


def finish(app: Sphinx, error: Exception | None) -> None:
    """Put the live page beside the others, and the root under the name that servers ask for."""
    if error is None:
        command = [sys.executable, "-m", "unstir", "report", "shipped:digits", "--live"]
        subprocess.run([*command, "--out", str(app.outdir / "live.html")], check=True, stdout=subprocess.DEVNULL)
        (app.outdir / "index.html").write_bytes((app.outdir / f"{root_doc}.html").read_bytes())


def mathml(writer: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Write an equation as MathML."""
    if isinstance(node, nodes.math_block):
        writer.body.append(f'<div style="overflow-x: auto">{convert(node.astext(), display="block")}</div>')
    else:
        writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Connect the steps above."""
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.connect("builder-inited", make_pages)
    app.connect("source-read", add_pages)
    app.connect("autodoc-process-docstring", as_it_stands)
    app.connect("autodoc-process-signature", without_bounds)
    app.connect("build-finished", finish)
