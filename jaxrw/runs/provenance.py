"""Fingerprints of the images that a run sees: dataset.json, also in each checkpoint, and extra.json of extra images."""

import contextlib
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxrw.data import Fingerprint, describe_fingerprint
from jaxrw.runs.json_files import UnusableFileError, read_object
from jaxrw.system.errors import UserError

NAME = "dataset.json"
EXTRA = "extra.json"


def read(workdir: pathlib.Path) -> Fingerprint | None:
    """Returns the fingerprint that a run keeps; None: it has not begun, or a version that kept none began it.

    Raises:
      UnusableFileError: dataset.json cannot be used.
    """
    if (workdir / NAME).exists():
        return _read_file(workdir / NAME)
    for path in sorted((workdir / "checkpoints").glob(f"*/{NAME}")):
        with contextlib.suppress(UnusableFileError):  # `checkpoints` moves a damaged checkpoint aside
            return _read_file(path)
    return None


def check(workdir: pathlib.Path, data: Fingerprint, *, flag: str) -> None:
    """Checks that a run saw the images of `data`, wherever they lay; a run without a fingerprint passes.

    Raises:
      UserError: it saw others.
      UnusableFileError: dataset.json cannot be used.
    """
    found = read(workdir)
    if found is not None and found != data:
        there, here = (describe_fingerprint(some) for some in (found, data))
        raise UserError(
            f"{flag} {workdir} belongs to other images: {there} there, and {here} here; "
            "choose the dataset.data_dir that has its images, or another place"
        )


def check_extra(workdir: pathlib.Path, fingerprint: str, *, flag: str) -> None:
    """Checks that a run saw these extra images, wherever they lay; a run that keeps no fingerprint of them passes.

    Raises:
      UserError: it saw others.
      UnusableFileError: extra.json cannot be used.
    """
    path = workdir / EXTRA
    if path.exists() and read_object(path).get("sha256") != fingerprint:
        raise UserError(
            f"{flag} {workdir} belongs to other extra images; choose the extra.path that has its images, or another "
            "place"
        )


def with_moved_extra(
    workdir: pathlib.Path, kept: Mapping[str, Any], wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns a flat config with the `extra.path` that a run keeps, if `check_extra` can tell the images themselves."""
    field, moved = "extra.path", dict(wanted)
    if (workdir / EXTRA).exists() and None not in (kept.get(field), wanted.get(field)):
        moved[field] = kept[field]
    return moved


def _read_file(path: pathlib.Path) -> Fingerprint:
    fingerprint = read_object(path)
    try:
        describe_fingerprint(fingerprint)
    except (LookupError, TypeError, ValueError) as error:
        raise UnusableFileError(f"{path.name} is no fingerprint of images") from error
    return fingerprint
