"""Messages on one line, and errors that nobody can catch."""

import sys
import types

import pytest

from jaxrw.system import errors


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (RuntimeError("Event loop is closed"), False),
        (RuntimeError("something else"), True),
        (ValueError("Event loop is closed: or is it?"), True),
    ],
)
def test_only_what_a_closed_event_loop_raises_is_not_printed(error, printed, monkeypatch):
    calls = []
    monkeypatch.setattr(sys, "__unraisablehook__", calls.append)
    unraisable = types.SimpleNamespace(exc_value=error)
    errors.print_unraisable(unraisable)
    assert calls == [unraisable] * printed


def test_reasons_are_one_line():
    assert errors.one_line(ValueError("first,\n\tsecond")) == "first, second"
    assert errors.one_line(ValueError()) == "ValueError"
