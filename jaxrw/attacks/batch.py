"""The common part of APGD, FAB and Square: examples that count their own steps and stop on their own.

No example depends on another. So neither the size of the batch, nor its other examples, nor the moment at which an
example enters the batch changes the example's result.
"""

import functools
from typing import Protocol, TypeVar

import flax
import jax
import jax.numpy as jnp

from jaxrw.attacks.arguments import Examples
from jaxrw.attacks.losses import rank_targets
from jaxrw.attacks.types import LogitsFn, Scalar


class Batch(flax.struct.PyTreeNode):
    """Examples under attack, each with one target."""

    images: jax.Array  # [B, H, W, C] float32 in [0, 1]
    labels: jax.Array  # [B] int32 in 0..K-1
    targets: jax.Array  # [B] int32 in 0..K-1; untargeted attacks ignore it
    rank: jax.Array  # [B] int32, the target's place in the ranking; part of the random key
    index: jax.Array  # [B] int32, identifies the example in the random key

    def keys(self, key: jax.Array) -> jax.Array:
        """Returns [B] keys, each derived from `key`, the example's index and its target's rank alone."""
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, self.index)
        return jax.vmap(jax.random.fold_in)(keys, self.rank)


class AttackState(flax.struct.PyTreeNode):
    """Arrays that every attack carries from step to step; an attack's subclass adds its own.

    AutoAttack's state file holds the arrays in this order.
    """

    adversarial: jax.Array  # [B, H, W, C], image that fooled, or else the best one so far
    fooled: jax.Array  # [B] bool
    running: jax.Array  # [B] bool
    step: jax.Array  # [B] int32, steps taken
    current: jax.Array  # [B, H, W, C], image that the next step begins with


def start_fields(images: jax.Array) -> dict[str, jax.Array]:
    """Returns the fields of `AttackState` before the first step, for an attack that starts from `images`."""
    size = images.shape[:1]
    return {
        "adversarial": images,
        "fooled": jnp.zeros(size, bool),
        "running": jnp.ones(size, bool),
        "step": jnp.zeros(size, jnp.int32),
        "current": images,
    }


State = TypeVar("State", bound=AttackState)


class IterativeAttack(Protocol[State]):
    """An attack on examples with one target each: a frozen dataclass of its settings."""

    @property
    def targeted(self) -> bool:
        """Whether the attack aims at a target."""
        ...

    @property
    def max_steps(self) -> int:
        """Steps after which every example has stopped."""
        ...

    def start(self, key: jax.Array, batch: Batch, *, eps: Scalar) -> State:
        """Returns the state before the first step, with all examples running and the model not evaluated."""
        ...

    def step(self, key: jax.Array, logits_fn: LogitsFn, batch: Batch, state: State, *, eps: Scalar) -> State:
        """Returns the state after one more step of every example."""
        ...


@functools.partial(jax.jit, static_argnames="attack")
def begin(
    key: jax.Array, batch: Batch, active: jax.Array, *, attack: IterativeAttack[State], eps: Scalar
) -> State:
    """Returns the state before the first step, in which only the `active` [B] bool examples run."""
    state = attack.start(key, batch, eps=eps)
    return state.replace(running=state.running & active)


@jax.jit
def choose_states(condition: jax.Array, new: State, old: State) -> State:
    """Returns the state with the examples of `new` where `condition` [B] bool holds, and of `old` elsewhere."""
    return jax.tree.map(functools.partial(choose, condition), new, old)


@functools.partial(jax.jit, static_argnames=("attack", "num_steps"))
def advance(
    key: jax.Array,
    logits_fn: LogitsFn,
    batch: Batch,
    state: State,
    *,
    attack: IterativeAttack[State],
    eps: Scalar,
    num_steps: int,
) -> State:
    """Takes up to `num_steps` more steps; examples that have stopped keep their state."""

    def unfinished(carry: tuple[int, State]) -> jax.Array:
        done, state = carry
        return (done < num_steps) & state.running.any()

    def body(carry: tuple[int, State]) -> tuple[int, State]:
        done, state = carry
        moved = attack.step(key, logits_fn, batch, state, eps=eps)
        return done + 1, jax.tree.map(functools.partial(choose, state.running), moved, state)

    return jax.lax.while_loop(unfinished, body, (0, state))[1]


def run(
    key: jax.Array,
    logits_fn: LogitsFn,
    batch: Batch,
    active: jax.Array,
    *,
    attack: IterativeAttack[State],
    eps: Scalar,
) -> State:
    """Runs an attack on the `active` [B] bool examples from its start to its end."""
    state = begin(key, batch, active, attack=attack, eps=eps)
    return advance(key, logits_fn, batch, state, attack=attack, eps=eps, num_steps=attack.max_steps)


def run_targets(
    key: jax.Array,
    logits_fn: LogitsFn,
    examples: Examples,
    logits: jax.Array,
    *,
    attack: IterativeAttack[State],
    num_rounds: int,
    eps: Scalar,
) -> jax.Array:
    """Runs an attack on what its earlier rounds have left; returns adversarial images [B, H, W, C].

    A fooled example is not attacked again. An example that no round fools gets its image of the first one.

    Args:
      key: PRNG key.
      logits_fn: the model.
      examples: to attack.
      logits: [B, K] of their images.
      attack: with a target, rounds aim at the likeliest wrong classes one after the other, K - 1 of them at most;
        without one, they begin at different places.
      num_rounds: at least 1.
      eps: radius.
    """
    num_targets = num_rounds if attack.targeted else 1
    targets = jax.vmap(rank_targets, (0, 0, None))(logits, examples.labels, num_targets)
    if not attack.targeted:
        targets = jnp.tile(targets, (1, num_rounds))
    images, labels, index = examples.images, examples.labels, examples.index

    def attack_next(
        carry: tuple[jax.Array, jax.Array], ranked: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        adversarial, fooled = carry
        rank, target = ranked
        batch = Batch(images, labels, target, jnp.full_like(index, rank), index)
        state = run(key, logits_fn, batch, ~fooled, attack=attack, eps=eps)
        adversarial = choose(~fooled & (state.fooled | (rank == 0)), state.adversarial, adversarial)
        return (adversarial, fooled | state.fooled), None

    ranks = jnp.arange(targets.shape[1], dtype=jnp.int32)
    first = images, jnp.zeros(labels.shape, bool)
    return jax.lax.scan(attack_next, first, (ranks, targets.T))[0][0]


def choose(condition: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Applies `jnp.where` with a condition [B] to arrays [B, ...]."""
    return jnp.where(condition.reshape(-1, *[1] * (new.ndim - 1)), new, old)
