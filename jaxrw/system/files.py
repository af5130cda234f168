"""Atomic writes and free names.

Readers, even after a kill at any moment, find the old file or the new one, never a part.
"""

import contextlib
import itertools
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a binary file that replaces `path` when the block ends; after an error the old file stays.

    The new content is written beside it, under `scratch_name`. Anything of that name is deleted first, and a link of
    that name is not followed.

    Raises:
      OSError: it cannot be written.
    """
    path = pathlib.Path(path)
    scratch = path.with_name(scratch_name(path.name))
    scratch.unlink(missing_ok=True)
    try:
        with scratch.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise


def numbered(path: pathlib.Path, *, first: int) -> pathlib.Path:
    """Returns `path` with the first number from `first` on that no file has: results-2.json of results.json."""
    paths = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(first))
    return next(path for path in paths if not os.path.lexists(path))


def scratch_name(name: str) -> str:
    """Returns the name of a file while it is being written."""
    return f"{name}.tmp"
