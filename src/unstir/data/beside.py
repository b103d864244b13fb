"""Labels in a file beside the images of a folder, zip or tar, in the place of class folders.

metadata.csv and metadata.jsonl have a row for each image: file_name, from this file's folder on, and label. They may
lie in each folder of a split, and without labels they change nothing. dataset.json has
{"labels": [["00000/img00000000.png", 6], ...]}; the folders beside it are no classes, also where its labels are null.
"""

import csv
import hashlib
import json
from collections.abc import Hashable, Sequence
from io import StringIO
from posixpath import normpath
from typing import Any, NamedTuple

from unstir.data.classes import KEYS, NO_CLASS, as_label
from unstir.data.images import FURTHER_COLUMN, NOT_A_CLASS, Refused
from unstir.data.listing import Items
from unstir.errors import UserError


class Labels(NamedTuple):
    """What files beside the images say of them."""

    by_path: dict[str, Hashable] | None = None  # None where the folders are the classes
    notes: Sequence[tuple[str, str]] = ()  # (text, path)
    digest: str = ""  # of the files; "" where there are none


def labels_beside(items: Items, files: Sequence[str], whose: str) -> Labels:
    """What the ``files`` of a source say, those that `listing.BESIDE` names. Raises UserError where one is damaged."""
    by_path, notes, digest = None, list[tuple[str, str]](), hashlib.sha256()
    for file in files:
        try:
            data = items.read(file, any_kind=True)
            columns, rows = _table(file, data.decode("utf-8-sig"))
            names = [normpath(f"{file.rpartition('/')[0]}/{row['file_name']}").lstrip("/") for row in rows]
        except (Refused, UnicodeDecodeError, json.JSONDecodeError, RecursionError, csv.Error) as error:
            why = f"is {error}" if isinstance(error, Refused) else "is damaged"
            raise UserError("", f"{whose}: {file}", why, "write it again, or take it away") from None
        except (ValueError, TypeError, KeyError, AttributeError):
            notes.append(("no file of labels of images, ignored", file))
            continue
        digest.update(data)
        key = next((name for name in KEYS if name in columns), "")
        notes += [(FURTHER_COLUMN, f"{file}: {name}") for name in columns if name not in ("file_name", key)]
        if key:
            labels = [as_label(_number(row.get(key))) for row in rows]
            notes += [(NOT_A_CLASS, name) for name, label in zip(names, labels, strict=True) if label is NO_CLASS]
            notes.append(("labels are those of this file, not of the folders" + ": none" * (not labels), file))
            by_path = (by_path or {}) | dict(zip(names, labels, strict=True))
    return Labels(by_path, notes, digest.hexdigest() if files else "")


def _table(file: str, text: str) -> tuple[Sequence[str], list[dict[str, Any]]]:
    """The columns and rows of a file. Raises KeyError where it is no table of files."""
    if file.endswith(".csv"):
        reader = csv.DictReader(StringIO(text), restval="")
        rows, columns = list(reader), reader.fieldnames or ()
    elif file.endswith(".jsonl"):
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        columns = [*dict.fromkeys(key for row in rows for key in row)]
    else:
        columns = ["file_name", KEYS[0]]
        rows = [dict(zip(columns, pair, strict=True)) for pair in json.loads(text)["labels"] or ()]
    if "file_name" not in columns:
        raise KeyError
    return columns, rows


def _number(value: Any) -> Any:
    try:
        return value if not isinstance(value, str) or value.isdecimal() else float(value)
    except ValueError:
        return value or None
