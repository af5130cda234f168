"""Stopping on request: SIGTERM, which a cloud sends before it takes a machine away, and Ctrl-C."""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn, Protocol

from jaxrw.system.errors import Stopped

# Exit status of a process that stopped on request, for job systems to restart it: EX_TEMPFAIL of sysexits.h.
STATUS = 75

# Clouds take a machine away 30 seconds after SIGTERM; a step that takes longer is not waited for.
GRACE_SECONDS = 25

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Ends the message of a process that stopped.
HINT = "; the same command goes on from what has been saved"


class Check(Protocol):
    """What `deferring_signals` yields."""

    def __call__(self, *, wait: bool = False) -> None:
        """Raises `Stopped` if a signal has arrived."""


class Maximum(Protocol):
    """What `hosts.delayed_maximum` returns."""

    def __call__(self, number: int, *, wait: bool) -> int:
        """Returns the largest number, at least 0, of all processes."""
        ...


def own_number(number: int, *, wait: bool) -> int:
    """The `Maximum` of a single process."""
    return number


@contextlib.contextmanager
def deferring_signals(
    *, maximum: Maximum = own_number, grace_seconds: float = GRACE_SECONDS, hint: str = ""
) -> Iterator[Check]:
    """Defers the first SIGTERM or Ctrl-C until `check()` is called.

    After the first signal, Ctrl-C ends the process at once. So does the end of `grace_seconds`, even while the process
    compiles: saved files are whole at every moment. Outside of the main thread no signal arrives, so none is deferred.

    Args:
      maximum: `hosts.delayed_maximum()` where several processes form one run, so that all stop at the same `check`.
      grace_seconds: seconds from the first signal to this process until its end.
      hint: end of the message of `check`, which says how to go on.

    Yields:
      `check`, which raises `Stopped` once any process has received a signal. All processes must call it equally
      often. A signal to another process is seen at the next call, or at once with `wait=True`.

    Raises:
      Stopped: on leaving the block, if a signal has arrived that no `check` has raised.
    """
    received: list[int] = []

    def check(*, wait: bool = False, hint: str = hint) -> None:
        number = maximum(received[0] if received else 0, wait=wait)
        if number:
            raise Stopped(f"stopped by {signal.Signals(number).name}{hint}")

    with _recording_signals(received, grace_seconds):
        yield check
    check(wait=True, hint=HINT)


@contextlib.contextmanager
def raising_on_sigterm() -> Iterator[None]:
    """Makes SIGTERM raise `Stopped` outside of `deferring_signals`, while there is nothing to save."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _raise_stopped)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _raise_stopped(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(f"stopped by {signal.Signals(number).name}{HINT}")


@contextlib.contextmanager
def _recording_signals(received: list[int], grace_seconds: float) -> Iterator[None]:
    """Starts a thread that appends the number of the first signal to `received`; no signal is lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    thread = threading.Thread(target=_watch, args=(reader, received, grace_seconds), daemon=True)
    with contextlib.ExitStack() as stack:
        # Undone in reverse order: once the thread has ended, no signal can be on its way.
        stack.callback(os.close, reader)
        stack.callback(thread.join)
        stack.callback(os.close, writer)
        stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer, warn_on_full_buffer=False))
        thread.start()
        for number in _SIGNALS:
            # A Python handler runs only after a compilation has ended, so this one does nothing. Python writes the
            # number to the pipe at once, and the thread reads it there.
            stack.callback(signal.signal, number, signal.signal(number, lambda *_: None))
        yield


def _watch(reader: int, received: list[int], grace_seconds: float) -> None:
    """Records the first signal; ends the process at a second Ctrl-C or when the grace time is over."""
    deadline: float | None = None
    while True:
        timeout = None if deadline is None else max(0, deadline - time.monotonic())
        ready, _, _ = select.select([reader], [], [], timeout)
        if not ready:
            name = signal.Signals(received[0]).name
            _exit(STATUS, f"{name}, and no place to stop within {grace_seconds} seconds")
        content = os.read(reader, 1)
        if not content:
            return
        number = content[0]
        if number not in _SIGNALS:
            continue
        if not received:
            received.append(number)
            deadline = time.monotonic() + grace_seconds
            _print(f"{signal.Signals(number).name}: stopping after this step; Ctrl-C ends it at once")
        elif number == signal.SIGINT:
            _exit(128 + signal.SIGINT, "ended at once")


def _exit(status: int, reason: str) -> NoReturn:
    _print(f"{os.path.basename(sys.argv[0])}: {reason}{HINT}")
    os._exit(status)


def _print(line: str) -> None:
    """Prints to standard error, on a terminal below a progress bar that may be there."""
    with contextlib.suppress(OSError, ValueError):
        print(line if not sys.stderr.isatty() else f"\n{line}", file=sys.stderr, flush=True)
