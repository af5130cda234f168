"""The directory of a run: held against other processes, and of one config only."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import socket
import sys

from jaxrw import settings
from jaxrw.runs import integrity
from jaxrw.runs.metrics import count_foreign_lines
from jaxrw.runs.results import complaint
from jaxrw.runs.writing import write_json
from jaxrw.system import hosts
from jaxrw.system.errors import RunError, UserError

# Where data lies may change between machines, and how a run is evaluated may change after it; the rest is the run.
_MAY_DIFFER = ("dataset.data_dir", "evaluation.save_adversarial", "checkpoint.keep_warmup")

# Who writes into a run: a lock of the operating system, gone with its process, however that ends.
_LOCK = ".lock"


@contextlib.contextmanager
def open_workdir(workdir, config, *, may_differ=()):
    """Hold the directory of a run against other processes: create it, or make sure that it is this config's.

    Args:
      workdir: str or path.
      config: the resolved ConfigDict.
      may_differ: prefixes of dotted fields that need not agree with the config of the directory.

    Yields:
      Its path.

    Raises:
      UserError: the directory cannot be written, belongs to another config, or another process is at work in it.
    """
    workdir = pathlib.Path(workdir)
    with contextlib.ExitStack() as stack:
        # Of several processes that are one run, the first writes.
        hosts.first_does(_take, workdir, stack, settings.as_json(config), (*_MAY_DIFFER, *may_differ))
        yield workdir


def _take(workdir, stack, wanted, may_differ):
    """Create, lock and check the directory of a run."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not os.access(workdir, os.W_OK):
            raise PermissionError("it is read-only")
        stack.enter_context(_locked(workdir))
        _check_links(workdir)
        _check_config(workdir, wanted, may_differ)
        _set_damaged_aside(workdir)
    except (OSError, RunError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--workdir {workdir} cannot be written: {reason}; choose another place") from error


@contextlib.contextmanager
def _locked(workdir):
    """Refuse a directory that another process holds."""
    lock = os.open(workdir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        _lock(workdir, lock)
        yield
    finally:
        os.close(lock)


def _lock(workdir, lock):
    """Lock an open file and leave in it who has done so."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(lock, 200).decode(errors="replace") or "another process"
        raise UserError(
            f"--workdir {workdir} is in use by {holder}; wait until it ends, or choose another place"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        print(f"warning: {workdir} cannot be locked: take care that nobody else works in it", file=sys.stderr)
        return
    os.truncate(lock, 0)
    os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())


def _check_links(workdir):
    """Refuse links by which the files of a run would be written outside of it."""
    for path in workdir.iterdir():
        if path.is_symlink():
            raise UserError(
                f"{path} is a symbolic link; a run keeps its files in its own directory: put {path.name} itself "
                "there, or choose another --workdir"
            )


def _check_config(workdir, wanted, may_differ):
    """Write config.json, or make sure that what it says is wanted."""
    if (workdir / "config.json").exists():
        _check_same(workdir, _read_config(workdir), wanted, may_differ)
    elif (workdir / "checkpoints").exists():
        raise UserError(
            f"--workdir {workdir} has checkpoints but no config.json, so nobody knows what they are of; "
            "put it back, or choose another place"
        )
    else:
        write_json(workdir / "config.json", wanted)


def _check_same(workdir, found, wanted, may_differ):
    """Refuse a directory whose config differs, naming every field that does."""
    found, wanted = (
        {
            field: value
            for field, value in settings.flatten(config).items()
            if not field.startswith(may_differ)
        }
        for config in (found, wanted)
    )
    if differing := settings.differences(found, wanted):
        raise UserError(f"--workdir {workdir} belongs to another config: {'; '.join(differing)}")


def _read_config(workdir):
    """Content of config.json."""
    path = workdir / "config.json"
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not the fields of a config")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}; choose another --workdir") from error
    return content


def _set_damaged_aside(workdir):
    """Keep results and metrics that cannot be used out of the way of those that will be written.

    Good lines may stand between those that are none: `metrics.jsonl` is copied and stays, and whoever writes into it
    next leaves the others out. A kill at any moment loses nothing.
    """
    results = workdir / "results.json"
    if results.exists() and (words := complaint(results)):
        aside = integrity.set_aside(results, workdir / "damaged")
        print(f"warning: {results}: {words}; it is kept as {aside}", file=sys.stderr)
    metrics = workdir / "metrics.jsonl"
    if metrics.exists() and (number := count_foreign_lines(metrics)):
        aside = integrity.copy_aside(metrics, workdir / "damaged")
        print(
            f"warning: {metrics}: {number} lines are none of a run and are left out; all are kept in {aside}",
            file=sys.stderr,
        )
