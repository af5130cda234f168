"""What a value from a file must be before anybody takes it for a number."""

import math


def is_count(value):
    """Whether a value from a file is an integer, 0 or more, that any program can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def is_number(value):
    """Whether a value from a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
