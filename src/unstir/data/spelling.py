"""How the one who packs writes an argument of `pack`: in Python, after `unstir data pack`, or after `unstir train`.

Messages of the sources name the remedy through one of these functions, so that it can be typed as it stands.
"""

from __future__ import annotations

from collections.abc import Callable

Spelling = Callable[[str, object], str]
"""(name of an argument of `pack`, value) to what is typed for it."""


def in_python(name: str, value: object) -> str:
    """`size=32`."""
    return f"{name}={value!r}"


def after_pack(name: str, value: object) -> str:
    """`--size 32`, `--held-out 0.1`; the source stands for itself."""
    return str(value) if name == "source" else f"--{name.replace('_', '-')} {value}"


def after_train(name: str, value: object) -> str:
    """`--data.size 32`, `--data.held_out 0.1`; the folder of the store is `--data.store`."""
    return f"--data.{'store' if name == 'out' else name} {value}"
