"""The exceptions that end a run with one line and without a traceback."""


class UserError(Exception):
    """A mistake of the user, told in one line: what, the value, what would be right.

    `launch.py` prints it and ends with status 2.
    """


class RunError(Exception):
    """A run that cannot go on through no mistake in its input, told in one line; status 1."""


class Stopped(BaseException):
    """A run that was asked to stop and has saved where it stands, told in one line; status 75.

    No error: whoever catches all of these, as libraries do, must let it pass, as KeyboardInterrupt.
    """
