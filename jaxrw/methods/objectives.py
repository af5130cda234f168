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


def trades(
    clean_logits: jax.Array,
    adversarial_logits: jax.Array,
    label: jax.Array,
    weight: jax.Array,
    *,
    lam: float,
    smoothing: float = 0.0,
) -> jax.Array:
    """Computes TRADES' loss of one example in nats, CE(z, y) + lam w KL(p || p'), at least 0.

    Zhang et al., "Theoretically principled trade-off between robustness and accuracy", 2019. The weight multiplies the
    KL divergence alone, as in MAIL-TRADES. Gradients flow through both p and p'.

    Args:
      clean_logits: z, [K] float.
      adversarial_logits: z', [K] float.
      label: [] integer in 0..K-1.
      weight: [] float, at least 0.
      lam: weight of the KL divergence, at least 0. TRADES uses 6, MAIL-TRADES 5.
      smoothing: share in [0, 1) of the label that the cross-entropy spreads evenly over all classes.

    Returns:
      [] float32.
    """
    chex.assert_rank([clean_logits, adversarial_logits, label], [1, 1, 0])
    clean_loss = cross_entropy(clean_logits, label)
    if smoothing:
        log_p = jax.nn.log_softmax(clean_logits.astype(jnp.float32))
        clean_loss = (1 - smoothing) * clean_loss - smoothing * log_p.mean()
    return clean_loss + lam * weight * kl_divergence(clean_logits, adversarial_logits)


def mart(
    clean_logits: jax.Array, adversarial_logits: jax.Array, label: jax.Array, weight: jax.Array, *, lam: float
) -> jax.Array:
    """Computes MART's loss of one example in nats, w BCE(z', y) + lam KL(p || p') (1 - p_y).

    Wang et al., "Improving adversarial robustness requires revisiting misclassified examples", 2020. BCE is the
    cross-entropy plus -log(1 - max_{j != y} p'_j), which may be slightly negative because the official code computes
    it from 1.0001. The weight multiplies BCE alone, as in MAIL-MART.

    Args:
      clean_logits: z, [K] float.
      adversarial_logits: z', [K] float.
      label: [] integer in 0..K-1.
      weight: [] float, at least 0.
      lam: weight of the KL divergence, at least 0. The authors' is 5.

    Returns:
      [] float32.
    """
    chex.assert_rank([clean_logits, adversarial_logits, label], [1, 1, 0])
    p_y = jax.nn.softmax(clean_logits.astype(jnp.float32))[label]
    adversarial_p = jax.nn.softmax(adversarial_logits.astype(jnp.float32))
    second = jnp.max(jnp.where(jnp.arange(len(adversarial_p)) == label, -jnp.inf, adversarial_p))
    boosted = cross_entropy(adversarial_logits, label) - jnp.log(1.0001 - second + 1e-12)
    return weight * boosted + lam * kl_divergence(clean_logits, adversarial_logits) * (1.0000001 - p_y)


def kl_divergence(logits: jax.Array, other_logits: jax.Array) -> jax.Array:
    """Computes KL(p || q) in nats, at least 0, of p = softmax(logits) and q = softmax(other_logits).

    Args:
      logits: [K] float.
      other_logits: [K] float.

    Returns:
      [] float32.
    """
    chex.assert_rank([logits, other_logits], [1, 1])
    log_p, log_q = (jax.nn.log_softmax(z.astype(jnp.float32)) for z in (logits, other_logits))
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q))
