"""Losses that attacks maximize, and the targets they aim at, for one example: logits [K] and its label []."""

import chex
import jax
import jax.numpy as jnp

from jaxrw.methods.margins import logit_margin
from jaxrw.methods.objectives import cross_entropy

# Factor of the logits in `scaled_cross_entropy`.
LOGIT_SCALE = 10.0

# Keeps the ratios finite if the largest logits are equal.
_TINY = 1e-12


def cw(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Computes the Carlini-Wagner loss, the negative logit margin: positive iff wrong, not clamped; [] float32."""
    return -logit_margin(logits, label)


def scaled_cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Computes the cross-entropy of `LOGIT_SCALE` times the logits in nats, at least 0 (Hitaj et al. 2021).

    Where all logits are small, the softmax is close to uniform and the cross-entropy's gradient pulls at every class at
    once; at this scale it follows the likeliest wrong class. So a model that withstands PGD on the cross-entropy much
    better than on this loss only hides its weakness, see arXiv 2103.01914 on GAIRAT.

    Args:
      logits: [K] float.
      label: [] integer in 0..K-1.

    Returns:
      [] float32.
    """
    return cross_entropy(LOGIT_SCALE * logits.astype(jnp.float32), label)


def logit_ratio(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Computes the difference of logits ratio (DLR), at most 1, negative iff correct.

    `-(z_y - max_{j != y} z_j) / (z_(1) - z_(3))`, where z_(i) is the i-th largest logit. Unlike the cross-entropy,
    it is invariant to the scale of the logits, and its gradient does not vanish (Croce and Hein 2020, Eq. 5).

    Args:
      logits: [K] float, K at least 3.
      label: [] integer in 0..K-1.

    Returns:
      [] float32.

    Raises:
      ValueError: K below 3.

    >>> float(logit_ratio(jnp.array([4.0, 3.0, 2.0]), jnp.array(0)))
    -0.5
    """
    chex.assert_rank([logits, label], [1, 0])
    if logits.shape[0] < 3:
        raise ValueError(f"the loss 'dlr' needs at least 3 classes, got {logits.shape[0]}; choose 'ce'")
    largest = jax.lax.top_k(logits.astype(jnp.float32), 3)[0]
    return -logit_margin(logits, label) / (largest[0] - largest[2] + _TINY)


def targeted_logit_ratio(logits: jax.Array, label: jax.Array, target: jax.Array) -> jax.Array:
    """Computes the targeted DLR, positive iff the target's logit exceeds the label's (Croce and Hein 2020, Eq. 6).

    `-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2)`, where z_(i) is the i-th largest logit. With K of 2 or 3 there is no
    fourth logit, and dividing by z_(1) - z_(3) would give the constant -1 if the target is last. The loss is then
    `z_t - z_y`: attacks step along the sign of its gradient, which does not depend on the scale.

    Args:
      logits: [K] float.
      label: [] integer in 0..K-1.
      target: [] integer in 0..K-1, not the label.

    Returns:
      [] float32.

    >>> float(targeted_logit_ratio(jnp.array([4.0, 3.0, 2.0, 2.0]), jnp.array(0), jnp.array(2)))
    -1.0
    """
    chex.assert_rank([logits, label, target], [1, 0, 0])
    logits = logits.astype(jnp.float32)
    difference = logits[target] - logits[label]
    if logits.shape[0] < 4:
        return difference
    largest = jax.lax.top_k(logits, 4)[0]
    return difference / (largest[0] - (largest[2] + largest[3]) / 2 + _TINY)


def rank_targets(logits: jax.Array, label: jax.Array, num_targets: int) -> jax.Array:
    """Returns the `num_targets` most likely wrong classes, the likeliest first; [T] int32, T at most K - 1.

    >>> rank_targets(jnp.array([0.0, 3.0, 1.0, 2.0]), jnp.array(1), 9).tolist()
    [3, 2, 0]
    """
    chex.assert_rank([logits, label], [1, 0])
    others = jnp.where(jnp.arange(logits.shape[0]) == label, -jnp.inf, jnp.nan_to_num(logits))
    return jnp.argsort(-others)[: min(num_targets, logits.shape[0] - 1)].astype(jnp.int32)
