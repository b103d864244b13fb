"""Libraries of extras, loaded when they are needed; what is missing is a sentence with its remedy."""

import importlib
import warnings
from typing import Any

from unstir.errors import MissingLibraryError, UserError


def library(name: str, extra: str, what: str) -> Any:
    """The module ``name`` of an ``extra`` of this package; UserError, naming ``what`` needs it, where it is not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError:
            raise missing(name, extra, what) from None


def missing(name: str, extra: str, what: str) -> UserError:
    """The error for a library that is not installed; arguments as `library`. The package is installed from source."""
    how = f"in the folder of unstir's source type pip install '.[{extra}]'"
    return MissingLibraryError("", what, f"needs {name}, which is not installed", how)
