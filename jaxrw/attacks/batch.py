"""What APGD, FAB and Square share: examples that each count their own steps and stop on their own.

An attack is a frozen dataclass of settings with two methods:

    start(key, batch, *, eps) -> state              of all examples, before anything is evaluated
    step(key, logits_fn, batch, state, *, eps)      -> state after each example's next step

A state is a dataclass of arrays with the examples first, among them `adversarial`, `fooled` and `running`. No
example ever looks at another, so that neither the batch's size, nor its other examples, nor the moment at which
it entered the batch change what happens to it.
"""

import functools

import chex
import flax
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Batch:
    """Examples under attack, of one target each; a pytree."""

    images: chex.Array  # [B, H, W, C] float32 in [0, 1]
    labels: chex.Array  # [B] int32 in 0..K-1
    targets: chex.Array  # [B] int32 in 0..K-1; untargeted attacks do not look at it
    rank: chex.Array  # [B] int32, the target's place in the ranking; part of the random key
    index: chex.Array  # [B] int32, the example's name to the random key

    def keys(self, key):
        """[B] keys, each of `key`, the example's index and its target's rank alone."""
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, self.index)
        return jax.vmap(jax.random.fold_in)(keys, self.rank)


def as_function(logits_fn):
    """`logits_fn` as a pytree, so that compiled programs can take it as an argument.

    A plain function is static and compared by identity: pass the same object again and nothing is compiled
    again. The arrays of a `jax.tree_util.Partial` are arguments of the program: nothing is compiled again for
    other parameters either.
    """
    return logits_fn if isinstance(logits_fn, jax.tree_util.Partial) else jax.tree_util.Partial(logits_fn)


@functools.partial(jax.jit, static_argnames="attack")
def begin(key, batch, occupied, *, attack, eps):
    """State before the first step; examples that are not `occupied` [B] bool never run."""
    state = attack.start(key, batch, eps=eps)
    return state.replace(running=state.running & occupied)


@jax.jit
def choose_states(fresh, begun, state):
    """State in which the examples marked `fresh` [B] bool are those of `begun` and the others go on."""
    return jax.tree.map(lambda new, old: choose(fresh, new, old), begun, state)


@functools.partial(jax.jit, static_argnames=("attack", "num_steps"))
def advance(key, logits_fn, batch, state, *, attack, eps, num_steps):
    """State after `num_steps` more steps of every example that still runs, fewer where none does."""

    def unfinished(carry):
        done, state = carry
        return (done < num_steps) & state.running.any()

    def body(carry):
        done, state = carry
        moved = attack.step(key, logits_fn, batch, state, eps=eps)
        return done + 1, jax.tree.map(lambda new, old: choose(state.running, new, old), moved, state)

    return jax.lax.while_loop(unfinished, body, (0, state))[1]


def attack_targets(key, logits_fn, images, labels, targets, index, *, attack, eps):
    """Attack one target after the other: [B, T] targets -> adversarial [B, H, W, C], fooled [B].

    An example is dropped once it is fooled; where none fools it, what the first target led to is returned.
    """

    def attack_next(carry, ranked):
        adversarial, fooled = carry
        rank, target = ranked
        batch = Batch(images, labels, target, jnp.full_like(index, rank), index)
        state = begin(key, batch, ~fooled, attack=attack, eps=eps)
        state = advance(key, logits_fn, batch, state, attack=attack, eps=eps, num_steps=attack.evaluations)
        adversarial = choose(~fooled & (state.fooled | (rank == 0)), state.adversarial, adversarial)
        return (adversarial, fooled | state.fooled), None

    ranks = jnp.arange(targets.shape[1], dtype=jnp.int32)
    first = images, jnp.zeros(labels.shape, bool)
    return jax.lax.scan(attack_next, first, (ranks, targets.T))[0]


def choose(condition, new, old):
    """`jnp.where` with a condition [B] for arrays [B, ...]."""
    return jnp.where(condition.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def largest(values):
    """Largest entry of each example: [B, ...] -> [B, 1, ..., 1]."""
    return values.max(range(1, values.ndim), keepdims=True)


def prepare(images, labels, index):
    """Arrays of one call in the types of `Batch`; index None: the place in the batch."""
    chex.assert_rank([images, labels], [4, 1])
    chex.assert_equal_shape_prefix([images, labels], 1)
    index = jnp.arange(len(labels)) if index is None else index
    chex.assert_equal_shape([labels, index])
    return images.astype(jnp.float32), labels.astype(jnp.int32), index.astype(jnp.int32)
