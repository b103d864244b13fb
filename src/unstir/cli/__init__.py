"""The command `unstir`. Each command is one call of the library; torch is loaded inside, so that help is quick.

Exit status: 0 done, 1 the answer is no, 2 the user's mistake, 130 / 143 / 129 interrupted, terminated or
hung up (the terminal closed) after saving.
"""

# each module, named after its command, adds it to the application
from unstir.cli import (
    data,
    distill,
    doctor,
    edit,
    evaluate,
    export,
    import_,
    likelihood,
    pull,
    push,
    report,
    sample,
    train,
    verify,
)  # fmt: skip
from unstir.cli.app import app, main

__all__ = [
    "app", "data", "distill", "doctor", "edit", "evaluate", "export", "import_", "likelihood", "main", "pull", "push",
    "report", "sample", "train", "verify",
]  # fmt: skip
