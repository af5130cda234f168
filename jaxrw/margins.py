"""How far one example stands from the decision boundary, and margin reweighting.

Every function takes the logits of ONE example and its label; batch with `jax.vmap`. All work in float32 and
in the logit domain: `p_2 / (1 - p_y)` computed from float32 probabilities is wrong for confident points (true
class 18 logits ahead: 0.347 for a true 0.254; 30 ahead: infinity).

The sign: the paper's Eq. 4 prints `max_{j != y} p_j - p_y`, which contradicts its Eq. 15, Eq. 16 and the
public code of MAIL and WMMR. Here the margin is `p_y - max_{j != y} p_j`, with which all of them agree.
"""

import chex
import jax
import jax.numpy as jnp


def _float32(logits, label):
    chex.assert_rank([logits, label], [1, 0])
    return logits.astype(jnp.float32)


def _without(logits, label):
    """Set the true class to -inf, so that maxima and sums run over the other classes."""
    return jnp.where(jnp.arange(logits.shape[0]) == label, -jnp.inf, logits)


def probability_margin(logits, label):
    """Margin m = p_y - max_{j != y} p_j in [-1, 1]; positive iff correct (Eq. 4 with its sign mended).

    Computed as `(p_y + p_2) tanh((z_y - z_2) / 2)`, the same number without its cancellation near 0, so that
    the sign is that of the logits. Rounding may leave [-1, 1] by 1e-6.

    Args:
      logits: [K] float.
      label: [] integer in 0..K-1.

    Returns:
      [] float32.

    >>> round(float(probability_margin(jnp.log(jnp.array([0.6, 0.3, 0.1])), jnp.array(0))), 5)
    0.3
    """
    logits = _float32(logits, label)
    second = jnp.max(_without(logits, label))
    both = jnp.exp(jnp.logaddexp(logits[label], second) - jax.nn.logsumexp(logits))
    return both * jnp.tanh((logits[label] - second) / 2)


def top2_ratio(logits, label):
    """Share o of the most confusing class in the incorrect rate, in [1/(K-1), 1] (Eq. 7, 8).

    `o = p_2 / (1 - p_y)`: 1 when one class takes all that the true class leaves, 1/(K-1) when all others share
    it evenly. It does not depend on the logit of the true class.

    Args:
      logits: [K] float, K at least 2.
      label: [] integer in 0..K-1.

    Returns:
      [] float32.

    >>> round(float(top2_ratio(jnp.log(jnp.array([0.6, 0.3, 0.1])), jnp.array(0))), 5)
    0.75
    """
    others = _without(_float32(logits, label), label)
    return jnp.exp(jnp.max(others) - jax.nn.logsumexp(others))


def similarity(logits, label):
    """Cosine c between p and p with the true class set to 0, in [0, 1] (Eq. 11, 12).

    Near 0 for a confident correct point, near 1 for a confident wrong one; `c = |p'| / |p|`.

    Args:
      logits: [K] float, K at least 2.
      label: [] integer in 0..K-1.

    Returns:
      [] float32.

    >>> round(float(similarity(jnp.zeros(5), jnp.array(0))), 5)
    0.89443
    """
    logits = _float32(logits, label)
    others = _without(logits, label)
    return jnp.exp((jax.nn.logsumexp(2 * others) - jax.nn.logsumexp(2 * logits)) / 2)


def reweighted_margin(logits, label, *, tau, similarity=True):
    """Margin reweighting m~ = m (tau - o) c in [-tau, tau]; positive iff correct (Eq. 10, 13, 14).

    Not monotone in m for correct points: c falls to 0 with confidence and pulls m~ to 0 with it.

    Args:
      logits: [K] float. With K = 2 the ratio is always 1 and nothing is reweighted, so K is at least 3.
      label: [] integer in 0..K-1.
      tau: at least 2, so that the factor is positive (Eq. 10).
      similarity: False leaves c out, as in Tables 4 and 7.

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


_similarity = similarity  # `reweighted_margin` has a flag of this name


def check_reweighting(*, num_classes, tau):
    """Raise ValueError unless margin reweighting is defined: at least 3 classes and tau of at least 2."""
    if num_classes < 3:
        raise ValueError(f"margin reweighting needs at least 3 classes, got {num_classes}")
    if tau < 2:
        raise ValueError(f"tau is {tau}; margin reweighting needs tau of at least 2 (Eq. 10)")
