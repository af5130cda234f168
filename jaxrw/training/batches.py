"""The batches of an epoch: which images they hold, and the extra ones, which are read while the step before runs."""

import concurrent.futures
from collections.abc import Iterator

import jax
import numpy as np

from jaxrw.data import ExtraImages
from jaxrw.system import hosts
from jaxrw.training.step import Extra, over_devices, shard

# Indices of extra images begin here, so that none is that of a training image.
_FIRST_EXTRA = 2**30


def epoch_order(key: jax.Array, epoch: int, size: int) -> np.ndarray:
    """Returns the order of the training examples in a 0-based epoch: a permutation of 0..size-1, int32."""
    return np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), size), np.int32)


def extra_choice(key: jax.Array, epoch: int, shape: tuple[int, int], size: int) -> np.ndarray:
    """Returns the extra images of each step of a 0-based epoch, drawn with replacement: int32 in 0..size-1."""
    # Another key than that of the order of the same epoch.
    key = jax.random.fold_in(jax.random.fold_in(key, _FIRST_EXTRA), epoch)
    return np.asarray(jax.random.randint(key, shape, 0, size), np.int32)


def batches(
    key: jax.Array,
    epoch: int,
    *,
    size: int,
    batch_size: int,
    steps_per_epoch: int,
    first_step: int = 0,
    extra: ExtraImages | None = None,
    num_extra: int = 0,
) -> Iterator[tuple[np.ndarray, *tuple[Extra, ...]]]:
    """Yields the batches of an epoch, this host's part of each split over its devices, as arguments of the step.

    Args:
      key: PRNG key of the order.
      epoch: 0-based.
      size: number of training images.
      batch_size: of the global batch, extra images included.
      steps_per_epoch: number of batches.
      first_step: number of batches that are left out at the beginning.
      extra: extra images; None: there are none.
      num_extra: how many of them are in every batch.

    Yields:
      [D, b] indices into the training images; and with `extra` its images, for D devices each.
    """
    order, own = epoch_order(key, epoch, size), batch_size - num_extra
    indices = (shard(order[step * own :][:own]) for step in range(first_step, steps_per_epoch))
    if extra is None:
        yield from ((index,) for index in indices)
        return
    chosen = extra_choice(key, epoch, (steps_per_epoch, num_extra), extra.size)[first_step:]
    # One thread, because only the next batch is needed.
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        reading = [executor.submit(_read, extra, chosen[0])] if len(chosen) else []
        for number, index in enumerate(indices):
            ready = reading.pop().result()
            if number + 1 < len(chosen):
                reading.append(executor.submit(_read, extra, chosen[number + 1]))
            yield index, ready


def _read(extra: ExtraImages, chosen: np.ndarray) -> Extra:
    local = hosts.local_part(chosen)
    split = extra.read(local)
    return Extra(*map(over_devices, (split.images, split.labels, _FIRST_EXTRA + local)))
