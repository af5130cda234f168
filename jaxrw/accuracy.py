"""Accuracy of a model under an attack, over every example of a split."""

import functools

import jax
import numpy as np

from jaxrw.step import Images, count_correct, on_all_devices, replicate, shard


def create(model, attack):
    """Counter of correct examples under `attack`, compiled once and shared by all checkpoints of a model."""
    return on_all_devices(functools.partial(count_correct, model=model, attack=attack), num_split=2)


def measure(counter, variables, key, images, labels, *, batch_size, progress=lambda number: None):
    """Accuracy in percent, in [0, 100], over all examples: the last batch is padded, never dropped.

    Numbers to be compared with others' are computed at matmul precision "highest": TPU and GPU would round to
    bfloat16 or TF32 otherwise.

    Args:
      counter: from `create`.
      variables: the model's, replicated.
      key: PRNG key of the attack; an example's draw depends on it and on the example's place in the split.
      images: `Images`, uint8, replicated.
      labels: [N] int32, replicated.
      batch_size: examples over all devices, rounded up to a multiple of their number.
      progress: called with the number of examples done after each batch.
    """
    size = len(labels)
    devices = jax.local_device_count()
    batch_size = -(-min(batch_size, size) // devices) * devices
    correct = []
    with jax.default_matmul_precision("highest"):
        for start in range(0, size, batch_size):
            index = np.arange(start, start + batch_size, dtype=np.int32)
            mask = index < size
            counts = counter(variables, key, images, labels, shard(np.minimum(index, size - 1)), shard(mask))
            correct.append(counts)
            progress(int(mask.sum()))
    return 100 * sum(int(count) for count in correct) / size


def replicated(split):
    """`Images` and labels of a split, placed on every device."""
    return replicate((Images.of(split.images), split.labels))
