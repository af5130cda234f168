"""Image data sets by `load`, extra training images by `load_extra`, corrupted test images by `load_corruptions`."""

import difflib
import os
import pathlib

import numpy as np

from jaxrw.data import digits, folder, images, splits
from jaxrw.data.corruptions import load as load_corruptions
from jaxrw.data.dataset import Dataset, Part, Source, Split, check, directory
from jaxrw.data.extra import ExtraImages
from jaxrw.data.extra import load as load_extra
from jaxrw.data.fingerprint import Fingerprint, describe_fingerprint
from jaxrw.system.errors import UserError

# Which images serve for testing, see `load`.
TEST_SPLITS = ("test", "validation")

__all__ = [
    "TEST_SPLITS",
    "Dataset",
    "ExtraImages",
    "Fingerprint",
    "Split",
    "describe_fingerprint",
    "load",
    "load_corruptions",
    "load_extra",
]


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    train_size: int | None = None,
    validation_size: int = 0,
    validation_share: float | None = None,
    test_size: int | None = None,
    test_split: str = "test",
    downscale: int = 1,
) -> Dataset:
    """Loads the training, validation and test images of a data set.

    The choice of images depends on the sizes alone, see `splits`: `validation_size` of the training images are held
    out, `train_size` of the others are taken, and `test_size` of the test images. Only these are decoded.

    Args:
      name: "digits" (needs no file), "folder" (`DATA_DIR/train/CLASS/*.png` and likewise test), "cifar10" or
        "cifar100" (downloaded unless in `data_dir`), or any image-classification set, "set" or "set/config", that
        tensorflow-datasets has prepared in `data_dir` as array_record. TensorFlow is never needed. If a prepared set
        has no test split, its validation split serves for testing.
      data_dir: directory of the data sets. None: $TFDS_DATA_DIR or ~/tensorflow_datasets, as in tensorflow-datasets.
      train_size: at least 1. None: all but the validation images.
      validation_size: at least 0 and less than the number of training images.
      validation_share: share in (0, 1) of all training images that is held out instead, rounded; None: no share.
      test_size: at least 1. None: all test images.
      test_split: "test", or "validation": the validation images serve for testing too, so that constants of a method
        can be chosen under any attack while nobody looks at a test image.
      downscale: side of the squares of pixels that are replaced with their mean, at least 1.

    Returns:
      A Dataset of uint8 images [N, H, W, C] in 0..255 and int32 labels [N] in 0..K-1, with K >= 2 classes, H, W >= 8
      and C = 1 or 3.

    Raises:
      UserError: the set does not exist, is damaged or unsuitable, or has fewer images than a size asks for.
      ValueError: no such `test_split`.

    >>> data = load("digits", train_size=1000, validation_size=100)
    >>> data.train.images.shape, len(data.validation.labels), len(data.test.labels), data.num_classes
    ((1000, 8, 8, 1), 100, 360, 10)
    """
    if test_split not in TEST_SPLITS:
        raise ValueError(f"test_split is {test_split!r}; choose one of {', '.join(TEST_SPLITS)}")
    splits.check_sizes(train_size=train_size, validation_size=validation_size, test_size=test_size)
    source = _find(name, data_dir)
    held_out_by = f"validation_size={validation_size}"
    if validation_share is not None:
        validation_size = round(validation_share * source.train.size)
        held_out_by = f"validation_share={validation_share}"
    train, validation = splits.train_and_validation(
        source.train.size, train_size=train_size, validation_size=validation_size, held_out_by=held_out_by
    )
    # In one call, because a prepared set reads the ids of all of its records each time.
    both = _read(source.train, np.concatenate([validation, train]), downscale, name)
    held_out = Split(both.images[:validation_size], both.labels[:validation_size])
    if test_split == "validation":
        test = _first(held_out, test_size)
    else:
        test = _read(source.test, splits.test(source.test.size, test_size=test_size), downscale, name)
    dataset = Dataset(
        train=Split(both.images[validation_size:], both.labels[validation_size:]),
        validation=held_out,
        test=test,
        num_classes=len(source.class_names),
        class_names=source.class_names,
    )
    return check(name, dataset)


def _find(name: str, data_dir: str | os.PathLike[str] | None) -> Source:
    """Returns the named set without reading its images; downloads and prepares CIFAR if necessary."""
    if name == "digits":
        return digits.source()
    if name == "folder":
        return folder.source(data_dir)
    # They take two seconds to import, which digits and folders need not wait for.
    from jaxrw.data import cifar, prepared

    root = directory(data_dir or prepared.default_directory())
    path = prepared.find(name, root)
    if path is None and name in cifar.ARCHIVES:
        path = cifar.prepare(name, root, archive=cifar.ARCHIVES[name])
    if path is None:
        raise _unknown(name, root)
    return prepared.source(name, path)


def _read(part: Part, chosen: np.ndarray, downscale: int, name: str) -> Split:
    split = part.read(chosen)
    try:
        return Split(images.downscale(split.images, downscale), split.labels)
    except ValueError as error:
        raise UserError(f"dataset.downscale={downscale}: {error} (dataset.name={name!r})") from error


def _first(held_out: Split, test_size: int | None) -> Split:
    """Returns the first `test_size` of the validation images, all if it is None."""
    if not len(held_out.labels):
        raise UserError("dataset.test_split='validation': there are no validation images")
    splits.check_test_size(len(held_out.labels), test_size=test_size, kind="validation")
    return Split(held_out.images[:test_size], held_out.labels[:test_size])


def _unknown(name: str, root: pathlib.Path) -> UserError:
    from jaxrw.data import cifar, prepared

    always, there = ["digits", "folder", *cifar.ARCHIVES], list(prepared.find_all(root))
    close = difflib.get_close_matches(str(name), always + there, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    return UserError(
        f"dataset.name={name!r}: unknown{guess}; choose one of {', '.join(always)}, or a set prepared by "
        f"tensorflow-datasets in {root}, which has {', '.join(there) or 'none'}"
    )
