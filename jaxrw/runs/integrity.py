"""Checksums of a directory that was written once: SHA256SUMS, which `sha256sum --check` reads too."""

import hashlib
import json

from jaxrw.system import files

CHECKSUMS = "SHA256SUMS"

# Orbax writes these two last, after the checksums: a time stamp, and a sentence that nobody reads.
_AFTERWARDS = ("_CHECKPOINT_METADATA", "commit_success.txt")


def seal(directory):
    """Write the SHA-256 of every file below `directory` into it; they appear whole or not at all."""
    lines = [f"{_digest(directory / name)}  {name}\n" for name in _files(directory)]
    with files.replacing(directory / CHECKSUMS) as file:
        file.write("".join(lines).encode())


def damage(directory):
    """What is wrong with a sealed directory, in a few words; None where every file is as it was sealed."""
    try:
        if directory.is_symlink():
            return "it is a symbolic link"
        if not (directory / CHECKSUMS).is_file():
            return f"it has no {CHECKSUMS}: it was not written to its end"
        expected = _read(directory / CHECKSUMS)
        found = set(_files(directory))
        for name in sorted(expected.keys() ^ found):
            return f"{name} is missing" if name in expected else f"{name} is none of its files"
        for name, digest in expected.items():
            if _digest(directory / name) != digest:
                return f"{name} is not what was written: its SHA-256 differs"
        json.loads((directory / _AFTERWARDS[0]).read_bytes())
    except (OSError, ValueError) as error:
        return " ".join(str(error).split())
    return None


def set_aside(path, directory):
    """Move what is damaged into `directory`, made if need be, under a name that is free; returns where it is now."""
    aside = _free_place(path.name, directory)
    path.rename(aside)
    return aside


def copy_aside(path, directory):
    """Copy a file into `directory` as `set_aside` moves it; the copy appears whole or not at all."""
    aside = _free_place(path.name, directory)
    with files.replacing(aside) as file:
        file.write(path.read_bytes())
    return aside


def _free_place(name, directory):
    """Path in `directory`, made if need be, that nothing has: the name itself, or with a number."""
    directory.mkdir(exist_ok=True)
    place, number = directory / name, 1
    while place.exists() or place.is_symlink():
        number += 1
        place = directory / f"{name}-{number}"
    return place


def _read(path):
    """Checksums by file name."""
    lines = (line.split("  ", 1) for line in path.read_text().splitlines())
    return {name: digest for digest, name in lines}


def _files(directory):
    """Sorted names, relative to `directory`, of the files that are sealed; a symbolic link is an error."""
    names = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            raise ValueError(f"{name} is a symbolic link")
        if path.is_file() and name not in (CHECKSUMS, files.scratch_name(CHECKSUMS), *_AFTERWARDS):
            names.append(name)
    return names


def _digest(path):
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
