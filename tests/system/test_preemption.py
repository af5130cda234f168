"""Signals: the first is deferred, a second Ctrl-C and the end of the grace time end the process; no JAX in here."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxrw.system import preemption
from jaxrw.system.errors import Stopped

ROOT = pathlib.Path(__file__).parents[2]


def stopped(work, **options):
    """Message of work that is stopped, where it calls `check` or after its end."""
    with pytest.raises(Stopped) as raised:
        defer(work, **options)
    return str(raised.value)


def defer(work, **options):
    """Do some work, a function of `check`, while signals are deferred."""
    with preemption.deferring_signals(**options) as check:
        work(check)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_raised_where_it_is_looked_for(number):
    """A thread takes the signal up: a moment may pass."""

    def work(check):
        check()
        signal.raise_signal(number)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            check()

    before = signal.getsignal(number)
    assert stopped(work) == f"stopped by {number.name}"
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_last_look_is_not_lost(number):
    told = stopped(lambda check: signal.raise_signal(number))
    assert told == f"stopped by {number.name}; the same command goes on from what has been saved"


def test_a_signal_to_another_process_stops_this_one():
    """`maximum` stands for the others: it gets this one's signal, 0 here, and returns theirs."""

    def maximum(number, *, wait):
        asked.append((number, wait))
        return signal.SIGTERM if len(asked) == 3 else 0

    asked = []
    assert stopped(lambda check: [check() for _ in range(9)], maximum=maximum) == "stopped by SIGTERM"
    assert asked == 3 * [(0, False)]
    asked.clear()
    assert "the same command" in stopped(lambda check: [check() for _ in range(2)], maximum=maximum)
    assert asked == [(0, False), (0, False), (0, True)]
    defer(lambda check: check(wait=True), maximum=maximum)
    assert asked[3:] == [(0, True), (0, True)]


def test_no_thread_or_file_is_left():
    before = threading.active_count(), len(os.listdir("/dev/fd"))
    for _ in range(3):
        with preemption.deferring_signals():
            pass
    assert (threading.active_count(), len(os.listdir("/dev/fd"))) == before


def test_sigterm_outside_of_deferring_signals():
    with preemption.raising_on_sigterm(), pytest.raises(Stopped, match="SIGTERM; the same command goes on"):
        signal.raise_signal(signal.SIGTERM)


def program(body, *, signals, grace=25):
    """Status and standard error of a process that gets signals while it is at work in C, and the seconds it took."""
    code = (
        "from jaxrw.system import preemption\nimport hashlib, sys\n"
        f"with preemption.deferring_signals(grace_seconds={grace}) as check:\n"
        f"    print('ready', flush=True)\n    {body}\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        first, *others = signals
        process.send_signal(first)
        assert (
            process.stderr.readline() == f"{first.name}: stopping after this step; Ctrl-C ends it at once\n"
        )
        for number in others:
            process.send_signal(number)
        out = process.stderr.read()
        process.wait(60)
    return process.returncode, out, time.monotonic() - began


# Some minutes in C, without the interpreter's lock: no handler of Python's runs meanwhile, as during a compilation.
BUSY = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"


def test_a_second_ctrl_c_ends_at_once_even_while_c_code_runs():
    status, err, seconds = program(BUSY, signals=[signal.SIGTERM, signal.SIGINT])
    assert status == 130
    assert "ended at once; the same command goes on" in err
    assert seconds < 20


def test_the_time_is_up_while_c_code_runs():
    status, err, seconds = program(BUSY, signals=[signal.SIGINT], grace=1)
    assert status == preemption.STATUS == 75
    assert "no place to stop within 1 seconds; the same command goes on" in err
    assert 1 <= seconds < 20
