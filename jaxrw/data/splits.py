"""Chooses training, validation and test images by their indices.

The choice depends on the sizes alone and not on `config.seed`, so that every seed and every method is validated on the
same images. A larger `train_size` only adds images.
"""

import numpy as np

from jaxrw.system.errors import UserError

# Another seed would silently make new runs incomparable with earlier ones.
SEED = 0


def order(count: int) -> np.ndarray:
    """Returns a fixed permutation of 0..count-1, int64 [count].

    It is drawn from NumPy's legacy RandomState, whose streams are frozen. Those of Generator may change between
    releases, and the validation images with them.
    """
    return np.random.RandomState(SEED).permutation(count)


def check_sizes(*, train_size: int | None, validation_size: int, test_size: int | None) -> None:
    """Raises UserError for a size that no data set satisfies, before anything is downloaded."""
    for field, size in (("train_size", train_size), ("test_size", test_size)):
        if size is not None and size <= 0:
            raise UserError(f"dataset.{field}={size}: must be at least 1, or None for all images")
    if validation_size < 0:
        raise UserError(
            f"dataset.validation_size={validation_size}: must be at least 0 (0: no validation images)"
        )


def train_and_validation(
    available: int, *, train_size: int | None, validation_size: int, held_out_by: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns disjoint indices in 0..available-1 of training and of validation images.

    The first `validation_size` of the permuted images are held out for validation, so that they do not depend on
    `train_size`. The next `train_size` are trained on, or all others if it is None.

    Args:
      available: number of training images.
      train_size: at least 1; None: all that are left.
      validation_size: at least 0.
      held_out_by: field and value that ask for them, for errors; None: `validation_size`.

    Returns:
      ([train_size], [validation_size]), both int64.

    Raises:
      UserError: `available` is too small.
    """
    held_out_by = held_out_by or f"validation_size={validation_size}"
    if validation_size >= available:
        raise UserError(
            f"dataset.{held_out_by}: leaves nothing to train on, "
            f"there are {available} training images; choose at most {available - 1}"
        )
    rest = available - validation_size
    if train_size is not None and train_size > rest:
        beside = f" beside dataset.{held_out_by}" if validation_size else ""
        raise UserError(
            f"dataset.train_size={train_size}: only {rest} training images are available{beside}; "
            f"choose at most {rest}, or None for all"
        )
    validation, train = np.split(order(available), [validation_size])
    return train[:train_size], validation


def test(available: int, *, test_size: int | None) -> np.ndarray:
    """Returns indices in 0..available-1 of the test images: the first of the permuted ones, or all in order if None.

    Raises:
      UserError: `available` is too small.
    """
    check_test_size(available, test_size=test_size)
    return np.arange(available) if test_size is None else order(available)[:test_size]


def check_test_size(available: int, *, test_size: int | None, kind: str = "test") -> None:
    """Raises UserError if more images of a kind are asked for than there are."""
    if test_size is not None and test_size > available:
        raise UserError(
            f"dataset.test_size={test_size}: only {available} {kind} images are available; "
            f"choose at most {available}, or None for all"
        )
