"""Margins of one example from the decision boundary, and margin reweighting.

Every function takes the logits of ONE example and its label; batch it with `jax.vmap`. All compute in float32 from
logits, because `p_2 / (1 - p_y)` from float32 probabilities is wrong for confident examples: with the true class
18 logits ahead it gives 0.347 instead of 0.254, and with 30 ahead infinity.

Sign: a margin is positive iff the example is classified correctly, `p_y - max_{j != y} p_j`. The paper's Eq. 4
prints the opposite sign, which contradicts its Eq. 15, its Eq. 16 and the public code of MAIL and WMMR.
"""

import chex
import jax
import jax.numpy as jnp


def probability_margin(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Computes the margin m = p_y - max_{j != y} p_j in [-1, 1], positive iff correct (Eq. 4, sign corrected).

    Computed as `(p_y + p_2) tanh((z_y - z_2) / 2)`, which equals m without cancellation near 0, so that its sign is
    that of the logits. Rounding may exceed [-1, 1] by 1e-6.

    Args:
      logits: [K] float.
      label: [] integer in 0..K-1.

    Returns:
      [] float32.

    >>> round(float(probability_margin(jnp.log(jnp.array([0.6, 0.3, 0.1])), jnp.array(0))), 5)
    0.3
    """
    logits = _float32(logits, label)
    second = jnp.max(_without_label(logits, label))
    both = jnp.exp(jnp.logaddexp(logits[label], second) - jax.nn.logsumexp(logits))
    return both * jnp.tanh((logits[label] - second) / 2)


def top2_ratio(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Computes the top-2 ratio o = p_2 / (1 - p_y) in [1/(K-1), 1] (Eq. 7, 8).

    The share of the most confusing class in the incorrect rate: 1 if all of it falls on one class, 1/(K-1) if the
    other classes share it evenly. Independent of the logit of the true class.

    Args:
      logits: [K] float, K at least 2.
      label: [] integer in 0..K-1.

    Returns:
      [] float32.

    >>> round(float(top2_ratio(jnp.log(jnp.array([0.6, 0.3, 0.1])), jnp.array(0))), 5)
    0.75
    """
    others = _without_label(_float32(logits, label), label)
    return jnp.exp(jnp.max(others) - jax.nn.logsumexp(others))


def similarity(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Computes the cosine similarity c of p and p' in [0, 1], where p' is p with p_y set to 0 (Eq. 11, 12).

    Near 0 for a confident correct example, near 1 for a confident wrong one; equals `|p'| / |p|`.

    Args:
      logits: [K] float, K at least 2.
      label: [] integer in 0..K-1.

    Returns:
      [] float32.

    >>> round(float(similarity(jnp.zeros(5), jnp.array(0))), 5)
    0.89443
    """
    logits = _float32(logits, label)
    others = _without_label(logits, label)
    return jnp.exp((jax.nn.logsumexp(2 * others) - jax.nn.logsumexp(2 * logits)) / 2)


def reweighted_margin(
    logits: jax.Array, label: jax.Array, *, tau: float, similarity: bool = True
) -> jax.Array:
    """Computes the reweighted margin m~ = m (tau - o) c in [-tau, tau], positive iff correct (Eq. 10, 13, 14).

    Not monotone in m for correct examples: as confidence grows, c falls to 0 and m~ with it.

    Args:
      logits: [K] float, K at least 3. With two classes o is always 1.
      label: [] integer in 0..K-1.
      tau: at least 2, so that the factor is positive (Eq. 10).
      similarity: False omits c, as in Tables 4 and 7.

    Returns:
      [] float32.

    Raises:
      ValueError: K below 3 or tau below 2.

    >>> round(float(reweighted_margin(jnp.log(jnp.array([0.05, 0.3, 0.65])), jnp.array(0), tau=2)), 4)
    -0.7876
    """
    check_reweighting(num_classes=logits.shape[0], tau=tau)
    scale = tau - top2_ratio(logits, label)
    if similarity:
        scale = scale * _similarity(logits, label)
    return probability_margin(logits, label) * scale


_similarity = similarity  # `reweighted_margin` has an argument of this name.


def check_reweighting(*, num_classes: int, tau: float) -> None:
    """Raises ValueError unless there are at least 3 classes and tau is at least 2."""
    if num_classes < 3:
        raise ValueError(f"margin reweighting needs at least 3 classes, got {num_classes}")
    if tau < 2:
        raise ValueError(f"tau is {tau}; margin reweighting needs tau of at least 2 (Eq. 10)")


def logit_margin(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Computes z_y - max_{j != y} z_j, positive iff correct, unbounded.

    The true class is masked with -inf. Multiplying its logit by 0, as public code does, fails if all other logits
    are negative.

    Args:
      logits: [K] float.
      label: [] integer in 0..K-1.

    Returns:
      [] float32.

    >>> float(logit_margin(jnp.array([1.0, 3.0, 2.5]), jnp.array(1)))
    0.5
    """
    logits = _float32(logits, label)
    return logits[label] - jnp.max(_without_label(logits, label))


def is_correct(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Returns whether the true class has strictly the largest logit.

    Unlike `argmax(logits) == label`, a tie or NaN is never correct.

    Args:
      logits: [K] float.
      label: [] integer in 0..K-1.

    Returns:
      [] bool.

    >>> bool(is_correct(jnp.full(3, jnp.nan), jnp.array(0)))
    False
    """
    return logit_margin(logits, label) > 0


def _float32(logits: jax.Array, label: jax.Array) -> jax.Array:
    chex.assert_rank([logits, label], [1, 0])
    return logits.astype(jnp.float32)


def _without_label(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Sets the true class to -inf, so that maxima and sums run over the other classes."""
    return jnp.where(jnp.arange(logits.shape[0]) == label, -jnp.inf, logits)
