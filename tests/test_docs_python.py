"""The Python in the README and the docs runs as it stands, and their commands are what the command line takes."""

import ast
import re
import shlex
from itertools import dropwhile, groupby
from pathlib import Path

import pytest

from unstir.cli import app

ROOT = Path(__file__).parents[1]
FILES = *sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))


def blocks(language):
    return [
        (file.relative_to(ROOT), text)
        for file in FILES
        for text in re.findall(rf"^```{language}\n(.*?)^```", file.read_text(encoding="utf-8"), re.M | re.S)
    ]


BLOCKS = blocks("python")


def test_there_is_python_to_run():
    assert {str(file) for file, _ in BLOCKS} >= {"README.md", "docs/python.md"}


@pytest.mark.parametrize(("file", "text"), BLOCKS, ids=[f"{file}-{n}" for n, (file, _) in enumerate(BLOCKS)])
def test_python_in_the_docs_runs(trained, file, text, tmp_path, monkeypatch):
    for folder in set(re.findall(r"runs/(?:digits|mnist)", text)):
        noise = {"diffusion__T": 1000, "diffusion__options": {"beta_1": 1e-4, "beta_T": 0.02}}
        classes = 10 if folder == "runs/mnist" else 0
        trained(folder, train__length="2 steps", model__num_classes=classes, **noise)
    monkeypatch.chdir(tmp_path)
    exec(compile(text, str(file), "exec"), {"__name__": "docs"})


@pytest.mark.parametrize(("file", "text"), BLOCKS, ids=[f"{file}-{n}" for n, (file, _) in enumerate(BLOCKS)])
def test_python_in_the_docs_imports_from_the_front_door_alone(file, text):
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = [getattr(node, "module", None) or alias.name for node in nodes for alias in node.names]
    assert not [module for module in modules if module.startswith("unstir.")]


@pytest.mark.slow
def test_the_command_line_takes_every_line_of_the_docs():
    lines = [line for _, text in blocks("sh") for line in text.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(unstir \w+ [^`]+)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    words = [shlex.split(line, comments=True) for line in lines]
    typed = [list(part) for line in words for is_and, part in groupby(line, lambda word: word == "&&") if not is_and]
    typed = [list(dropwhile(lambda word: "=" in word, part)) for part in typed]  # variables set before a command
    commands = [part[1:] for part in typed if part[:1] == ["unstir"]]
    assert len(commands) > 80
    for words in commands:
        app.parse_args([word for word in words if word != "$first"], exit_on_error=False, print_error=False)


@pytest.mark.slow
def test_python_in_the_docs_has_sound_types(tmp_path):
    files = [tmp_path / f"block_{number}.py" for number, (name, _) in enumerate(BLOCKS) if name.name == "python.md"]
    for file, block in zip(files, (text for name, text in BLOCKS if name.name == "python.md"), strict=True):
        file.write_text(block, encoding="utf-8")
    mypy = pytest.importorskip("mypy.api", reason="pip install '.[dev]'")
    out, err, status = mypy.run(
        ["--config-file", str(ROOT / "pyproject.toml"), *map(str, files)]
    )  # strict, with the cache of `mypy`
    assert status == 0 and len(files) > 3, out + err
