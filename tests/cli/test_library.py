"""Each command is one call of the library: typed, short, and usable where the command line's own packages are not."""

import ast
import inspect
import subprocess
import sys
import typing

import pytest
from commands import COMMANDS

LIBRARY = {
    ("train",): "unstir.train.launch:train_run",
    ("distill",): "unstir.train.distill:distill_run",
    ("data", "pack"): "unstir.data:pack",
    ("data", "inspect"): "unstir.pictures.contact:inspect",
    ("doctor",): "unstir.insight.doctor:diagnose",
    ("verify",): "unstir.verify:verify",
    ("report",): "unstir.insight.write:write_report",
    ("evaluate",): "unstir.metrics.evaluate:evaluate_run",
    ("likelihood",): "unstir.metrics.likelihood:save_likelihood",
    ("export",): "unstir.interop.exporting:export",
    ("import",): "unstir.interop.importing:import_run",
    ("push",): "unstir.interop.published:push",
    ("pull",): "unstir.interop.published:pull",
    ("models",): "unstir.insight.tables:listed",
    ("sample",): "unstir.generate.sampling:sample",
    ("serve",): "unstir.serve.server:open_server",
    **{("edit", name): f"unstir.edit:{name}" for name in ("inpaint", "vary", "invert", "blend", "morph")},
}
"""The function of each command; a new command needs one."""

LONGEST, MOST_BRANCHES = 40, 10


named = pytest.mark.parametrize("path", sorted(COMMANDS), ids=" ".join)


def body(function):
    """The statements of a function below its docstring."""
    source = inspect.getsource(function)
    node = ast.parse(source[source.index("def ") :]).body[0]
    return node.body[1:]


def test_every_command_has_its_function():
    assert LIBRARY.keys() == COMMANDS.keys()


def test_all_are_there_without_the_packages_of_the_command_line():
    code = (
        "import sys, importlib\n"
        "for name in ('cyclopts', 'unstir.cli', 'unstir.console'): sys.modules[name] = None\n"
        f"for target in {sorted(LIBRARY.values())}:\n"
        "    module, name = target.split(':')\n"
        "    assert callable(getattr(importlib.import_module(module), name)), target\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@named
def test_the_command_calls_it(path):
    module, name = LIBRARY[path].split(":")
    imports = {
        f"{node.module}:{alias.name}"
        for statement in body(COMMANDS[path])
        for node in ast.walk(statement)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    package, _, own = module.rpartition(".")
    assert LIBRARY[path] in imports or f"{package}:{own}" in imports, path
    assert callable(getattr(sys.modules.get(module) or __import__(module, fromlist=[name]), name))


@named
def test_it_is_typed(path):
    module, name = LIBRARY[path].split(":")
    function = getattr(__import__(module, fromlist=[name]), name)
    hints = typing.get_type_hints(function)
    assert {*inspect.signature(function).parameters, "return"} == hints.keys()
    assert typing.Any not in hints.values()


@named
def test_the_command_is_short(path):
    statements = body(COMMANDS[path])
    lines = statements[-1].end_lineno - statements[0].lineno + 1
    branches = 1 + sum(
        isinstance(node, ast.If | ast.IfExp | ast.For | ast.While | ast.comprehension | ast.ExceptHandler | ast.BoolOp)
        for statement in statements
        for node in ast.walk(statement)
    )
    assert lines <= LONGEST and branches <= MOST_BRANCHES
