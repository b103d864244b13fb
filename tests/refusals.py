"""A user's mistake, compared by its fields."""

from contextlib import contextmanager

import pytest

from unstir.errors import UserError


@contextmanager
def refusing(key=..., given=..., remedy=...):
    """In this block the setting ``key`` is refused, or for "" what is ``given``; with the ``remedy``. ...: any."""
    with pytest.raises(UserError) as refused:
        yield
    error = refused.value
    for wanted, got in ((key, error.key), (given, error.given), (remedy, error.remedy)):
        assert wanted in (..., got), error
