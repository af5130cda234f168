"""Types of data sets, and what is checked before any training."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable

import chex
import numpy as np

from jaxrw.data.fingerprint import Fingerprint, compute_fingerprint
from jaxrw.system.errors import UserError, one_line

# A ResNet halves the height and width three times; at least one pixel must be left.
MIN_SIDE = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and their classes.

    Attributes:
      images: uint8 [N, H, W, C] in 0..255, C = 1 (gray) or 3 (RGB).
      labels: int32 [N] in 0..K-1.
    """

    images: np.ndarray
    labels: np.ndarray

    @property
    def chance(self) -> float:
        """Accuracy in percent of always answering the most frequent class; N must be at least 1."""
        return 100 * int(np.bincount(self.labels).max()) / len(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """The images of a run, all of one shape [H, W, C].

    Attributes:
      train: images to train on.
      validation: images that choose the best checkpoint; may be empty (N = 0).
      test: images to evaluate on.
      num_classes: K.
      class_names: name of each class, in the order of the labels.
    """

    train: Split
    validation: Split
    test: Split
    num_classes: int
    class_names: tuple[str, ...]

    @functools.cached_property
    def fingerprint(self) -> Fingerprint:
        """What identifies these images and labels, see `compute_fingerprint`."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return compute_fingerprint(self.class_names, splits)


@dataclasses.dataclass(frozen=True)
class Part:
    """The training or test images of a source, not read yet, so that a small run decodes few of them.

    Attributes:
      size: number of images.
      read: maps indices into the canonical order, int [n], to a Split of these n images in that order.
    """

    size: int
    read: Callable[[np.ndarray], Split]


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set whose images have not been read yet; `class_names` has one name per class."""

    class_names: tuple[str, ...]
    train: Part
    test: Part


def directory(data_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the directory that a user named, with ~ expanded; it need not exist.

    Raises:
      UserError: the path cannot be looked up.
    """
    try:
        path = pathlib.Path(data_dir).expanduser()
        path.is_dir()
    except (OSError, RuntimeError) as error:  # RuntimeError: the home of an unknown user
        raise UserError(
            f"dataset.data_dir={str(data_dir)!r}: cannot be looked into ({one_line(error)})"
        ) from error
    return path


def check(name: str, dataset: Dataset) -> Dataset:
    """Returns `dataset` if it has at least 2 classes, labels in 0..K-1, and images of one shape with H, W >= 8.

    Labels outside of 0..K-1 must not pass: -1 would train with a plausible loss, and K would give NaN.

    Raises:
      UserError: no run can use these images or labels.
    """
    field = f"dataset.name={name!r}"
    shape = dataset.train.images.shape[1:]
    for title, split in (
        ("training", dataset.train),
        ("validation", dataset.validation),
        ("test", dataset.test),
    ):
        chex.assert_rank(split.images, 4)
        chex.assert_type([split.images, split.labels], [np.uint8, np.int32])
        chex.assert_shape(split.labels, split.images.shape[:1])
        if split.images.shape[1:] != shape:
            raise UserError(
                f"{field}: {title} images are {sides(split.images.shape[1:])} "
                f"and training images {sides(shape)}, but all must have one size"
            )
        wrong = split.labels[(split.labels < 0) | (split.labels >= dataset.num_classes)]
        if wrong.size:
            raise UserError(
                f"{field}: {wrong.size} {title} labels are outside 0..{dataset.num_classes - 1}, "
                f"the first is {wrong[0]}; a set without labels cannot be used"
            )
    if min(shape[:2]) < MIN_SIDE:
        raise UserError(f"{field}: images are {sides(shape)}, but at least {MIN_SIDE}x{MIN_SIDE} is needed")
    if dataset.num_classes < 2:
        raise UserError(f"{field}: {dataset.num_classes} class, but at least 2 are needed")
    return dataset


def sides(shape: tuple[int, ...]) -> str:
    """Returns the sides of an image, as 32x32x3."""
    return "x".join(str(side) for side in shape)


def check_labels(labels: np.ndarray, *, num_classes: int, where: str) -> None:
    """Raises UserError, whose message begins with `where`, unless labels [N], at least one, are in 0..num_classes-1."""
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(f"{where} are {labels.min()}..{labels.max()}; must be in 0..{num_classes - 1}")


def describe(array: np.ndarray) -> str:
    """Returns the type and shape of an array, as uint8 [10, 32, 32, 3]."""
    return f"{array.dtype} {list(array.shape)}"
