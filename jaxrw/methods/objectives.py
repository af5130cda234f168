"""Training losses of one example: logits [K] and a label in, a float32 scalar out."""

import chex
import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Computes the cross-entropy in nats, at least 0.

    Args:
      logits: [K] float.
      label: [] integer in 0..K-1.

    Returns:
      [] float32.
    """
    chex.assert_rank([logits, label], [1, 0])
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), label)


def standard(adversarial_logits: jax.Array, label: jax.Array, weight: jax.Array) -> jax.Array:
    """Computes the weighted cross-entropy of one adversarial example in nats, at least 0 (Algorithm 1, line 17).

    Args:
      adversarial_logits: [K] float.
      label: [] integer in 0..K-1.
      weight: [] float, at least 0.

    Returns:
      [] float32.
    """
    return weight * cross_entropy(adversarial_logits, label)
