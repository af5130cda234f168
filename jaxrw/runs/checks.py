"""What a value from a file must be before anybody takes it for a number."""

import sys


def is_count(value):
    """Whether a value from a file is an integer, 0 or more, that any program can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def is_number(value):
    """Whether a value from a file is a finite number that a float can hold."""
    # No math.isfinite: it raises for an integer that no float can hold, and JSON has those.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_seconds(value):
    """Whether a value from a file is a time in seconds, 0 or more, and so few that sums of them are finite."""
    return is_number(value) and 0 <= value < 2**53
