"""Interfaces of models and attacks."""

from typing import Protocol, TypeAlias

import jax

Scalar: TypeAlias = float | jax.Array


class LogitsFn(Protocol):
    """A model in evaluation mode; each row of its output depends on its own image alone."""

    def __call__(self, images: jax.Array, /) -> jax.Array:
        """Returns logits [B, K] of images [B, H, W, C] in [0, 1]."""
        ...


class Attack(Protocol):
    """An attack with all of its settings fixed."""

    def __call__(
        self, key: jax.Array, logits_fn: LogitsFn, images: jax.Array, labels: jax.Array, index: jax.Array
    ) -> jax.Array:
        """Returns adversarial images [B, H, W, C] in [0, 1].

        Args:
          key: PRNG key.
          logits_fn: the model.
          images: [B, H, W, C] float32 in [0, 1].
          labels: [B] int32 in 0..K-1.
          index: [B] int32; an example's random numbers depend on `key` and its index alone.
        """
        ...
