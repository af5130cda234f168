"""Stopping when asked to: SIGTERM, which a machine sends before it is taken away, and Ctrl-C."""

import contextlib
import os
import select
import signal
import sys
import threading
import time

from jaxrw.system.errors import Stopped

# Status of a process that was asked to stop, for job systems to start again: EX_TEMPFAIL of sysexits.h.
STATUS = 75

# A cloud takes a machine away 30 seconds after SIGTERM; a step that is longer is not waited for.
GRACE_SECONDS = 25

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_GOES_ON = "; the same command goes on from what has been saved"


def alone(number, *, wait):
    """The largest number of all processes where there is one: its own."""
    return number


@contextlib.contextmanager
def listen(*, agree=alone, grace_seconds=GRACE_SECONDS):
    """Within it, the first SIGTERM or Ctrl-C is a wish, kept for `check`, and ends nothing.

    A second Ctrl-C ends the process at once, and so does the end of `grace_seconds`, whatever the process is doing
    then, compiling for instance: what has been saved is whole at every moment. A thread other than the main one gets
    no signals.

    Args:
      agree: where several processes are one run, `hosts.largest()`: all of them stop at the same `check`.
      grace_seconds: at most so long after the first signal to this process.

    Yields:
      `check`: a function that raises `Stopped` once the wish has come to any process. All of them must call it
      equally often; a wish to another process is known at the call after, or at once with `wait=True`.

    Raises:
      Stopped: the wish came after the last `check`.
    """
    asked = []

    def check(*, wait=False, more=""):
        number = agree(asked[0] if asked else 0, wait=wait)
        if number:
            raise Stopped(f"stopped by {signal.Signals(number).name}{more}")

    with _noting(asked, grace_seconds):
        yield check
    check(wait=True, more=_GOES_ON)


@contextlib.contextmanager
def _noting(asked, grace_seconds):
    """Within it, a thread puts the first signal's number into the list `asked`; none of them is lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    thread = threading.Thread(target=_watch, args=(reader, asked, grace_seconds), daemon=True)
    with contextlib.ExitStack() as stack:
        # Undone in the opposite order: when the thread has ended, no signal can be on its way any more.
        stack.callback(os.close, reader)
        stack.callback(thread.join)
        stack.callback(os.close, writer)
        stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer, warn_on_full_buffer=False))
        thread.start()
        for number in _SIGNALS:
            # It does nothing: it would wait for a compilation to end. The thread reads what Python writes at once.
            stack.callback(signal.signal, number, signal.signal(number, lambda *_: None))
        yield


@contextlib.contextmanager
def told():
    """Within it, SIGTERM raises `Stopped` where nobody listens: before and after the work, and between."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number, frame):
    """Handler of SIGTERM where there is nothing to save."""
    raise Stopped(f"stopped by {signal.Signals(number).name}{_GOES_ON}")


def _watch(reader, asked, grace_seconds):
    """Note the first signal, and end the process at a second Ctrl-C or when the time is up."""
    end = None
    while True:
        left = None if end is None else max(0, end - time.monotonic())
        ready, _, _ = select.select([reader], [], [], left)
        if not ready:
            _end(
                STATUS,
                f"{signal.Signals(asked[0]).name}, and no place to stop within {grace_seconds} seconds",
            )
        written = os.read(reader, 1)
        if not written:
            return
        if written[0] not in _SIGNALS:
            continue
        if not asked:
            asked.append(written[0])
            end = time.monotonic() + grace_seconds
            _say(f"{signal.Signals(written[0]).name}: stopping after this step; Ctrl-C ends it at once")
        elif written[0] == signal.SIGINT:
            _end(128 + signal.SIGINT, "ended at once")


def _end(status, words):
    """End the process here and now."""
    _say(f"launch.py: {words}{_GOES_ON}")
    os._exit(status)


def _say(line):
    """A line on standard error, below a bar that may be there."""
    with contextlib.suppress(OSError, ValueError):
        print(line if not sys.stderr.isatty() else f"\n{line}", file=sys.stderr, flush=True)
