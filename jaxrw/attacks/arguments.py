"""Checks and conversions of the arguments that the attacks share."""

from collections.abc import Callable

import chex
import flax
import jax
import jax.numpy as jnp

from jaxrw.networks.rewriting import FastConvolutions


class Examples(flax.struct.PyTreeNode):
    """Examples to attack, without targets."""

    images: jax.Array  # [B, H, W, C] float in [0, 1]
    labels: jax.Array  # [B] integer in 0..K-1
    index: jax.Array  # [B] integer, identifies the example in the random key


def check_at_least(minimum: int, **numbers: int) -> None:
    """Raises ValueError, with its name, for the first number below `minimum`."""
    for name, number in numbers.items():
        if number < minimum:
            raise ValueError(f"{name} is {number}; must be {minimum} or more")


def check_shapes(images: jax.Array, labels: jax.Array) -> None:
    """Raises AssertionError unless the shapes are [B, H, W, C] and [B]."""
    chex.assert_rank([images, labels], [4, 1])
    chex.assert_equal_shape_prefix([images, labels], 1)


def prepare(images: jax.Array, labels: jax.Array, index: jax.Array | None) -> Examples:
    """Checks shapes and converts to float32 and int32; index None: the place in the batch."""
    check_shapes(images, labels)
    index = jnp.arange(len(labels)) if index is None else index
    chex.assert_equal_shape([labels, index])
    return Examples(images.astype(jnp.float32), labels.astype(jnp.int32), index.astype(jnp.int32))


def as_partial(logits_fn: Callable[..., jax.Array]) -> jax.tree_util.Partial:
    """Converts `logits_fn` to a pytree with fast convolutions, so that compiled programs take it as an argument.

    A plain function becomes static and is compared by identity. The arrays of a `jax.tree_util.Partial` become
    arguments of the program.
    """
    partial = logits_fn if isinstance(logits_fn, jax.tree_util.Partial) else jax.tree_util.Partial(logits_fn)
    if isinstance(partial.func, FastConvolutions):
        return partial
    return jax.tree_util.Partial(FastConvolutions(partial.func), *partial.args, **partial.keywords)
