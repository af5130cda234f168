"""Weights of one adversarial example, and of a batch.

All but `batch_weights` return the raw weight: without the multiplier M and not normalized over the batch.
"""

from typing import Protocol

import chex
import jax
import jax.numpy as jnp

from jaxrw.methods.objectives import cross_entropy


class Weighting(Protocol):
    """Computes the weight of one example, the multiplier M included."""

    def __call__(self, logits: jax.Array, label: jax.Array, kappa: jax.Array) -> jax.Array:
        """Returns a [] float32 weight, at least 0, from logits [K], label [] and GAIRAT's kappa []."""
        ...


def mail(margin: jax.Array, *, beta: float, gamma: float) -> jax.Array:
    """Computes MAIL's weight sigmoid(-gamma (m + beta)) in [0, 1], decreasing in the margin.

    Eq. 16; Wang et al., "Probabilistic margins for instance reweighting in adversarial training", 2021.

    Args:
      margin: [] float, positive iff correct.
      beta: shift. The paper's is 0.5, which the official code writes as a bias of -0.5.
      gamma: slope, positive.

    Returns:
      [] float32.

    >>> round(float(mail(jnp.array(-0.25), beta=0.5, gamma=10.0)), 5)
    0.07586
    """
    chex.assert_rank(margin, 0)
    return jax.nn.sigmoid(-gamma * (margin.astype(jnp.float32) + beta))


def wmmr(margin: jax.Array, *, alpha: float) -> jax.Array:
    """Computes WMMR's weight exp(-alpha m), positive, decreasing in the margin.

    Eq. 15; Zeng et al., "Are adversarial examples created equal?", 2021.

    Args:
      margin: [] float, positive iff correct.
      alpha: slope, positive. 1 for reweighted margins, whose factor replaces it.

    Returns:
      [] float32, 1 at margin 0.

    >>> round(float(wmmr(jnp.array(0.3), alpha=2.0)), 5)
    0.54881
    """
    chex.assert_rank(margin, 0)
    return jnp.exp(-alpha * margin.astype(jnp.float32))


def gairat(kappa: jax.Array, *, num_steps: int, lam: float) -> jax.Array:
    """Computes GAIRAT's weight (1 + tanh(lam + 5 (1 - 2 kappa / N))) / 2 in [0, 1], decreasing in kappa.

    Zhang et al., "Geometry-aware instance-reweighted adversarial training", 2021.

    Args:
      kappa: [] integer in 0..num_steps, the number of attack iterates that were still classified correctly.
      num_steps: N, steps of the training attack, at least 1.
      lam: shift Lambda. The authors' is -1.

    Returns:
      [] float32, to be divided by its batch mean.

    >>> round(float(gairat(jnp.array(4), num_steps=10, lam=-1.0)), 5)
    0.5
    """
    chex.assert_rank(kappa, 0)
    # sigmoid(2 x) is (1 + tanh(x)) / 2, without its cancellation where the weight is small.
    return jax.nn.sigmoid(2 * (lam + 5 * (1 - 2 * kappa.astype(jnp.float32) / num_steps)))


def ewat(logits: jax.Array) -> jax.Array:
    """Computes EWAT's weight, the entropy of the prediction in nats, in [0, log K].

    Kim et al., "Entropy weighted adversarial training", 2021. The paper says only "proportional to the entropy"; the
    unit cancels when the weight is divided by its batch mean.

    Args:
      logits: [K] float.

    Returns:
      [] float32, to be divided by its batch mean.

    >>> round(float(ewat(jnp.zeros(4))), 5)
    1.38629
    """
    chex.assert_rank(logits, 1)
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.sum(jnp.exp(log_p) * log_p)


def done(logits: jax.Array, label: jax.Array, *, temperature: float) -> jax.Array:
    """Computes the weight exp(L / r) of distributionally robust optimization, at least 1, increasing in the loss L.

    The worst distribution over the batch within a KL divergence has these weights. Written from the formula in "Doubly
    robust instance-reweighted adversarial training", Zhang et al., 2024: a reconstruction, not checked against the
    authors' code.

    Args:
      logits: [K] float.
      label: [] integer in 0..K-1.
      temperature: r in nats, positive. The larger, the more even are the weights.

    Returns:
      [] float32, to be divided by its batch mean. L / r counts up to 70, so that sums over a batch stay finite.

    >>> round(float(done(jnp.zeros(4), jnp.array(0), temperature=1.0)), 5)
    4.0
    """
    return jnp.exp(jnp.minimum(cross_entropy(logits, label) / temperature, 70.0))


def far(margin: jax.Array, *, gamma: float) -> jax.Array:
    """Computes the weight sigmoid(gamma m) in [0, 1], increasing in the margin: MAIL's, turned round.

    Args:
      margin: [] float, positive iff correct; of the logits in the method `far`.
      gamma: slope, positive.

    Returns:
      [] float32, 1/2 at margin 0.

    >>> round(float(far(jnp.array(-1.0), gamma=2.0)), 5)
    0.1192
    """
    chex.assert_rank(margin, 0)
    return jax.nn.sigmoid(gamma * margin.astype(jnp.float32))


def batch_weights(
    weighting: Weighting,
    logits: jax.Array,
    labels: jax.Array,
    kappa: jax.Array,
    *,
    normalized: bool,
    active: jax.Array,
    grad_through_weights: bool = False,
    axis_name: str | None = None,
) -> jax.Array:
    """Computes the weights of a batch, at least 0; all are 1 during the warm-up.

    Args:
      weighting: computes the weight of one example.
      logits: [B, K] float of the adversarial examples.
      labels: [B] integer in 0..K-1.
      kappa: [B] integer, GAIRAT's.
      normalized: whether to divide the weights by their mean over the global batch.
      active: [] bool, False during the warm-up (Algorithm 1, line 8).
      grad_through_weights: False stops gradients at the weights, as MAIL and GAIRAT do.
      axis_name: mapped axis that the global batch is split over, if any.

    Returns:
      [B] float32.
    """
    chex.assert_rank([logits, labels, kappa], [2, 1, 1])
    weights = jax.vmap(weighting)(logits, labels, kappa)
    if normalized:
        mean = weights.mean()
        mean = mean if axis_name is None else jax.lax.pmean(mean, axis_name)
        weights = weights / jnp.maximum(mean, jnp.finfo(jnp.float32).tiny)
    weights = jnp.where(active, weights, 1.0)
    return weights if grad_through_weights else jax.lax.stop_gradient(weights)
