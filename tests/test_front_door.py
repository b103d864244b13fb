"""What `import unstir` offers: the names of `__all__`, each loaded when it is asked for, torch with none of them."""

import ast
import inspect
import re
import subprocess
import sys
import typing
from functools import cached_property
from pathlib import Path

import pytest
import torch

import unstir


def test_importing_the_package_loads_no_torch():
    program = "import sys, unstir; print({name.split('.')[0] for name in sys.modules} & {'torch', 'numpy', 'pydantic'})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("name", unstir.__all__)
def test_each_name_is_that_of_the_module_where_it_is_defined(name):
    found = getattr(unstir, name)
    assert found.__name__ == name and found.__module__.startswith("unstir.") and found.__doc__
    assert getattr(sys.modules[found.__module__], name) is found


def test_a_type_checker_sees_the_same_names():
    tree = ast.parse(Path(unstir.__file__).read_text())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    imported = [
        (node.module, alias.name) for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    assert sorted(name for _, name in imported) == sorted(unstir.__all__) == unstir.__all__
    assert all(getattr(unstir, name) is getattr(sys.modules[module], name) for module, name in imported)


def test_no_name_is_that_of_a_module():
    folder = Path(unstir.__file__).parent
    modules = {path.stem for path in folder.iterdir()}
    assert not modules & set(unstir.__all__)


def test_other_names_are_refused_as_python_does():
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = unstir.nothing
    assert unstir.__version__ and set(unstir.__all__) <= set(dir(unstir))


def signatures(thing):
    """A function or class, and of a class what it offers: methods, and properties by their functions."""
    yield thing
    for name, member in vars(thing).items() if inspect.isclass(thing) else ():
        function = getattr(member, "__func__", member)
        function = function.fget if isinstance(function, property) else function
        function = function.func if isinstance(function, cached_property) else function
        if not name.startswith("_") and inspect.isfunction(function):
            yield function


def types_in(hint):
    if inspect.isclass(hint) and not typing.get_args(hint):
        yield hint
    for inner in typing.get_args(hint):
        for part in inner if isinstance(inner, list) else [inner]:
            yield from types_in(part)


@pytest.mark.parametrize("name", unstir.__all__)
def test_every_type_of_a_public_signature_is_public(name):
    seen = {**{name: getattr(unstir, name) for name in unstir.__all__}, "torch": torch, "Tensor": torch.Tensor}
    seen |= {"nn": torch.nn, "Iterator": typing.Iterator, "MatplotlibFigure": typing.Any}  # for type checkers alone
    for signature in signatures(seen[name]):
        for argument, hint in typing.get_type_hints(signature, localns=seen).items():
            for kind in types_in(hint):
                ours = kind.__module__.startswith("unstir.") and not argument.startswith("_")
                assert not ours or getattr(unstir, kind.__name__, None) is kind, f"{signature}: {argument}"


def test_every_public_name_is_in_the_docs():
    text = (Path(__file__).parents[1] / "docs/python.md").read_text()
    said = set(re.findall(r"\w+", " ".join(re.findall(r"^\| (.*?) \|", text, re.MULTILINE))))
    assert not set(unstir.__all__) - said
