"""A user's own images: `<data_dir>/train/<class>/*.png|jpg|jpeg` and `<data_dir>/test/<class>/*`."""

import functools
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from jaxrw.data import images
from jaxrw.data.dataset import Part, Source, Split, directory, reason
from jaxrw.system.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg")


def source(data_dir: str | os.PathLike | None) -> Source:
    """Classes are the directories below `train`, sorted by name; canonical order is by class, then file name.

    Images are grey if every file is stored grey, otherwise RGB; to know that, and that all have one size, the
    header of every file is read, of those not chosen too. Hidden files and other endings are passed over.

    Raises:
      UserError: if the directories are not as above, classes differ, or a file is odd.
    """
    if data_dir is None:
        raise UserError(
            "dataset.data_dir=None: dataset.name='folder' needs a directory with train/ and test/ in it"
        )
    root = directory(data_dir)
    field = f"dataset.data_dir={str(data_dir)!r}"
    try:
        train, test = (_files(root / part, field=field) for part in ("train", "test"))
    except OSError as error:
        raise UserError(f"{field}: cannot be read ({reason(error)})") from error
    if train.keys() != test.keys():
        raise UserError(
            f"{field}: {_difference(train.keys(), test.keys())}; train and test must have the same classes"
        )
    if len(train) < 2:
        raise UserError(
            f"{field}: {root / 'train'} has {len(train)} class directories, but at least 2 are needed"
        )
    channels = _channels(
        [file for part in (train, test) for files in part.values() for file in files], field=field
    )
    return Source(tuple(train), *(_part(part, channels=channels, field=field) for part in (train, test)))


def _files(part: pathlib.Path, *, field: str) -> dict[str, list[pathlib.Path]]:
    """The image files of each class, both sorted by name."""
    if not part.is_dir():
        raise UserError(
            f"{field}: there is no directory {part}; expected are train/<class>/ and test/<class>/"
        )
    classes = sorted(path for path in part.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {path.name: sorted(filter(_is_image, path.iterdir())) for path in classes}
    for name, files in found.items():
        if not files:
            raise UserError(
                f"{field}: {part / name} has no image, its files must end in {', '.join(ENDINGS)}"
            )
    return found


def _is_image(path: pathlib.Path) -> bool:
    """By its ending, in either case; the "._" files of some systems are hidden, not images."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()


def _difference(train: Sequence[str], test: Sequence[str]) -> str:
    """What one part has and the other has not."""
    extra = [
        f"{', '.join(sorted(set(a) - set(b)))} only in {part}"
        for a, b, part in ((train, test, "train"), (test, train, "test"))
        if set(a) - set(b)
    ]
    return " and ".join(extra)


def _channels(files: Sequence[pathlib.Path], *, field: str) -> int:
    """1 if all files are grey, else 3; refuses the first that is unreadable or of another size."""
    most, first = 1, None
    for file in files:
        try:
            with file.open("rb") as opened:
                *size, channels = images.probe(opened)
        except (OSError, ValueError) as error:
            raise UserError(f"{field}: {file} cannot be used: {error}") from error
        first = first or size
        if size != first:
            raise UserError(f"{field}: {images.odd_size(str(file), size, str(files[0]), first)}")
        most = max(most, channels)
    return most


def _part(classes: dict[str, list[pathlib.Path]], *, channels: int, field: str) -> Part:
    """One of the two parts, its images still in their files."""
    files = [file for found in classes.values() for file in found]
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(found) for found in classes.values()])
    return Part(len(files), functools.partial(_read, files, labels, channels=channels, field=field))


def _read(
    files: Sequence[pathlib.Path], labels: np.ndarray, chosen: np.ndarray, *, channels: int, field: str
) -> Split:
    """The chosen images, in the order chosen."""
    encoded = ((str(files[i]), files[i].read_bytes()) for i in chosen)
    return Split(
        images.decode_all(encoded, count=len(chosen), channels=channels, field=field), labels[chosen]
    )
