"""What every source gives, and what is checked of it before anything is trained on it."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

import chex
import numpy as np

from jaxrw.system.errors import UserError

# A ResNet halves the sides three times, so this is the least that leaves it a pixel.
MIN_SIDE = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images with values in 0..255 and their classes in 0..K-1.

    Attributes:
      images: uint8 [N, H, W, C], C = 1 (grey) or 3 (RGB).
      labels: int32 [N].
    """

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """The images of a run, all of one shape [H, W, C]; `validation` may be empty (N = 0)."""

    train: Split
    validation: Split
    test: Split
    num_classes: int
    class_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Part:
    """The training or the test images of a source: how many, and a reader of chosen ones.

    `read` takes indices into the canonical order, int [n], and gives a Split of these n in that sequence.
    A reader, so that a run on 1,000 images does not decode a million.
    """

    size: int
    read: Callable[[np.ndarray], Split]


@dataclasses.dataclass(frozen=True)
class Source:
    """A set that has been found, nothing of it decoded yet; `class_names` has one name a class."""

    class_names: tuple[str, ...]
    train: Part
    test: Part


def directory(data_dir: str | os.PathLike) -> pathlib.Path:
    """The directory a user has named, with ~ expanded; it need not exist.

    Raises:
      UserError: if it cannot be looked into.
    """
    try:
        path = pathlib.Path(data_dir).expanduser()
        path.is_dir()
    except (OSError, RuntimeError) as error:  # RuntimeError: the home of an unknown user
        raise UserError(
            f"dataset.data_dir={str(data_dir)!r}: cannot be looked into ({reason(error)})"
        ) from error
    return path


def reason(error: BaseException) -> str:
    """What an error says, on one line: a user's mistake is told in one."""
    return " ".join(str(error).split()) or type(error).__name__


def check(name: str, dataset: Dataset) -> Dataset:
    """Returns `dataset` if every source's promises hold: at least 2 classes, labels in 0..K-1, H and W >= 8.

    Raises:
      UserError: if the images or labels are such that no run can use them.
    """
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
                f"dataset.name={name!r}: {title} images are {_sides(split.images.shape[1:])} "
                f"and training images {_sides(shape)}, but all must have one size"
            )
        _check_labels(name, split.labels, title=title, num_classes=dataset.num_classes)
    if min(shape[:2]) < MIN_SIDE:
        raise UserError(
            f"dataset.name={name!r}: images are {_sides(shape)}, but at least {MIN_SIDE}x{MIN_SIDE} is needed"
        )
    if dataset.num_classes < 2:
        raise UserError(f"dataset.name={name!r}: {dataset.num_classes} class, but at least 2 are needed")
    return dataset


def _check_labels(name: str, labels: np.ndarray, *, title: str, num_classes: int) -> None:
    """A label of -1 trains with a plausible loss and one of K gives NaN, so neither may pass."""
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise UserError(
            f"dataset.name={name!r}: {wrong.size} {title} labels are outside 0..{num_classes - 1}, "
            f"the first is {wrong[0]}; a set without labels cannot be used"
        )


def _sides(shape: tuple[int, ...]) -> str:
    """Height x width x channels."""
    return "x".join(str(side) for side in shape)
