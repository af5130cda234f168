"""A user's own images: `<data_dir>/train/<class>/*.png|jpg|jpeg` and `<data_dir>/test/<class>/*`."""

import os
import pathlib

import numpy as np

from jaxrw.data import images
from jaxrw.data.dataset import Part, Source, Split, directory
from jaxrw.system.errors import UserError, one_line

ENDINGS = (".png", ".jpg", ".jpeg")


def source(data_dir: str | os.PathLike[str] | None) -> Source:
    """Returns the images below `data_dir`, in the order of their classes and then of their file names.

    Classes are the directories below `train`, sorted by name. Images are gray if every file is stored gray, otherwise
    RGB. To know that, and to check that all images have one size, the header of every file is read. Hidden files and
    files with other endings are ignored.

    Raises:
      UserError: a directory is missing, train and test have different classes, or a file cannot be used.
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
        raise UserError(f"{field}: cannot be read ({one_line(error)})") from error
    if train.keys() != test.keys():
        only = [
            f"{', '.join(sorted(names))} only in {part}"
            for names, part in ((train.keys() - test, "train"), (test.keys() - train, "test"))
            if names
        ]
        raise UserError(f"{field}: {' and '.join(only)}; train and test must have the same classes")
    if len(train) < 2:
        raise UserError(
            f"{field}: {root / 'train'} has {len(train)} class directories, but at least 2 are needed"
        )
    channels = _channels([file for files in (*train.values(), *test.values()) for file in files], field=field)
    return Source(tuple(train), *(_part(part, channels=channels, field=field) for part in (train, test)))


def _files(part: pathlib.Path, *, field: str) -> dict[str, list[pathlib.Path]]:
    """Returns the image files of each class; classes and files are sorted by name."""
    if not part.is_dir():
        raise UserError(
            f"{field}: there is no directory {part}; expected are train/<class>/ and test/<class>/"
        )
    classes = sorted(path for path in part.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = {path.name: sorted(filter(_is_image, path.iterdir())) for path in classes}
    for name in files:
        if not files[name]:
            raise UserError(
                f"{field}: {part / name} has no image, its files must end in {', '.join(ENDINGS)}"
            )
    return files


def _is_image(path: pathlib.Path) -> bool:
    # Some systems write hidden "._" files beside images.
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()


def _channels(files: list[pathlib.Path], *, field: str) -> int:
    """Returns 1 if all files are gray, else 3; raises UserError for the first unreadable or differently sized file."""
    shapes = []
    for file in files:
        try:
            with file.open("rb") as opened:
                shapes.append(images.probe(opened))
        except (OSError, ValueError) as error:
            raise UserError(f"{field}: {file} cannot be used: {error}") from error
        images.check_size(str(file), shapes[-1][:2], str(files[0]), shapes[0][:2], field=field)
    return max(channels for _, _, channels in shapes)


def _part(classes: dict[str, list[pathlib.Path]], *, channels: int, field: str) -> Part:
    """Returns the images of one directory without decoding them."""
    files = [file for in_class in classes.values() for file in in_class]
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(files) for files in classes.values()])

    def read(chosen: np.ndarray) -> Split:
        encoded = ((str(files[i]), files[i].read_bytes()) for i in chosen)
        pixels = images.decode_all(encoded, count=len(chosen), channels=channels, field=field)
        return Split(pixels, labels[chosen])

    return Part(len(files), read)
