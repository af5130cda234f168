"""Weights of a batch and the weighted loss, per example; the step reduces them."""

import chex
import jax
import jax.numpy as jnp

from jaxrw.attacks.objectives import cross_entropy


def batch_weights(weighting, logits, labels, kappa, *, active, grad_through_weights=False, axis_name=None):
    """Weights of a batch, at least 0; all 1 while the method warms up.

    Args:
      weighting: `jaxrw.reweighting.Weighting`.
      logits: [B, K] float of the adversarial examples.
      labels: [B] integer in 0..K-1.
      kappa: [B] integer, GAIRAT's.
      active: [] bool, False during the warm-up (Algorithm 1 line 8).
      grad_through_weights: False makes the weights constants of the gradient, as MAIL and GAIRAT do.
      axis_name: mapped axis over which the batch is spread; the normaliser is the global batch's mean.

    Returns:
      [B] float32.
    """
    chex.assert_rank([logits, labels, kappa], [2, 1, 1])
    weights = jax.vmap(weighting.weight)(logits, labels, kappa)
    if weighting.normalized:
        mean = weights.mean()
        mean = mean if axis_name is None else jax.lax.pmean(mean, axis_name)
        weights = weights / jnp.maximum(mean, jnp.finfo(jnp.float32).tiny)
    weights = jnp.where(active, weights, 1.0)
    return weights if grad_through_weights else jax.lax.stop_gradient(weights)


def weighted_cross_entropy(logits, labels, weights):
    """Cross-entropy in nats times weight, of each example: logits [B, K], labels [B], weights [B] -> [B]."""
    chex.assert_rank([logits, labels, weights], [2, 1, 1])
    return weights * jax.vmap(cross_entropy)(logits, labels)
