"""More training images, such as generated ones, read from .npz files a few at a time."""

import hashlib
import os
import pathlib
import zipfile
from collections.abc import Iterable, Sequence

import numpy as np

from jaxrw.data import images
from jaxrw.data.dataset import Split, check_labels, describe, sides
from jaxrw.system.errors import UserError, one_line

_FIELD = "extra.path"
_ARRAYS = ("image", "label")

# What NumPy and zipfile raise for files that are no .npz, or damaged ones.
_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


class ExtraImages:
    """Images and labels of several .npz files, one after the other.

    Attributes:
      size: number of images.
      fingerprint: SHA-256 of the checksums that their files hold, which tells them from others.
    """

    def __init__(
        self, parts: Sequence[tuple[np.ndarray, np.ndarray]], downscale: int, fingerprint: str
    ) -> None:
        """Joins parts of images [N, H, W, C] and labels [N]; `downscale` as of `jaxrw.data.load`."""
        self.fingerprint = fingerprint
        self._parts, self._downscale = parts, downscale
        self._ends = np.cumsum([len(labels) for _, labels in parts])
        self.size = int(self._ends[-1])

    def read(self, chosen: np.ndarray) -> Split:
        """Returns the images with indices `chosen`, int [n] in 0..size-1, in that order; they may repeat."""
        first = self._parts[0][0]
        pixels = np.empty((len(chosen), *first.shape[1:]), np.uint8)
        labels = np.empty(len(chosen), np.int32)
        numbers = np.searchsorted(self._ends, chosen, side="right")
        for number in np.unique(numbers):
            part_images, part_labels = self._parts[number]
            here = np.flatnonzero(numbers == number)
            rows = chosen[here] - (self._ends[number] - len(part_labels))
            pixels[here], labels[here] = part_images[rows], part_labels[rows]
        return Split(images.downscale(pixels, self._downscale), labels)


def load(
    path: str | os.PathLike[str], *, shape: tuple[int, ...], num_classes: int, downscale: int = 1
) -> ExtraImages:
    """Opens extra images.

    Images of a file that `numpy.savez` has written stay on the disk, and only those of a batch are read. Those of
    `numpy.savez_compressed` have to fit in memory.

    Args:
      path: a .npz file with `image` uint8 [N, H, W, C] and `label` integer [N], or a directory of such files, which are
        taken in the order of their names.
      shape: (H, W, C) of the training images, after `downscale`.
      num_classes: K; labels are in 0..K-1.
      downscale: see `jaxrw.data.load`.

    Raises:
      UserError: there is no such file, or its images or labels do not fit.
    """
    path = pathlib.Path(path).expanduser()
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{_FIELD} is {str(path)!r}; there is no .npz file in it")
    wanted = (shape[0] * downscale, shape[1] * downscale, shape[2])
    return ExtraImages(
        [_read(file, shape=wanted, num_classes=num_classes) for file in files],
        downscale=downscale,
        fingerprint=_fingerprint(files),
    )


def _fingerprint(files: Iterable[pathlib.Path]) -> str:
    """Returns the SHA-256 of the checksums and sizes of the arrays of .npz files, without reading the arrays."""
    digest = hashlib.sha256()
    for file in files:
        with zipfile.ZipFile(file) as archive:
            for name in _ARRAYS:
                info = archive.getinfo(f"{name}.npy")
                digest.update(f"{name} {info.CRC} {info.file_size}\n".encode())
    return digest.hexdigest()


def _read(file: pathlib.Path, *, shape: tuple[int, ...], num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        pixels, labels = (_member(file, name) for name in _ARRAYS)
        labels = np.array(labels)
    except _DAMAGE as error:
        raise UserError(
            f"{_FIELD}: {file} cannot be used ({one_line(error)}); it must be a .npz file with image uint8 "
            "[N, H, W, C] and label [N]"
        ) from error
    if pixels.ndim != 4 or pixels.dtype != np.uint8:
        raise UserError(f"{_FIELD}: image in {file} is {describe(pixels)}; must be uint8 [N, H, W, C]")
    if pixels.shape[1:] != shape:
        raise UserError(
            f"{_FIELD}: images in {file} are {sides(pixels.shape[1:])}; must be {sides(shape)}, as in training"
        )
    if labels.shape != pixels.shape[:1] or not np.issubdtype(labels.dtype, np.integer) or not labels.size:
        raise UserError(
            f"{_FIELD}: label in {file} is {describe(labels)}; must be one integer for each of {len(pixels)} images"
        )
    check_labels(labels, num_classes=num_classes, where=f"{_FIELD}: labels in {file}")
    return pixels, labels


def _member(file: pathlib.Path, name: str) -> np.ndarray:
    """Returns an array of a .npz file, mapped into memory if it is not compressed."""
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(f"{name}.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            with archive.open(info) as member:
                return np.lib.format.read_array(member, allow_pickle=False)
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, is_fortran, dtype = header(member)
            header_size = member.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    with file.open("rb") as raw:
        # The local header of a member: 30 bytes, of which the last 4 are the lengths of its name and of more fields.
        raw.seek(info.header_offset + 26)
        lengths = int.from_bytes(raw.read(2), "little") + int.from_bytes(raw.read(2), "little")
    offset = info.header_offset + 30 + lengths + header_size
    return np.memmap(file, dtype, "r", offset, shape, "F" if is_fortran else "C")
