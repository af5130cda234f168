"""Accuracy of a model under an attack, over every example of a split."""

import functools

import jax
import numpy as np

from jaxrw.training.step import Images, attack_examples, count_correct, on_all_devices, replicate, shard


def create(model, attack):
    """Counter of correct examples under `attack`, compiled once and shared by all checkpoints of a model."""
    return on_all_devices(functools.partial(count_correct, model=model, attack=attack), num_split=2)


def create_keeper(model, attack):
    """Function of the adversarial images and their correctness, compiled once, for `measure_and_keep`."""
    step = functools.partial(attack_examples, model=model, attack=attack)
    return on_all_devices(step, num_split=1, split_outputs=True)


def measure_and_keep(keeper, variables, key, images, labels, *, batch_size, progress=lambda number: None):
    """Accuracy in percent, adversarial images [N, H, W, C] float32 in [0, 1], whether each is correct [N] bool.

    The arguments are those of `measure`, with `keeper` from `create_keeper`.
    """
    kept = []
    with jax.default_matmul_precision("highest"):
        for index, mask in _batches(len(labels), batch_size):
            outputs = keeper(variables, key, images, labels, shard(index))
            kept.append([np.asarray(output).reshape(-1, *output.shape[2:])[mask] for output in outputs])
            progress(int(mask.sum()))
    adversarial, correct = map(np.concatenate, zip(*kept, strict=True))
    return 100 * int(correct.sum()) / len(correct), adversarial, correct


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
    correct = []
    with jax.default_matmul_precision("highest"):
        for index, mask in _batches(len(labels), batch_size):
            correct.append(counter(variables, key, images, labels, shard(index), shard(mask)))
            progress(int(mask.sum()))
    return 100 * sum(int(count) for count in correct) / len(labels)


def _batches(size, batch_size):
    """Indices and masks of batches of one size that the devices share; the last one repeats the last example."""
    devices = jax.device_count()
    batch_size = -(-min(batch_size, size) // devices) * devices
    for start in range(0, size, batch_size):
        index = np.arange(start, start + batch_size, dtype=np.int32)
        yield np.minimum(index, size - 1), index < size


def replicated(split):
    """`Images` and labels of a split, placed on every device."""
    return replicate((Images.of(split.images), split.labels))
