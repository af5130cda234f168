"""Accuracy of a model under attacks, over every example of a split."""

import collections
import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

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
          progress: called with the number of examples of each batch when it is done. It may raise to stop.
        """
        program, done = self._programs[attack], []
        running: collections.deque[tuple[Any, np.ndarray]] = collections.deque()
        with jax.default_matmul_precision("highest"):
            for index, mask in _batches(len(self._labels), self._batch_size):
                outputs = program(variables, self._key, self._images, self._labels, shard(index))
                running.append((outputs, mask))
                if len(running) > 1:  # One batch waits on the device while another is computed.
                    done.append(self._finish(*running.popleft(), progress))
            done += [self._finish(*batch, progress) for batch in running]
        if not self._keep_images:
            places = np.concatenate([places for (places,) in done])
            correct = np.zeros(len(self._labels), bool)
            correct[places[places >= 0]] = True
            return Measurement(correct)
        adversarial, correct = map(np.concatenate, zip(*done, strict=True))
        return Measurement(correct, adversarial)

    def _finish(
        self, outputs: Any, mask: np.ndarray, progress: Callable[[int], object]
    ) -> tuple[np.ndarray, ...]:
        """Waits for a batch and counts it; returns its places, or its images and whether they are correct."""
        if self._keep_images:
            arrays = tuple(np.asarray(array).reshape(-1, *array.shape[2:])[mask] for array in outputs)
        else:
            arrays = (np.asarray(outputs),)
        progress(int(mask.sum()))
        return arrays


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
