"""The directory of a run: locked against other processes, and of one config only."""

import contextlib
import errno
import fcntl
import os
import pathlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxrw import settings
from jaxrw.data import Fingerprint
from jaxrw.runs import integrity, provenance, results
from jaxrw.runs.json_files import UnusableFileError, read_object, write_json
from jaxrw.runs.metrics import count_foreign_lines
from jaxrw.system import hosts
from jaxrw.system.errors import RunError, UserError

# File with the operating system's lock, which is released when the process ends in any way.
LOCK = ".lock"


@contextlib.contextmanager
def open_workdir(
    workdir: str | pathlib.Path,
    config: ConfigDict,
    *,
    data: Fingerprint | None = None,
    extra: str | None = None,
    may_differ: tuple[str, ...] = (),
) -> Iterator[pathlib.Path]:
    """Locks the directory of a run, after creating it or checking that it belongs to the config and the images.

    Moves results and metrics that cannot be used to `damaged`, with a warning on standard error.

    Args:
      workdir: the directory.
      config: resolved.
      data: fingerprint of the images. They may lie elsewhere than before, but must be the same. None: not checked.
      extra: fingerprint of the extra images, which must be the same too. None: not checked.
      may_differ: prefixes of dotted fields in which the config may differ from the directory's config.json, beside
        those of `settings.WITHOUT_EFFECT`.

    Yields:
      The path of the directory.

    Raises:
      UserError: the directory cannot be written, belongs to another config or other images, or is locked by another
        process.
    """
    workdir = pathlib.Path(workdir)
    with contextlib.ExitStack() as stack:
        # If several processes form one run, the first one writes.
        fields = settings.as_json(config)
        hosts.run_on_first(
            _prepare, workdir, stack, fields, data, extra, (*settings.WITHOUT_EFFECT, *may_differ)
        )
        yield workdir


def has_begun(workdir: pathlib.Path) -> bool:
    """Returns whether a run has a checkpoint."""
    directory = workdir / "checkpoints"
    return directory.is_dir() and any(path.name.isdecimal() for path in directory.iterdir())


def _prepare(
    workdir: pathlib.Path,
    stack: contextlib.ExitStack,
    config: dict[str, Any],
    data: Fingerprint | None,
    extra: str | None,
    may_differ: tuple[str, ...],
) -> None:
    """Creates, locks and checks the directory; `stack` releases the lock."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not os.access(workdir, os.W_OK):
            raise PermissionError("it is read-only")
        stack.enter_context(_locked(workdir))
        _check_links(workdir)
        _check_config(workdir, config, may_differ)
        if data is not None:
            _check_data(workdir, data, config["dataset"]["data_dir"])
        if extra is not None:
            _check_extra(workdir, extra)
        _move_damaged_results(workdir)
        _copy_damaged_metrics(workdir)
    except (OSError, RunError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--workdir {workdir} cannot be written: {reason}; choose another place") from error


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
    lock = os.open(workdir / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        _lock(workdir, lock)
        yield
    finally:
        os.close(lock)


def _lock(workdir: pathlib.Path, lock: int) -> None:
    """Locks an open file and writes this process's name into it."""
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


def _check_links(workdir: pathlib.Path) -> None:
    """Raises UserError for links, through which a run would write outside of its directory."""
    for path in workdir.iterdir():
        if path.is_symlink():
            raise UserError(
                f"{path} is a symbolic link; a run keeps its files in its own directory: put {path.name} itself "
                "there, or choose another --workdir"
            )


def _check_config(workdir: pathlib.Path, config: dict[str, Any], may_differ: tuple[str, ...]) -> None:
    """Writes config.json, or raises UserError if it differs from the config."""
    path = workdir / "config.json"
    if not path.exists():
        if (workdir / "checkpoints").exists():
            raise UserError(
                f"--workdir {workdir} has checkpoints but no config.json, so nobody knows what they are of; "
                "put it back, or choose another place"
            )
        write_json(path, config)
        return
    try:
        existing = read_object(path)
    except UnusableFileError as error:
        raise UserError(f"--workdir {workdir} cannot be used: {error}; choose another place") from error
    kept, wanted = (settings.completed(settings.flatten(c)) for c in (existing, config))
    old, new = (
        {name: value for name, value in fields.items() if not name.startswith(may_differ)}
        for fields in (kept, provenance.with_moved_extra(workdir, kept, wanted))
    )
    if differing := settings.differences(old, new):
        raise UserError(
            f"--workdir {workdir} belongs to another config: {'; '.join(differing)}; choose another place, or delete "
            "it if you no longer need it"
        )


def _check_data(workdir: pathlib.Path, data: Fingerprint, data_dir: str | None) -> None:
    """Writes dataset.json, or raises UserError if the run saw other images."""
    try:
        provenance.check(workdir, data, flag="--workdir")
    except UnusableFileError as error:
        raise UserError(f"--workdir {workdir} cannot be used: {error}; choose another place") from error
    if provenance.read(workdir) is not None:
        return
    # Nobody knows which images a version without fingerprints saw, so none is written for it.
    if not has_begun(workdir) and not (workdir / "results.json").exists():
        write_json(workdir / provenance.NAME, data)
    elif data_dir != (earlier := read_object(workdir / "config.json")["dataset"]["data_dir"]):
        print(
            f"warning: {workdir} keeps no fingerprint of its images, so nobody knows whether those in {data_dir} are "
            f"those in {earlier}",
            file=sys.stderr,
        )


def _check_extra(workdir: pathlib.Path, fingerprint: str) -> None:
    """Writes extra.json, or raises UserError if the run saw other extra images."""
    try:
        provenance.check_extra(workdir, fingerprint, flag="--workdir")
    except UnusableFileError as error:
        raise UserError(f"--workdir {workdir} cannot be used: {error}; choose another place") from error
    # Nobody knows which ones a version without these fingerprints saw.
    if not has_begun(workdir) and not (workdir / provenance.EXTRA).exists():
        write_json(workdir / provenance.EXTRA, {"sha256": fingerprint})


def _move_damaged_results(workdir: pathlib.Path) -> None:
    path = workdir / "results.json"
    if not path.exists():
        return
    try:
        results.read(path)
    except UnusableFileError as error:
        aside = integrity.move_aside(path, workdir / "damaged")
        print(f"warning: {path}: {error}; it is kept as {aside}", file=sys.stderr)


def _copy_damaged_metrics(workdir: pathlib.Path) -> None:
    """Copies metrics.jsonl if it has foreign lines; the next `MetricsLog` drops them.

    It is not moved because it has good lines too: a kill at any moment loses nothing.
    """
    path = workdir / "metrics.jsonl"
    if path.exists() and (number := count_foreign_lines(path)):
        aside = integrity.copy_aside(path, workdir / "damaged")
        print(
            f"warning: {path}: {number} lines are none of a run and are left out; all are kept in {aside}",
            file=sys.stderr,
        )
