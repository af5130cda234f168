"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """A mistake of the user, told in one line: what, the value, what would be right.

    `launch.py` prints it without a traceback and ends with status 2.
    """
