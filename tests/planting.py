"""Plant a bug in one function of the package, named by where it is and by a change of its syntax tree.

A change is a pair of Python texts, one expression or statement each. The old one must be found exactly once in the
function; the new one takes its place, or nothing does where it is None: then the old one only says what its names stand
for. A name that is no global of the function's module and no builtin stands for any local of the function, the same one
throughout the bug, so that renaming a local breaks no plant; ``_``, ``_1`` and ``_2`` stand for any expression.
"""

import ast
import builtins
import copy
import functools
import importlib
import inspect
import re
import sys
import textwrap
from dataclasses import replace

import torch

Change = tuple[str, str | None]


def plant(monkeypatch, target, changes):
    """Change a function, "module:function" or "module:Class.method" below unstir, wherever the package holds it.

    The target may go on with names for its first parameters: "theory.process:Process.diffuse(self, x_0)".
    """
    module, owner, name, original = found(target)
    made = {}
    tree = changed(tree_of(original), target, changes)
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
            elif isinstance(value, dict) and attribute.isupper():  # such as SAMPLERS, which hold it, and SCHEDULES
                for entry, held in list(value.items()):
                    if held is original:
                        monkeypatch.setitem(value, entry, new)
                    elif getattr(held, "run", None) is original:
                        monkeypatch.setitem(value, entry, replace(held, run=new))


def found(target):
    """The module of a function, what owns it (a class or the module), its name there, and the function."""
    module, name = target.partition("(")[0].split(":")
    module = importlib.import_module(f"unstir.{module}")
    *classes, name = name.split(".")
    owner = functools.reduce(getattr, classes, module)
    return module, owner, name, vars(owner)[name]


def tree_of(function):
    """The syntax tree of a function, a property or a cached property."""
    function = getattr(function, "fget", None) or getattr(function, "func", function)
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def changed(tree, target, changes):
    """The syntax tree of a target's function with all changes made; the one given stays as it is."""
    tree, own = copy.deepcopy(tree), locals_of(tree)
    known = ({*vars(found(target)[0]), *vars(builtins)} - own) | {"True", "False", "None"}
    given = [name.strip() for name in target.partition("(")[2].rstrip(")").split(",") if name]
    parameters = tree.body[0].args
    names = dict(zip(given, (each.arg for each in parameters.posonlyargs + parameters.args), strict=False))
    for old, new in changes:
        places = [(place, _match(_parsed(old), _at(*place), names, own, known)) for place in _places(tree)]
        hits = [(place, bound) for place, bound in places if bound is not None]
        assert len(hits) == 1, f"{old!r} is found {len(hits)} times in\n{ast.unparse(tree)}"
        place, names = hits[0]
        if new is not None:
            _put_at(*place, _Named(_parsed(new), names, known).result)
        names = {name: local for name, local in names.items() if not _is_any(name)}
    return ast.fix_missing_locations(tree)


def locals_of(tree):
    """The names that a function, its comprehensions and its inner functions assign or take as arguments."""
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return stored | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


def _parsed(text):
    (statement,) = ast.parse(text).body
    return statement.value if isinstance(statement, ast.Expr) else statement


def _places(tree):
    """Where an expression or a statement can be changed: what holds it, in which field, and at which index if any."""
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(node, ast.stmt | ast.expr) and not isinstance(getattr(node, "ctx", None), ast.Store):
                    yield parent, field, index


def _at(parent, field, index):
    value = getattr(parent, field)
    return value if index is None else value[index]


def _put_at(parent, field, index, node):
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def _is_any(name):
    return re.fullmatch(r"_\d?", name) is not None


def _match(pattern, node, names, own, known):
    """The names with what the pattern's stand for at a node; None where it is not the pattern."""
    bound = dict(names)

    def same(a, b):
        if isinstance(a, ast.Name) and _is_any(a.id):
            return isinstance(b, ast.expr) and bound.setdefault(a.id, b) is b
        if isinstance(a, ast.Name) and isinstance(b, ast.Name) and a.id not in known:
            if a.id in bound:
                return bound[a.id] == b.id
            return b.id in own and b.id not in bound.values() and not bound.update({a.id: b.id})
        if isinstance(a, ast.AST):
            fields = [field for field in a._fields if field not in ("ctx", "kind")]
            return type(a) is type(b) and all(same(getattr(a, field), getattr(b, field)) for field in fields)
        if isinstance(a, list):
            return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
        return type(a) is type(b) and a == b

    return bound if same(pattern, node) else None


class _Named(ast.NodeTransformer):
    """Give the names of a new text what they stand for; those that it assigns itself stay."""

    def __init__(self, new, names, known):
        assigned = locals_of(new) - {*names}
        self.names, self.known = names, known | assigned
        self.result = self.visit(new)

    def visit_Name(self, node):
        if node.id in self.known and not _is_any(node.id):
            return node
        assert node.id in self.names, f"the old texts do not say what {node.id} is"
        meant = self.names[node.id]
        return copy.deepcopy(meant) if isinstance(meant, ast.expr) else ast.Name(meant, node.ctx)


class Elsewhere(torch.Tensor):
    """A tensor that says it lies on a GPU, so that nobody may look at its value."""

    device = property(lambda self: torch.device("cuda"))
