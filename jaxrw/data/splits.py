"""Which images are validated, trained and tested on: index arithmetic, no pixels.

The choice depends on the sizes alone. It does not depend on `config.seed`, so every seed and every method is
validated on the same images, and a larger `train_size` only adds images.
"""

import numpy as np

from jaxrw.system.errors import UserError

# Changing it would silently make new runs incomparable with all earlier ones.
SEED = 0


def order(count: int) -> np.ndarray:
    """A fixed permutation of 0..count-1, int64 [count].

    From the legacy RandomState, because NumPy has frozen its streams for ever; those of the newer Generator
    may change between releases, and the validation images with them.
    """
    return np.random.RandomState(SEED).permutation(count)


def check_sizes(*, train_size: int | None, validation_size: int, test_size: int | None) -> None:
    """Raises UserError for a size that no set could satisfy, so that nothing is downloaded in vain."""
    for field, size in (("train_size", train_size), ("test_size", test_size)):
        if size is not None and size <= 0:
            raise UserError(f"dataset.{field}={size}: must be at least 1, or None for all images")
    if validation_size < 0:
        raise UserError(
            f"dataset.validation_size={validation_size}: must be at least 0 (0: no validation images)"
        )


def train_and_validation(
    available: int, *, train_size: int | None, validation_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint indices in 0..available-1: to train on, [train_size], and held out, [validation_size].

    Of the permuted images the first `validation_size` are held out, the next `train_size` (None: all the
    rest) are trained on. So those held out do not depend on `train_size`, and a larger one only adds images.

    Raises:
      UserError: if `available` images are too few.
    """
    if validation_size >= available:
        raise UserError(
            f"dataset.validation_size={validation_size}: leaves nothing to train on, "
            f"there are {available} training images; choose at most {available - 1}"
        )
    rest = available - validation_size
    if train_size is not None and train_size > rest:
        beside = f" beside dataset.validation_size={validation_size}" if validation_size else ""
        raise UserError(
            f"dataset.train_size={train_size}: only {rest} training images are available{beside}; "
            f"choose at most {rest}, or None for all"
        )
    held_out, train = np.split(order(available), [validation_size])
    return train[:train_size], held_out


def test(available: int, *, test_size: int | None) -> np.ndarray:
    """Indices in 0..available-1 to test on: all in canonical order (None), or the first of the permuted ones.

    Raises:
      UserError: if `available` images are too few.
    """
    if test_size is None:
        return np.arange(available)
    if test_size > available:
        raise UserError(
            f"dataset.test_size={test_size}: only {available} test images are available; "
            f"choose at most {available}, or None for all"
        )
    return order(available)[:test_size]
