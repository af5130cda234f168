"""Checks of values from files, before they are used as numbers."""

import sys
from typing import TypeGuard


def is_count(value: object) -> TypeGuard[int]:
    """Returns whether a value is an integer in 0..2^53 - 1."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def is_number(value: object) -> TypeGuard[float]:
    """Returns whether a value is a finite number that a float can hold."""
    # math.isfinite raises for an integer that no float can hold, and JSON has those.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_seconds(value: object) -> TypeGuard[float]:
    """Returns whether a value is a duration in [0, 2^53) seconds, so that sums of many are finite."""
    return is_number(value) and 0 <= value < 2**53
