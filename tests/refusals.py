"""A user's mistake, compared by its fields, or as the line of a command."""

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


def mistake(work, *given, **options):
    """The error of a call that a user's mistake is in."""
    with pytest.raises(UserError) as refused:
        work(*given, **options)
    return refused.value


def refused(result, *words):
    """The line of a command that was refused: status 2, one line, no traceback, and it holds the words."""
    status, out, err = result
    assert status == 2 and out == "", (status, out, err)
    assert err.count("\n") == 1 and err.startswith("unstir: ") and "Traceback" not in err, err
    for word in words:
        assert word in err, err
    return err
