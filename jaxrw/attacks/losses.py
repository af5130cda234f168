"""Losses that attacks maximize, and targets that they aim at: logits [K] and label [] of one example."""

import chex
import jax.numpy as jnp
from jax import lax

from jaxrw.methods.margins import logit_margin
from jaxrw.methods.objectives import cross_entropy


def cw(logits, label):
    """Carlini-Wagner objective, the negative logit margin; positive iff wrong, no clamp; [] float32."""
    return -logit_margin(logits, label)


def logit_ratio(logits, label):
    """Difference of logits ratio (DLR), at most 1; negative iff correct; needs K of at least 3.

    `-(z_y - max_{j != y} z_j) / (z_(1) - z_(3))` with the logits sorted downwards: unlike the cross-entropy it
    does not change, and its gradient does not vanish, when all logits are scaled (Croce and Hein 2020, Eq. 5).

    Args:
      logits: [K] float.
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
    largest = lax.top_k(logits.astype(jnp.float32), 3)[0]
    return -logit_margin(logits, label) / (largest[0] - largest[2] + _TINY)


def targeted_logit_ratio(logits, label, target):
    """Targeted DLR, `-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2)`; positive iff the target beats the label.

    With K of 2 or 3 there is no fourth logit, and with (z_(1) - z_(3)) below the line it would be the constant
    -1 wherever the target is last. There it is `z_t - z_y`, unscaled: steps along the sign of its gradient
    depend on no scale (Croce and Hein 2020, Eq. 6).

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
    ahead = logits[target] - logits[label]
    if logits.shape[0] < 4:
        return ahead
    largest = lax.top_k(logits, 4)[0]
    return ahead / (largest[0] - (largest[2] + largest[3]) / 2 + _TINY)


def rank_targets(logits, label, num_targets):
    """Classes other than the label, the likeliest first; [T] int32, T the smaller of `num_targets` and K - 1.

    >>> rank_targets(jnp.array([0.0, 3.0, 1.0, 2.0]), jnp.array(1), 9).tolist()
    [3, 2, 0]
    """
    chex.assert_rank([logits, label], [1, 0])
    others = jnp.where(jnp.arange(logits.shape[0]) == label, -jnp.inf, jnp.nan_to_num(logits))
    return jnp.argsort(-others)[: min(num_targets, logits.shape[0] - 1)].astype(jnp.int32)


# Keeps the ratios finite where the largest logits are equal.
_TINY = 1e-12

LOSSES = {"ce": cross_entropy, "cw": cw}
