"""Training losses of one example, logits [K] and a label in and a float32 scalar out, and the objectives' records.

To add an objective, write the function of its loss and add a record to `OBJECTIVES`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import chex
import jax
import jax.numpy as jnp
import optax


class Loss(Protocol):
    """Computes the loss of one example."""

    def __call__(
        self, clean_logits: jax.Array | None, logits: jax.Array, label: jax.Array, weight: jax.Array, /
    ) -> jax.Array:
        """Returns a [] float32 loss from logits [K] of the clean image, None if not needed, and the adversarial."""
        ...


def cross_entropy(logits: jax.Array, label: jax.Array, *, smoothing: float = 0.0) -> jax.Array:
    """Computes the cross-entropy in nats, at least 0.

    Args:
      logits: [K] float.
      label: [] integer in 0..K-1.
      smoothing: share in [0, 1) of the label that is spread evenly over all classes.

    Returns:
      [] float32.
    """
    chex.assert_rank([logits, label], [1, 0])
    logits = logits.astype(jnp.float32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    if smoothing == 0:
        return loss
    return (1 - smoothing) * loss - smoothing * jax.nn.log_softmax(logits).mean()


def standard(
    adversarial_logits: jax.Array, label: jax.Array, weight: jax.Array, *, smoothing: float = 0.0
) -> jax.Array:
    """Computes the weighted cross-entropy of one adversarial example in nats, at least 0 (Algorithm 1, line 17).

    Args:
      adversarial_logits: [K] float.
      label: [] integer in 0..K-1.
      weight: [] float, at least 0.
      smoothing: see `cross_entropy`.

    Returns:
      [] float32.
    """
    return weight * cross_entropy(adversarial_logits, label, smoothing=smoothing)


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
      lam: factor of the KL divergence, at least 0. TRADES uses 6, MAIL-TRADES 5.
      smoothing: of the cross-entropy, see there.

    Returns:
      [] float32.
    """
    chex.assert_rank([clean_logits, adversarial_logits, label], [1, 1, 0])
    divergence = kl_divergence(clean_logits, adversarial_logits)
    return cross_entropy(clean_logits, label, smoothing=smoothing) + lam * weight * divergence


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
      lam: factor of the KL divergence, at least 0. The authors' is 5.

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


@dataclasses.dataclass(frozen=True)
class Objective:
    """What training minimizes.

    Attributes:
      name: as in configs and in results.json.
      title: as in tables.
      loss: the function of one example. Arguments named `clean_logits`, `lam` and `smoothing` are given if it has them.
      attack_loss: what the training attack ascends, see `jaxrw.attacks.pgd`.
    """

    name: str
    title: str
    loss: Callable[..., jax.Array]
    attack_loss: str = "ce"

    @property
    def needs_clean_logits(self) -> bool:
        """Whether each step also applies the model to the clean images in training mode."""
        return "clean_logits" in self._arguments

    @property
    def constants(self) -> tuple[str, ...]:
        """Fields of `config.objective` that the loss depends on."""
        return tuple(name for name in ("lam", "smoothing") if name in self._arguments)

    def bind(self, constants: Mapping[str, Any]) -> Loss:
        """Returns the loss as a function of logits, label and weight alone.

        Args:
          constants: values by name; those that the loss does not read are ignored.
        """
        values = {name: constants[name] for name in self.constants}
        if self.needs_clean_logits:
            return functools.partial(self.loss, **values)
        return lambda _, logits, label, weight: self.loss(logits, label, weight, **values)

    @property
    def _arguments(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.loss).parameters


OBJECTIVES = {
    objective.name: objective
    for objective in (
        Objective("standard", "Standard", standard),
        Objective("trades", "TRADES", trades, attack_loss="kl"),
        Objective("mart", "MART", mart),
    )
}
