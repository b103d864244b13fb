"""The command `unstir`. Each command is one call of the library; torch is loaded inside, so that help is quick.

Exit status: 0 done, 1 the answer is no, 2 the user's mistake, 130 / 143 / 129 interrupted, terminated or
hung up (the terminal closed) after saving.
"""

from importlib import import_module

from unstir.cli.app import app, main

for module in ("data", "edit", "evaluate", "exchange", "insight", "sample", "serve", "train", "verify"):
    import_module(f"{__name__}.{module}")  # which adds its commands to the application

__all__ = ["app", "main"]
