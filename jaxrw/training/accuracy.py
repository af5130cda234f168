"""Accuracy of a model under attacks, over every example of a split."""

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxrw.attacks.types import Attack
from jaxrw.data import Split
from jaxrw.training.step import (
    Images,
    Variables,
    attack_examples,
    find_correct,
    on_all_devices,
    replicate,
    shard,
)


class Measurement(NamedTuple):
    """Examples that a model classifies correctly under an attack.

    Attributes:
      correct: [N] bool, whether each example is classified correctly.
      adversarial: [N, H, W, C] float32 images in [0, 1]; None if they are not kept.
    """

    correct: np.ndarray
    adversarial: np.ndarray | None = None

    @property
    def accuracy(self) -> float:
        """In percent, in [0, 100]."""
        return 100 * int(self.correct.sum()) / len(self.correct)


class Evaluator:
    """Measures checkpoints of a model on one split; each attack is compiled once for all of them.

    Attributes:
      attacks: names of the attacks.
    """

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        key: jax.Array,
        attacks: Mapping[str, Attack],
        *,
        batch_size: int,
        keep_images: bool = False,
    ) -> None:
        """Places the split on every device.

        Args:
          model: Flax module.
          split: at least one example.
          key: PRNG key of the attacks; an example's draw depends on it and on the example's place in the split.
          attacks: by name.
          batch_size: examples over all devices, rounded up to a multiple of their number.
          keep_images: whether measurements hold the adversarial images; on one host only.
        """
        self._images, self._labels = replicated(split)
        self._key = replicate(key)
        self._batch_size, self._keep_images = batch_size, keep_images
        function = attack_examples if keep_images else find_correct
        self.attacks = tuple(attacks)
        self._programs = {
            name: on_all_devices(
                functools.partial(function, model=model, attack=attack),
                num_split=1,
                split_outputs=keep_images,
            )
            for name, attack in attacks.items()
        }

    @property
    def size(self) -> int:
        """Number of examples of the split."""
        return len(self._labels)

    def on(self, split: Split) -> "Evaluator":
        """Returns an evaluator of another split, which shares the compiled programs."""
        other = copy.copy(self)
        other._images, other._labels = replicated(split)
        return other

    def measure(
        self, attack: str, variables: Variables, progress: Callable[[int], object] = lambda number: None
    ) -> Measurement:
        """Attacks every example: the last batch is padded by its last example, never dropped.

        Computed at matmul precision "highest", so that it can be compared with the numbers of others: TPU and GPU would
        round to bfloat16 or TF32 otherwise.

        Args:
          attack: its name.
          variables: the model's, replicated.
          progress: called with the number of examples done after each batch.
        """
        program, found, kept = self._programs[attack], [], []
        with jax.default_matmul_precision("highest"):
            for index, mask in _batches(len(self._labels), self._batch_size):
                arguments = variables, self._key, self._images, self._labels, shard(index)
                if self._keep_images:
                    outputs = program(*arguments)
                    kept.append([np.asarray(array).reshape(-1, *array.shape[2:])[mask] for array in outputs])
                else:
                    found.append(program(*arguments))
                progress(int(mask.sum()))
        if not self._keep_images:
            places, correct = np.concatenate(found), np.zeros(len(self._labels), bool)
            correct[places[places >= 0]] = True
            return Measurement(correct)
        adversarial, correct = map(np.concatenate, zip(*kept, strict=True))
        return Measurement(correct, adversarial)


def replicated(split: Split) -> tuple[Images, jax.Array]:
    """Returns the images and labels of a split, placed on every device."""
    return replicate((Images.of(split.images), split.labels))


def _batches(size: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields indices and masks of equal size for all devices; the last batch repeats the last example."""
    devices = jax.device_count()
    batch_size = -(-min(batch_size, size) // devices) * devices
    for start in range(0, size, batch_size):
        index = np.arange(start, start + batch_size, dtype=np.int32)
        yield np.minimum(index, size - 1), index < size
