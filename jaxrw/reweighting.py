"""Weights of instance-reweighted adversarial training, for one example, and the seven methods made of them.

The first four functions give the raw weight: without the multiplier M and without normalising over the batch.
"""

import dataclasses
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from jaxrw import margins


def mail(margin, *, beta, gamma):
    """MAIL's weight sigmoid(-gamma (m + beta)) in [0, 1], falling in the margin (Eq. 16; Wang et al. 2021).

    Args:
      margin: [] float, positive iff correct.
      beta: shift; 0.5 is the paper's (the official code writes the same number as bias -0.5).
      gamma: slope, positive.

    Returns:
      [] float32.

    >>> round(float(mail(jnp.array(-0.25), beta=0.5, gamma=10.0)), 5)
    0.07586
    """
    chex.assert_rank(margin, 0)
    return jax.nn.sigmoid(-gamma * (margin.astype(jnp.float32) + beta))


def wmmr(margin, *, alpha):
    """WMMR's weight exp(-alpha m), positive, falling in the margin (Eq. 15; Zeng et al. 2021).

    Args:
      margin: [] float, positive iff correct.
      alpha: steepness, positive; 1 with the reweighted margin, which takes its place.

    Returns:
      [] float32, 1 at margin 0.

    >>> round(float(wmmr(jnp.array(0.3), alpha=2.0)), 5)
    0.54881
    """
    chex.assert_rank(margin, 0)
    return jnp.exp(-alpha * margin.astype(jnp.float32))


def gairat(kappa, *, num_steps, lam):
    """GAIRAT's weight (1 + tanh(lam + 5 (1 - 2 kappa / N))) / 2 in [0, 1], falling in kappa (Zhang et al. 2021).

    Args:
      kappa: [] integer in 0..num_steps, the attack steps before which the example was still correct.
      num_steps: N, steps of the training attack, at least 1.
      lam: shift; -1 is the authors'.

    Returns:
      [] float32, to be divided by its mean over the batch.

    >>> round(float(gairat(jnp.array(4), num_steps=10, lam=-1.0)), 5)
    0.5
    """
    chex.assert_rank(kappa, 0)
    return (1 + jnp.tanh(lam + 5 * (1 - 2 * kappa.astype(jnp.float32) / num_steps))) / 2


def ewat(logits):
    """Entropy in nats of the predicted distribution, in [0, log K]; EWAT's weight (Kim et al. 2021).

    "Proportional to the entropy" is all that is published; nats cancel when it is divided by its batch mean.

    Args:
      logits: [K] float.

    Returns:
      [] float32, to be divided by its mean over the batch.

    >>> round(float(ewat(jnp.zeros(4))), 5)
    1.38629
    """
    chex.assert_rank(logits, 1)
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.sum(jnp.exp(log_p) * log_p)


@dataclasses.dataclass(frozen=True)
class Weighting:
    """How a method weighs: `weight` of one example, and what the step does with a batch of them."""

    weight: Callable  # (logits [K], label [], kappa []) -> [] float32, the multiplier M included
    normalized: bool = False  # divided by the mean over the global batch


def create(name, *, tau, similarity, beta, gamma, alpha, multiplier, lam, num_steps):
    """Weighting of one of the paper's seven methods, by the name it has in a config.

    Args:
      name: one of `METHODS`.
      tau: margin reweighting's, at least 2 (ours_mail, ours_wmmr).
      similarity: False leaves the cosine out (ours_mail, ours_wmmr).
      beta: MAIL's shift (mail, ours_mail).
      gamma: MAIL's slope (mail, ours_mail).
      alpha: WMMR's steepness (wmmr).
      multiplier: M, the factor of the weights (mail, wmmr and both of ours).
      lam: GAIRAT's shift (gairat).
      num_steps: steps of the training attack (gairat).

    Raises:
      ValueError: unknown name, or tau below 2 for one of ours.
    """

    def reweighted(logits, label):
        return margins.reweighted_margin(logits, label, tau=tau, similarity=similarity)

    def plain(logits, label):
        return margins.probability_margin(logits, label)

    def by_margin(margin, weight, **constants):
        return Weighting(lambda logits, label, kappa: multiplier * weight(margin(logits, label), **constants))

    if name not in METHODS:
        raise ValueError(f"method is {name!r}; choose one of {', '.join(METHODS)}")
    match name:
        case "standard":
            return Weighting(lambda logits, label, kappa: jnp.ones(()))
        case "gairat":
            return Weighting(
                lambda _, __, kappa: gairat(kappa, num_steps=num_steps, lam=lam), normalized=True
            )
        case "ewat":
            return Weighting(lambda logits, _, __: ewat(logits), normalized=True)
        case "wmmr":
            return by_margin(plain, wmmr, alpha=alpha)
        case "mail":
            return by_margin(plain, mail, beta=beta, gamma=gamma)
        case "ours_wmmr":
            return by_margin(reweighted, wmmr, alpha=1.0)  # the paper drops alpha here (Eq. 15)
        case "ours_mail":
            return by_margin(reweighted, mail, beta=beta, gamma=gamma)


METHODS = ("standard", "gairat", "ewat", "wmmr", "mail", "ours_wmmr", "ours_mail")
