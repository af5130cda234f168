"""What one evaluation attacks: a model on this host's devices, images, labels and targets."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrw.attacks import random_models
from jaxrw.attacks.arguments import as_partial
from jaxrw.attacks.autoattack import checks
from jaxrw.attacks.losses import rank_targets
from jaxrw.attacks.random_models import RandomLogitsFn
from jaxrw.attacks.types import LogitsFn
from jaxrw.methods.margins import is_correct


@dataclasses.dataclass(frozen=True)
class Placement:
    """A model on all devices of this host, which share every batch evenly.

    Attributes:
      logits_fn: the model, with its arrays on every device; a function of images, or of images and a key.
      surrogate: what attacks ask instead, as images -> logits; None: they ask the model.
      sharding: of arrays [B, ...], split by example.
      batch_size: largest number of examples attacked at a time; a multiple of the number of devices.
      predict_size: number of examples predicted at a time; a multiple of the number of devices.
      num_votes: evaluations of a random model for one verdict; 0: the model is a function of images alone.
      vote_key: PRNG key of these evaluations.
    """

    logits_fn: jax.tree_util.Partial
    surrogate: jax.tree_util.Partial | None
    sharding: NamedSharding
    batch_size: int
    predict_size: int
    num_votes: int
    vote_key: jax.Array

    @classmethod
    def create(
        cls,
        logits_fn: LogitsFn | RandomLogitsFn,
        *,
        surrogate: LogitsFn | None,
        batch_size: int,
        num_examples: int,
        num_votes: int,
        vote_key: jax.Array,
    ) -> Self:
        """Places a model; `batch_size` is rounded up to a multiple of the number of devices."""
        mesh = Mesh(np.array(jax.local_devices()), ("examples",))
        everywhere = NamedSharding(mesh, PartitionSpec())
        batch_size = round_up(batch_size, mesh.size)
        return cls(
            logits_fn=jax.device_put(as_partial(logits_fn), everywhere),
            surrogate=None if surrogate is None else jax.device_put(as_partial(surrogate), everywhere),
            sharding=NamedSharding(mesh, PartitionSpec("examples")),
            batch_size=batch_size,
            predict_size=min(batch_size, round_up(num_examples, mesh.size)),
            num_votes=num_votes,
            vote_key=vote_key,
        )

    @property
    def plain(self) -> jax.tree_util.Partial:
        """The model as a function of images alone: a random model with the same random numbers at each call."""
        if not self.num_votes:
            return self.logits_fn
        return jax.tree_util.Partial(_with_fixed_keys, self.logits_fn, self.vote_key)

    def split(self, arrays: Any) -> Any:
        """Places a tree of arrays [B, ...] on the devices, always with the same sharding: others compile again."""
        return jax.device_put(arrays, self.sharding)

    def first_batch(self, array: np.ndarray) -> np.ndarray:
        """Returns the first `predict_size` entries, with the last one repeated if there are fewer."""
        return array[np.minimum(np.arange(self.predict_size), len(array) - 1)]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Returns logits [B, K] float32 of one batch of `predict_size` images."""
        logits = _predict(self.plain, self.split(images))
        if not isinstance(logits, jax.Array):
            raise ValueError(
                f"logits_fn returns a {type(logits).__name__}; must be one array of logits [B, K]"
            )
        return np.asarray(logits, np.float32)

    def predict_surrogate(self, images: np.ndarray) -> np.ndarray:
        """As `predict`, of the surrogate."""
        return np.asarray(_predict(self.surrogate, self.split(images)), np.float32)

    def judge(
        self, images: np.ndarray, labels: np.ndarray, examples: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the logits [n, K] float32 of any number of images, and whether each is classified correctly [n].

        A random model decides by a vote, with random numbers that depend on the numbers of the examples [n].
        """
        if not self.num_votes:
            return self._in_batches(functools.partial(_judge, self.logits_fn), images, labels)
        vote = functools.partial(_vote, self.logits_fn, self.vote_key, num_votes=self.num_votes)
        return self._in_batches(vote, images, labels, examples.astype(np.int32))

    def rank(self, logits: np.ndarray, labels: np.ndarray, num_targets: int) -> np.ndarray:
        """Returns the likeliest wrong classes [n, T] int32."""
        return self._in_batches(functools.partial(_rank, num_targets=num_targets), logits, labels)

    def _in_batches(self, function: Callable[..., Any], *arrays: np.ndarray) -> Any:
        """Applies a compiled function to arrays [n, ...] in padded batches of one size."""
        size = len(arrays[0])
        outputs = [
            jax.tree.map(np.asarray, function(*self.split([self.first_batch(a[start:]) for a in arrays])))
            for start in range(0, size, self.predict_size)
        ]
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:size], *outputs)


@dataclasses.dataclass(frozen=True)
class Problem:
    """What one evaluation attacks; arrays are on the host.

    Attributes:
      key: PRNG key.
      placement: the model.
      norm: of eps, a key of `norms.NORMS`.
      eps: radius in pixel units of [0, 1].
      images: [N, H, W, C] float32 in [0, 1].
      labels: [N] int32 in 0..K-1.
      logits: [N, K] float32 of `images`.
      correct: [N] bool, whether the model classifies each image correctly.
      targets: [N, T] int32, the likeliest wrong classes of each image.
    """

    key: jax.Array
    placement: Placement
    norm: str
    eps: float
    images: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    correct: np.ndarray
    targets: np.ndarray

    @classmethod
    def create(
        cls,
        key: jax.Array,
        placement: Placement,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        norm: str,
        eps: float,
        num_targets: int,
    ) -> Self:
        """Predicts all images and ranks their targets.

        Raises:
          ValueError: the model takes no batch or is in training mode, the output is not logits [B, K] with K of at
            least 2, or a label is not in 0..K-1.
        """
        first = placement.first_batch(images)
        try:
            predicted = placement.predict(first)
        except Exception as error:
            if words := checks.explain(error, placement.logits_fn, images.shape[1:]):
                raise ValueError(words) from error
            raise
        checks.check_model(first, predicted, labels)
        logits, correct = placement.judge(images, labels, np.arange(len(labels)))
        targets = placement.rank(logits, labels, num_targets)
        return cls(key, placement, norm, eps, images, labels, logits, correct, targets)


def round_up(number: int, multiple: int) -> int:
    """Returns the smallest multiple that is not less than `number`."""
    return -(-number // multiple) * multiple


@jax.jit
def _predict(logits_fn: LogitsFn, images: jax.Array) -> jax.Array:
    return logits_fn(images)


@jax.jit
def _judge(logits_fn: LogitsFn, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = _predict(logits_fn, images).astype(jnp.float32)
    return logits, jax.vmap(is_correct)(logits, labels)


def _with_fixed_keys(logits_fn: RandomLogitsFn, key: jax.Array, images: jax.Array) -> jax.Array:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(images)))
    return random_models.call(logits_fn, images, keys)


@functools.partial(jax.jit, static_argnames="num_votes")
def _vote(
    logits_fn: RandomLogitsFn,
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    examples: jax.Array,
    *,
    num_votes: int,
) -> tuple[jax.Array, jax.Array]:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, examples)
    return random_models.vote(logits_fn, images, labels, keys, num_votes=num_votes)


@functools.partial(jax.jit, static_argnames="num_targets")
def _rank(logits: jax.Array, labels: jax.Array, *, num_targets: int) -> jax.Array:
    return jax.vmap(rank_targets, (0, 0, None))(logits, labels, num_targets)
