"""The exceptions that end a run with one line and without a traceback."""

import sys


class UserError(Exception):
    """A mistake of the user; the message is one line: what, the value, what would be right.

    `launch.py` prints it and exits with status 2.
    """


class RunError(Exception):
    """A run that cannot continue although its input is right; the message is one line, the exit status 1."""


class Stopped(BaseException):
    """A run that stopped on request and has saved its state; the message is one line, the exit status 75.

    Like KeyboardInterrupt it is not an Exception, so that libraries that catch those let it pass.
    """


def one_line(error: BaseException) -> str:
    """Returns the message of an error on one line, or its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def print_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Prints an error that nobody can catch, as Python does, unless it comes from a closed asyncio event loop.

    When a checkpoint fails, orbax closes its event loop while other arrays are being written, and each of them raises
    such an error. asyncio raises a plain RuntimeError there, so only the text tells it from others.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
