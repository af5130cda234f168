"""Sets of images to train and test on; `load` is the only door."""

import difflib
import os
import pathlib

import numpy as np

from jaxrw.data import cifar, digits, folder, images, prepared, splits
from jaxrw.data.dataset import Dataset, Source, Split, check, directory
from jaxrw.system.errors import UserError

__all__ = ["Dataset", "Split", "load"]


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    train_size: int | None = None,
    validation_size: int = 0,
    test_size: int | None = None,
    downscale: int = 1,
) -> Dataset:
    """Images with values in 0..255, uint8 [N, H, W, C], and labels in 0..K-1, int32 [N].

    Which images depends on the sizes alone (see `splits`): `validation_size` of the training images are held
    out, then `train_size` (None: all the rest) are taken, and `test_size` (None: all) of the test images.
    Only these are decoded.

    Args:
      name: "digits" (needs no file), "folder" (`data_dir`/train/<class>/*.png, likewise test), "cifar10" or
        "cifar100" (downloaded if not in `data_dir`), or any image-classification set, "set" or "set/config",
        that tensorflow-datasets has prepared in `data_dir` as array_record. TensorFlow is never needed. A
        prepared set without a test split is tested on its validation split.
      data_dir: where sets lie; None: as tensorflow-datasets, $TFDS_DATA_DIR or ~/tensorflow_datasets.
      train_size: at least 1, or None.
      validation_size: at least 0, and less than there are training images.
      test_size: at least 1, or None.
      downscale: at least 1; squares of so many pixels a side become one, their mean.

    Returns:
      A Dataset with K >= 2 classes, H, W >= 8 and C = 1 or 3.

    Raises:
      UserError: if there is no such set, it is damaged or unsuitable, or a size is more than it has.

    >>> data = load("digits", train_size=1000, validation_size=100)
    >>> data.train.images.shape, len(data.validation.labels), len(data.test.labels), data.num_classes
    ((1000, 8, 8, 1), 100, 360, 10)
    """
    splits.check_sizes(train_size=train_size, validation_size=validation_size, test_size=test_size)
    source = _find(name, data_dir)
    train, held_out = splits.train_and_validation(
        source.train.size, train_size=train_size, validation_size=validation_size
    )
    test = _smaller(name, source.test.read(splits.test(source.test.size, test_size=test_size)), downscale)
    both = _smaller(name, source.train.read(np.concatenate([held_out, train])), downscale)
    dataset = Dataset(
        train=Split(both.images[validation_size:], both.labels[validation_size:]),
        validation=Split(both.images[:validation_size], both.labels[:validation_size]),
        test=test,
        num_classes=len(source.class_names),
        class_names=source.class_names,
    )
    return check(name, dataset)


def _find(name: str, data_dir: str | os.PathLike | None) -> Source:
    """The named set, prepared if it has to be, but not read."""
    if name == "digits":
        return digits.source()
    if name == "folder":
        return folder.source(data_dir)
    root = directory(data_dir or prepared.default_directory())
    path = prepared.find(name, root)
    if path is None and name in cifar.ARCHIVES:
        path = cifar.prepare(name, root, archive=cifar.ARCHIVES[name])
    if path is None:
        raise _unknown(name, root)
    return prepared.source(name, path)


def _smaller(name: str, split: Split, downscale: int) -> Split:
    """The split with images `downscale` times smaller in height and width."""
    try:
        return Split(images.downscale(split.images, downscale), split.labels)
    except ValueError as error:
        raise UserError(f"dataset.downscale={downscale}: {error} (dataset.name={name!r})") from error


def _unknown(name: str, root: pathlib.Path) -> UserError:
    """What there is instead of the set named."""
    always, found = ["digits", "folder", *cifar.ARCHIVES], list(prepared.find_all(root))
    close = difflib.get_close_matches(str(name), always + found, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    return UserError(
        f"dataset.name={name!r}: unknown{guess}; choose one of {', '.join(always)}, or a set prepared by "
        f"tensorflow-datasets in {root}, which has {', '.join(found) if found else 'none'}"
    )
