"""Random models: functions of images and a key, attacked by the mean of several gradients, judged by several votes.

Each image gets keys of its own, so that its outputs depend neither on the batch nor on the other examples in it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxrw.attacks.apgd import Apgd
from jaxrw.attacks.apgd_l1 import ApgdL1
from jaxrw.attacks.ascent import differentiate
from jaxrw.attacks.batch import AttackState, Batch, choose, start_fields
from jaxrw.attacks.types import LogitsFn, Scalar
from jaxrw.methods.margins import is_correct


class RandomLogitsFn(Protocol):
    """A random model in evaluation mode."""

    def __call__(self, images: jax.Array, key: jax.Array, /) -> jax.Array:
        """Returns logits [B, K] of images [B, H, W, C] in [0, 1], a pure function of both arguments."""
        ...


def call(logits_fn: RandomLogitsFn, images: jax.Array, keys: jax.Array) -> jax.Array:
    """Returns logits [B, K] of images [B, H, W, C], each alone and with its own key of [B] keys."""
    return jax.vmap(lambda image, key: logits_fn(image[None], key)[0])(images, keys)


def vote(
    logits_fn: RandomLogitsFn, images: jax.Array, labels: jax.Array, keys: jax.Array, *, num_votes: int
) -> tuple[jax.Array, jax.Array]:
    """Evaluates a random model several times.

    Args:
      logits_fn: the model.
      images: [B, H, W, C] in [0, 1].
      labels: [B] int32.
      keys: [B] keys.
      num_votes: number of evaluations.

    Returns:
      The mean logits [B, K] float32, and whether more than half of the evaluations are correct [B].
    """

    def one(right: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = call(logits_fn, images, _folded(keys, number)).astype(jnp.float32)
        return right + jax.vmap(is_correct)(logits, labels), logits

    none = jnp.zeros(labels.shape, jnp.int32)
    right, logits = jax.lax.scan(one, none, jnp.arange(num_votes))
    return logits.mean(0), 2 * right > num_votes


class RandomModelState(AttackState):
    """State of an attack on a random model; `adversarial` is the iterate that most samples got wrong."""

    inner: Any  # state of the attack itself
    wrong: jax.Array  # [B] int32, number of samples that got `adversarial` wrong


@dataclasses.dataclass(frozen=True)
class OfRandomModel:
    """AutoPGD on a random model, as an `IterativeAttack`: expectation over transformation (Athalye et al. 2018).

    Gradients and losses are means over samples, each with other random numbers. Votes decide: an iterate fools if at
    least half of its samples are wrong. Because chance decides too, the attack goes on until all samples are wrong,
    and returns the iterate with the most wrong ones.
    """

    attack: Apgd | ApgdL1
    num_samples: int = 20

    @property
    def targeted(self) -> bool:
        """Whether the attack aims at a target."""
        return self.attack.targeted

    @property
    def max_steps(self) -> int:
        """Iterates that are evaluated, the start included."""
        return self.attack.max_steps

    def start(self, key: jax.Array, batch: Batch, *, eps: Scalar) -> RandomModelState:
        """Starts as the attack does."""
        inner = self.attack.start(key, batch, eps=eps)
        wrong = jnp.full(batch.labels.shape, -1, jnp.int32)
        return RandomModelState(**start_fields(inner.current), inner=inner, wrong=wrong)

    def step(
        self,
        key: jax.Array,
        logits_fn: Callable[..., jax.Array],
        batch: Batch,
        state: RandomModelState,
        *,
        eps: Scalar,
    ) -> RandomModelState:
        """Evaluates all samples of the iterate, and takes the attack's step."""
        keys = jax.vmap(jax.random.fold_in)(batch.keys(key), state.step)

        def sample(sums: Any, number: jax.Array) -> tuple[Any, None]:
            model: LogitsFn = lambda images: call(logits_fn, images, _folded(keys, number))  # noqa: E731
            gradient, losses, logits = differentiate(model, state.current, batch, loss=self.attack.loss)
            wrong = ~jax.vmap(is_correct)(logits, batch.labels)
            return jax.tree.map(jnp.add, sums, (gradient, losses, wrong.astype(jnp.int32))), None

        size = batch.labels.shape
        none = jnp.zeros_like(state.current), jnp.zeros(size, jnp.float32), jnp.zeros(size, jnp.int32)
        (gradient, losses, wrong), _ = jax.lax.scan(sample, none, jnp.arange(self.num_samples))
        more = self.attack.counts(state.inner) & (wrong > state.wrong)
        most = jnp.where(more, wrong, state.wrong)
        inner = self.attack.take(
            batch,
            state.inner,
            self.attack.direction(gradient / self.num_samples),
            losses / self.num_samples,
            jnp.zeros(size, bool),
            eps=eps,
        )
        return state.replace(
            adversarial=choose(more, state.current, state.adversarial),
            fooled=2 * most >= self.num_samples,
            running=inner.running & (most < self.num_samples),
            step=state.step + 1,
            current=inner.current,
            inner=inner,
            wrong=most,
        )


def _folded(keys: jax.Array, number: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)
