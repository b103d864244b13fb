"""Plant a bug in one function of the package, named by where it is and by a change of its syntax tree.

A change is a pair of Python texts, one expression or statement each. The old one must be found exactly once in the
function, and the new one takes its place; ``_``, ``_1`` and ``_2`` stand for any expression.
"""

import ast
import copy
import functools
import importlib
import inspect
import re
import sys
import textwrap
from dataclasses import replace

import torch

Change = tuple[str, str]


def plant(monkeypatch, target, changes):
    """Change a function, "module:function" or "module:Class.method" below unstir, wherever the package holds it."""
    module, owner, name, original = found(target)
    made = {}
    tree = changed(tree_of(original), changes)
    exec(compile(tree, f"<planted in {target}>", "exec"), vars(module), made)
    if isinstance(made[name], functools.cached_property):
        made[name].__set_name__(owner, name)
    put(monkeypatch, target, made[name])


def put(monkeypatch, target, new):
    """Put ``new`` in the place of a function wherever the package holds it: in its class, by import, in a table."""
    _, owner, name, original = found(target)
    monkeypatch.setattr(owner, name, new)
    for holder in [held for key, held in sys.modules.items() if key.split(".")[0] == "unstir"]:
        for attribute, value in list(vars(holder).items()):
            if value is original:  # imported by name
                monkeypatch.setattr(holder, attribute, new)
            elif isinstance(value, dict) and attribute.isupper():  # such as PARAMETERIZATIONS, and the table of parts
                for entry, held in list(value.items()):
                    if held is original:
                        monkeypatch.setitem(value, entry, new)
                    elif isinstance(held, tuple) and held[:1] == (original,):  # of parts, by name
                        monkeypatch.setitem(value, entry, (new, *held[1:]))
                    elif getattr(held, "run", None) is original:
                        monkeypatch.setitem(value, entry, replace(held, run=new))


def found(target):
    """The module of a function, what owns it (a class or the module), its name there, and the function."""
    module, name = target.split(":")
    module = importlib.import_module(f"unstir.{module}")
    *classes, name = name.split(".")
    owner = functools.reduce(getattr, classes, module)
    return module, owner, name, vars(owner)[name]


def tree_of(function):
    """The syntax tree of a function, a property or a cached property."""
    function = getattr(function, "fget", None) or getattr(function, "func", function)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    head = tree.body[0]
    head.decorator_list = [item for item in head.decorator_list if not ast.unparse(item).startswith("parts.")]
    return tree


def changed(tree, changes):
    """The syntax tree with all changes made; the one given stays as it is."""
    tree = copy.deepcopy(tree)
    for old, new in changes:
        places = [(place, key, _match(_parsed(old), place[key])) for place, key in _places(tree)]
        hits = [hit for hit in places if hit[2] is not None]
        assert len(hits) == 1, f"{old!r} is found {len(hits)} times in\n{ast.unparse(tree)}"
        ((place, key, bound),) = hits
        place[key] = _Filled(bound).visit(_parsed(new))
    return ast.fix_missing_locations(tree)


def _parsed(text):
    (statement,) = ast.parse(text).body
    return statement.value if isinstance(statement, ast.Expr) else statement


def _places(tree):
    """Where an expression or a statement can be changed: the list or the fields that hold it, and its key there."""
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            place, keys = (value, range(len(value))) if isinstance(value, list) else (vars(parent), [field])
            for key in keys:
                node = place[key]
                if isinstance(node, ast.stmt | ast.expr) and not isinstance(getattr(node, "ctx", None), ast.Store):
                    yield place, key


def _match(pattern, node):
    """What ``_``, ``_1`` and ``_2`` of a pattern stand for at a node; None where it is not the pattern."""
    bound = {}

    def same(a, b):
        if isinstance(a, ast.Name) and re.fullmatch(r"_\d?", a.id):
            return isinstance(b, ast.expr) and bound.setdefault(a.id, b) is b
        if isinstance(a, ast.AST):
            fields = [field for field in a._fields if field not in ("ctx", "kind")]
            return type(a) is type(b) and all(same(getattr(a, field), getattr(b, field)) for field in fields)
        if isinstance(a, list):
            return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
        return type(a) is type(b) and a == b

    return bound if same(pattern, node) else None


class _Filled(ast.NodeTransformer):
    """Give the names of a new text what they stand for."""

    def __init__(self, bound):
        self.bound = bound

    def visit_Name(self, node):
        return copy.deepcopy(self.bound.get(node.id, node))


class Elsewhere(torch.Tensor):
    """A tensor that says it lies on a GPU, so that nobody may look at its value."""

    device = property(lambda self: torch.device("cuda"))
