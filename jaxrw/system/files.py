"""Files that are replaced whole: a reader, or a kill at any moment, finds the old one or the new one, never a part."""

import contextlib
import os
import pathlib


@contextlib.contextmanager
def replacing(path):
    """Open binary file whose content takes the place of `path` on disk when the block ends; an error leaves the old.

    It is written beside it, under `scratch_name`; whatever is there goes, and a link there is not followed.

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


def scratch_name(name):
    """Name of a file while it is being written."""
    return f"{name}.tmp"
