"""The one exception a user's mistake raises. Its message says what was given, what is allowed, and the remedy."""


class UserError(Exception):
    """A mistake the user can mend; the command line prints its message alone and exits with status 2."""
