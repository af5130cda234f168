"""What an attack maximises, and when an example counts as correct: one example, logits [K], label []."""

import chex
import jax.numpy as jnp
import optax


def cross_entropy(logits, label):
    """Cross-entropy in nats, at least 0; logits [K] float, label [] in 0..K-1 -> [] float32."""
    chex.assert_rank([logits, label], [1, 0])
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), label)


def logit_margin(logits, label):
    """Logit of the true class less the largest other logit; positive iff correct, unbounded.

    The true class is masked with -inf: multiplying it by 0, as public code does, breaks where all other logits
    are negative.

    Args:
      logits: [K] float.
      label: [] integer in 0..K-1.

    Returns:
      [] float32.

    >>> float(logit_margin(jnp.array([1.0, 3.0, 2.5]), jnp.array(1)))
    0.5
    """
    chex.assert_rank([logits, label], [1, 0])
    logits = logits.astype(jnp.float32)
    return logits[label] - jnp.max(jnp.where(jnp.arange(logits.shape[0]) == label, -jnp.inf, logits))


def is_correct(logits, label):
    """Whether the true class has strictly the largest logit; logits [K], label [] -> [] bool.

    Stricter than `argmax(logits) == label`, which counts a tie, or logits that are all NaN, as class 0.

    >>> bool(is_correct(jnp.full(3, jnp.nan), jnp.array(0)))
    False
    """
    return logit_margin(logits, label) > 0


def cw(logits, label):
    """Carlini-Wagner objective, the negative logit margin; positive iff wrong, no clamp; [] float32."""
    return -logit_margin(logits, label)


OBJECTIVES = {"ce": cross_entropy, "cw": cw}
