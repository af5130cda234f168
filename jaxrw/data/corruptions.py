"""Corrupted test images, in the layout of CIFAR-10-C: NAME.npy for each corruption, and labels.npy for all of them."""

import os
import pathlib
from collections.abc import Iterator

import numpy as np

from jaxrw.data import images, splits
from jaxrw.data.dataset import Split, check_labels, describe, sides
from jaxrw.system.errors import UserError, one_line

_FIELD = "evaluation.corruptions_dir"
_LABELS = "labels.npy"


def load(
    path: str | os.PathLike[str],
    *,
    shape: tuple[int, ...],
    num_classes: int,
    size: int | None = None,
    downscale: int = 1,
) -> Iterator[tuple[str, Split]]:
    """Checks the files, and returns an iterator over the name and the images of each corruption, sorted by name.

    The files are those of Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
    perturbations", 2019, whose severities follow one another. Only one of them is in memory at a time.

    Args:
      path: a directory with labels.npy, integer [N], and files of images, uint8 [N, H, W, C].
      shape: (H, W, C) of the test images, after `downscale`.
      num_classes: K; labels are in 0..K-1.
      size: number of images that are taken of each file, the same ones of each; None, or more than N: all.
      downscale: see `jaxrw.data.load`.

    Raises:
      UserError: a file is missing, or its images or labels do not fit.
    """
    directory = pathlib.Path(path).expanduser()
    labels = _read(directory / _LABELS)
    if labels.ndim != 1 or not labels.size or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{_FIELD}: {directory / _LABELS} has {describe(labels)}; must be one integer for each image"
        )
    check_labels(labels, num_classes=num_classes, where=f"{_FIELD}: labels in {directory / _LABELS}")
    files = sorted(file for file in directory.glob("*.npy") if file.name != _LABELS)
    if not files:
        raise UserError(f"{_FIELD} is {str(path)!r}; there is no .npy file of images in it")
    wanted = (shape[0] * downscale, shape[1] * downscale, shape[2])
    for file in files:
        pixels = _read(file)
        if pixels.ndim != 4 or pixels.dtype != np.uint8 or len(pixels) != len(labels):
            raise UserError(
                f"{_FIELD}: {file} has {describe(pixels)}; must be uint8 [{len(labels)}, H, W, C], an image a label"
            )
        if pixels.shape[1:] != wanted:
            raise UserError(
                f"{_FIELD}: images in {file} are {sides(pixels.shape[1:])}; must be {sides(wanted)}, as the test images"
            )
    taken = None if size is None else min(size, len(labels))
    chosen = np.sort(splits.test(len(labels), test_size=taken))
    chosen_labels = labels[chosen].astype(np.int32)
    return (
        (file.stem, Split(images.downscale(_read(file)[chosen], downscale), chosen_labels)) for file in files
    )


def _read(file: pathlib.Path) -> np.ndarray:
    """Returns the array of a .npy file, which stays on the disk."""
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{_FIELD}: {file} cannot be used ({one_line(error)}); the directory must have labels.npy and a "
            ".npy file of images for each corruption, as CIFAR-10-C"
        ) from error
