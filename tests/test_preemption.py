"""Signals: the first is a wish, a second Ctrl-C and the end of the grace time end the process; no JAX in here."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxrw import preemption
from jaxrw.errors import Stopped

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_raised_where_it_is_looked_for(number):
    before = signal.getsignal(number)
    with preemption.listen() as check:
        check()
        signal.raise_signal(number)
        with pytest.raises(Stopped, match=f"stopped by {number.name}"):
            until_it_raises(check)
    assert signal.getsignal(number) is before


def until_it_raises(check):
    """A thread takes the signal up: a moment may pass."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        check()


def test_nothing_is_left_of_a_listener():
    before = threading.active_count(), len(os.listdir("/dev/fd"))
    for _ in range(3):
        with preemption.listen():
            pass
    assert (threading.active_count(), len(os.listdir("/dev/fd"))) == before


def test_sigterm_where_nobody_listens():
    with preemption.told(), pytest.raises(Stopped, match="SIGTERM; the same command goes on"):
        signal.raise_signal(signal.SIGTERM)


def program(body, *, signals, grace=25):
    """Status and standard error of a process that gets signals while it is at work in C, and the seconds it took."""
    code = (
        "from jaxrw import preemption\nimport hashlib, sys\n"
        f"with preemption.listen(grace_seconds={grace}) as check:\n    print('ready', flush=True)\n    {body}\n"
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
