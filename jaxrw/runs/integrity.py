"""Checksums of a directory that is written once: SHA256SUMS, in the format of `sha256sum --check`.

Orbax restores an array with a flipped bit without an error, and takes an empty directory for the latest checkpoint.
"""

import hashlib
import json
import os
import pathlib

from jaxrw.system import files
from jaxrw.system.errors import one_line

CHECKSUMS = "SHA256SUMS"

# Orbax writes these two after the checksums: a time stamp, and a sentence that nothing reads.
_UNSEALED = ("_CHECKPOINT_METADATA", "commit_success.txt")


def seal(directory: pathlib.Path) -> None:
    """Writes the SHA-256 of every file below `directory` into it, atomically.

    Raises:
      OSError: a file cannot be read or written.
      ValueError: there is a symbolic link.
    """
    lines = [f"{_digest(directory / name)}  {name}\n" for name in _sealed_names(directory)]
    with files.replacing(directory / CHECKSUMS) as file:
        file.write("".join(lines).encode())


def find_damage(directory: pathlib.Path) -> str | None:
    """Returns what is wrong with a sealed directory, in a few words, or None if no file has changed."""
    try:
        if directory.is_symlink():
            return "it is a symbolic link"
        if not (directory / CHECKSUMS).is_file():
            return f"it has no {CHECKSUMS}: it was not written to its end"
        digests = _read_checksums(directory / CHECKSUMS)
        for name in sorted(digests.keys() ^ set(_sealed_names(directory))):
            return f"{name} is missing" if name in digests else f"{name} is none of its files"
        for name, digest in digests.items():
            if _digest(directory / name) != digest:
                return f"{name} is not what was written: its SHA-256 differs"
        json.loads((directory / _UNSEALED[0]).read_bytes())
    except (OSError, ValueError) as error:
        return one_line(error)
    return None


def move_aside(path: pathlib.Path, directory: pathlib.Path) -> pathlib.Path:
    """Moves a damaged file or directory into `directory` under a free name; returns its new path."""
    aside = _free_path(path.name, directory)
    path.rename(aside)
    return aside


def copy_aside(path: pathlib.Path, directory: pathlib.Path) -> pathlib.Path:
    """Copies a file into `directory` under a free name, atomically; returns the path of the copy."""
    aside = _free_path(path.name, directory)
    with files.replacing(aside) as file:
        file.write(path.read_bytes())
    return aside


def _free_path(name: str, directory: pathlib.Path) -> pathlib.Path:
    """Returns a path in `directory` that does not exist: `name`, or `name` with a number."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    return files.numbered(path, first=2) if os.path.lexists(path) else path


def _read_checksums(path: pathlib.Path) -> dict[str, str]:
    """Returns digests by file name."""
    lines = (line.split("  ", 1) for line in path.read_text().splitlines())
    return {name: digest for digest, name in lines}


def _sealed_names(directory: pathlib.Path) -> list[str]:
    """Returns the sorted names, relative to `directory`, of the files that have checksums."""
    names = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            raise ValueError(f"{name} is a symbolic link")
        if path.is_file() and name not in (CHECKSUMS, files.scratch_name(CHECKSUMS), *_UNSEALED):
            names.append(name)
    return names


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
