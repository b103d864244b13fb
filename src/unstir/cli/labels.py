"""Classes on the command line: by their names, or by their numbers."""

import re
from collections.abc import Sequence
from typing import Any

from unstir.errors import UserError


def numbers(run: Any, texts: Sequence[str], option: str = "--label", remedy: str = "leave it out") -> tuple[int, ...]:
    """The numbers of the classes that the ``texts`` name; UserError for one that the run does not know."""
    from unstir.data.labels import class_number

    if texts and not run.config.model.num_classes:
        raise UserError(f"{option} {' '.join(texts)} was given, but this network knows no classes; {remedy}")
    classes = run.data.classes
    for text in texts:  # a number is answered by numbers, not by the name of a class that looks like it
        if re.fullmatch("-?[0-9]{1,9}", text) and text not in classes and not 0 <= int(text) < len(classes):
            raise UserError(f"label={text} is outside 0..{len(classes) - 1}, the classes of this run; or give a name")
    return tuple(class_number(classes, text) for text in texts)


def number(run: Any, text: str | None) -> int | None:
    """As `numbers`, for one class or none."""
    return None if text is None else numbers(run, [text])[0]
