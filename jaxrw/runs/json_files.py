"""JSON files of a run: read with a reason where that fails, written whole or not at all."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from jaxrw.system import files, hosts
from jaxrw.system.errors import RunError

# No file of a run comes near it; a larger one would only fill the memory.
_MAX_BYTES = 20_000_000


class UnusableFileError(Exception):
    """A file that cannot be used; the message is the reason, in one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(" ".join(reason.split()))  # names from the file may hold line breaks


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      UnusableFileError: there is none, or it is larger than 20 MB.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UnusableFileError(f"{path.name} is larger than {_MAX_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnusableFileError(f"{path.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UnusableFileError(
            f"{path.name} is damaged: {str(error) or type(error).__name__:.80}"
        ) from error
    if not isinstance(content, dict):
        raise UnusableFileError(f"{path.name} holds a {type(content).__name__}, not an object")
    return content


def write_json(path: pathlib.Path, value: object) -> None:
    """Writes JSON atomically, on the first process alone.

    Raises:
      RunError: it cannot be written.
    """
    if hosts.is_first():
        with as_run_errors(path), files.replacing(path) as file:
            file.write(f"{json.dumps(value, indent=2)}\n".encode())


@contextlib.contextmanager
def as_run_errors(path: pathlib.Path) -> Iterator[None]:
    """Converts an OSError while writing `path`, such as a full disk, into `RunError`."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror or error}; what was saved before is kept: make room, and "
            "the same command goes on"
        ) from error
