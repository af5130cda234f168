"""Writing into a run's directory: whole files, by the first process alone, and what goes wrong in one line."""

import contextlib
import json

from jaxrw.system import files, hosts
from jaxrw.system.errors import RunError


def write_json(path, value):
    """Write JSON so that a kill leaves the old file or the new one, never a half; the first process alone does.

    Raises:
      RunError: it cannot be written.
    """
    if hosts.is_first():
        with told(path), files.replacing(path) as file:
            file.write(f"{json.dumps(value, indent=2)}\n".encode())


@contextlib.contextmanager
def told(path):
    """Tell what goes wrong as a run's end: the disk is full, or the directory gone."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror or error}; what was saved before is kept: make room, and "
            "the same command goes on"
        ) from error
