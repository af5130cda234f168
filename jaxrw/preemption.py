"""Stopping when asked to: SIGTERM, which a machine sends before it is taken away, and Ctrl-C."""

import contextlib
import functools
import os
import select
import signal
import sys
import threading
import time

from jaxrw.errors import Stopped

# Status of a process that was asked to stop, for job systems to start again: EX_TEMPFAIL of sysexits.h.
STATUS = 75

# A cloud takes a machine away 30 seconds after SIGTERM; a step that is longer is not waited for.
GRACE_SECONDS = 25

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def listen(*, agreed=None, grace_seconds=GRACE_SECONDS):
    """Within it, the first SIGTERM or Ctrl-C is a wish, kept for `check`, and ends nothing.

    A second Ctrl-C ends the process at once, and so does the end of `grace_seconds`, whatever the process is doing
    then, compiling for instance: what has been saved is whole at every moment.

    Args:
      agreed: where several processes are one run, the function that tells all of them to stop at the same step. It
        has taken SIGTERM for itself, and Ctrl-C is passed on to it; no time limit is kept then.
      grace_seconds: at most so long after the first signal.

    Yields:
      `check`: a function without arguments that raises `Stopped` once the wish has come. In a thread other than
      the main one, which gets no signals, it never does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    if agreed is not None:
        with _passed_on():
            yield functools.partial(_check_agreed, agreed)
        return
    asked = []
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # The handlers do nothing: they would wait for a compilation to end. A thread reads what Python writes at once.
    handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(reader, asked, grace_seconds), daemon=True)
    thread.start()

    def check():
        if asked:
            raise Stopped(f"stopped by {asked[0]}")

    try:
        yield check
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(writer)
        thread.join()
        os.close(reader)


@contextlib.contextmanager
def _passed_on():
    """Within it, Ctrl-C is SIGTERM, and a second one ends the process."""

    def pass_on(number, frame):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGINT, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _check_agreed(agreed):
    """Stop where all processes have agreed to."""
    if agreed():
        raise Stopped("stopped by SIGTERM")


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
    raise Stopped(
        f"stopped by {signal.Signals(number).name}; the same command goes on from what has been saved"
    )


def _watch(reader, asked, grace_seconds):
    """Note the first signal, and end the process at a second Ctrl-C or when the time is up."""
    end = None
    while True:
        left = None if end is None else max(0, end - time.monotonic())
        ready, _, _ = select.select([reader], [], [], left)
        if not ready:
            _end(STATUS, f"{asked[0]}, and no place to stop within {grace_seconds} seconds")
        written = os.read(reader, 1)
        if not written:
            return
        if written[0] not in _SIGNALS:
            continue
        if not asked:
            asked.append(signal.Signals(written[0]).name)
            end = time.monotonic() + grace_seconds
            _say(f"{asked[0]}: stopping after this step; Ctrl-C ends it at once")
        elif written[0] == signal.SIGINT:
            _end(128 + signal.SIGINT, "ended at once")


def _end(status, words):
    """End the process here and now."""
    _say(f"launch.py: {words}; the same command goes on from what has been saved")
    os._exit(status)


def _say(line):
    """A line on standard error, below a bar that may be there."""
    with contextlib.suppress(OSError, ValueError):
        print(line if not sys.stderr.isatty() else f"\n{line}", file=sys.stderr, flush=True)
