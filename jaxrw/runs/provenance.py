"""Fingerprints of the images that a run sees: dataset.json, also in each checkpoint, and extra.json of extra images."""

import contextlib
import pathlib

from jaxrw.data import Fingerprint, describe_fingerprint
from jaxrw.runs.json_files import UnusableFileError, read_object, write_json
from jaxrw.system.errors import UserError

NAME = "dataset.json"
_EXTRA = "extra.json"


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
    path = workdir / _EXTRA
    if path.exists() and read_object(path).get("sha256") != fingerprint:
        raise UserError(
            f"{flag} {workdir} belongs to other extra images; choose the extra.path that has its images, or another "
            "place"
        )


def keep_extra(workdir: pathlib.Path, fingerprint: str) -> None:
    """Writes the fingerprint of the extra images of a run that has not begun; checks it for others.

    Raises:
      UserError: the run saw others, or its extra.json cannot be used.
      RunError: extra.json cannot be written.
    """
    try:
        check_extra(workdir, fingerprint, flag="--workdir")
    except UnusableFileError as error:
        raise UserError(f"--workdir {workdir} cannot be used: {error}; choose another place") from error
    # Nobody knows which ones a version without these fingerprints saw.
    if not (workdir / _EXTRA).exists() and not (workdir / "checkpoints").exists():
        write_json(workdir / _EXTRA, {"sha256": fingerprint})


def _read_file(path: pathlib.Path) -> Fingerprint:
    fingerprint = read_object(path)
    try:
        describe_fingerprint(fingerprint)
    except (LookupError, TypeError, ValueError) as error:
        raise UnusableFileError(f"{path.name} is no fingerprint of images") from error
    return fingerprint
