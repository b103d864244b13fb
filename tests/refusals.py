"""A user's mistake, compared by its fields."""

from contextlib import contextmanager

import pytest

from unstir.errors import UserError


@contextmanager
def refusing(key, given=..., remedy=...):
    """In this block the setting ``key`` is refused, or for "" what is ``given``; with the ``remedy``."""
    with pytest.raises(UserError) as refused:
        yield
    error = refused.value
    assert error.key == key and given in (..., error.given) and remedy in (..., error.remedy), error
