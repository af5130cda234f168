"""Processes of runs: they stop when the process that started them is stopped."""

import contextlib
import ctypes
import fcntl
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from jaxrw.system import preemption

# Statuses of a process that stopped on request, with its state saved or without.
STOPPED = (preemption.STATUS, 130, -signal.SIGINT, -signal.SIGTERM)

# Seconds that a process has to save its state after SIGTERM, before it is killed.
PATIENCE = 60

# A file server releases the locks of a machine that died when it has not heard of it for about 90 seconds.
_LOCK_SECONDS = 180

# Of Linux's prctl(2).
_PR_SET_PDEATHSIG = 1


def run(command: Sequence[str]) -> int:
    """Runs a process and returns its exit status. If this process is stopped, it stops the other one too."""
    process = subprocess.Popen(command)
    with _stopping(process):
        return process.wait()


def run_bound(
    arguments: Sequence[str], *, directory: str, output: pathlib.Path, lock: pathlib.Path
) -> Iterator[str | int]:
    """Runs Python in a process that Linux kills if this process dies, however it dies.

    If this process is stopped, or its own parent dies, it stops the other one first, which may save its state.

    Args:
      arguments: of Python.
      directory: the current directory of the process.
      output: a file that exists; what the process prints is appended.
      lock: a file that another such process, perhaps of another machine, locks while it works. The process is not
        started before the lock is released, unless that takes minutes.

    Yields:
      The name of this machine when the process has started, then the exit status of the process; that of a process that
      stopped on request if the parent of this process died.

    Raises:
      OSError: a path does not exist on this machine.
    """
    parent = os.getppid()
    _wait_for_release(lock)
    binding = [sys.executable, "-m", __name__, str(os.getpid())]
    with open(os.open(output, os.O_WRONLY | os.O_APPEND), "wb") as file:
        process = subprocess.Popen(
            [*binding, sys.executable, *arguments],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # A Ctrl-C in a terminal reaches it through this process alone.
        )
    with _stopping(process):
        yield socket.gethostname()
        while os.getppid() == parent:
            # In short calls, because Ray interrupts Python but no call of the system.
            with contextlib.suppress(subprocess.TimeoutExpired):
                yield process.wait(1)
                return
        _stop(process)  # A worker of Ray may outlive its node.
        yield preemption.STATUS


def missing(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Returns those of the paths that do not exist on this machine."""
    return [path for path in paths if not path.exists()]


@contextlib.contextmanager
def _stopping(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Stops a process when the block is left by an exception, as by Ctrl-C or SIGTERM."""
    try:
        yield
    except BaseException:
        _stop(process)
        raise


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for_release(lock: pathlib.Path) -> None:
    """Waits until no other process has locked a file; it need not exist."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while _is_locked(lock) and time.monotonic() < deadline:
        time.sleep(0.5)


def _is_locked(path: pathlib.Path) -> bool:
    try:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # There is no such file, or no lock on this file system.
        return False
    return False


def _execute_bound(parent: int, command: list[str]) -> None:
    """Replaces this process by a command that is killed when its parent dies."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # It died before.
        sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    _execute_bound(int(sys.argv[1]), sys.argv[2:])
