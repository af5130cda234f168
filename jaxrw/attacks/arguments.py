"""Checks and conversions of the arguments that the attacks share."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np

from jaxrw.attacks import norms
from jaxrw.attacks.types import Scalar
from jaxrw.networks.rewriting import FastConvolutions

STATEFUL = (
    "logits_fn changes its own state, as a Flax NNX model in training mode does, but attacks need a model in "
    "evaluation mode: call model.eval() first"
)


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


def prepare(
    images: jax.Array, labels: jax.Array, index: jax.Array | None, *, eps: Scalar, norm: str
) -> Examples:
    """Checks the arguments that the attacks share, and converts images to float32 and integers to int32.

    Values are checked where they are known, outside of a compiled program.

    Args:
      images: [B, H, W, C].
      labels: [B].
      index: [B]; None: the place in the batch.
      eps: radius.
      norm: of eps.

    Raises:
      AssertionError: other shapes.
      ValueError: unknown norm, images or eps that are bytes, or negative labels.
    """
    check_shapes(images, labels)
    index = jnp.arange(len(labels)) if index is None else index
    chex.assert_equal_shape([labels, index])
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images are {images.dtype}; must be float in [0, 1]: divide bytes by 255")
    if _is_known(images) and images.size:
        check_range(float(images.min()), float(images.max()))
    if _is_known(labels) and labels.size and labels.min() < 0:
        raise ValueError(f"labels begin with {int(labels.min())}; must be in 0..K-1")
    norms.get(norm)
    if _is_known(eps) and jnp.size(eps) == 1:
        check_radius(float(eps), images.shape[1:], norm=norm, may_be_zero=True)
    return Examples(
        jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32), jnp.asarray(index, jnp.int32)
    )


def check_range(low: float, high: float) -> None:
    """Raises ValueError unless pixels from `low` to `high` lie in [0, 1]."""
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"images range from {low:.6g} to {high:.6g}; must lie in [0, 1]: divide bytes by 255"
        )


def check_radius(eps: float, shape: tuple[int, ...], *, norm: str, may_be_zero: bool = False) -> None:
    """Raises ValueError for a radius below 0, or above the distance of any two images [H, W, C]."""
    largest = norms.get(norm).largest_eps(shape)
    if not (0 <= eps <= largest and (may_be_zero or eps > 0)):
        usual = "8 / 255, not 8" if norm == "linf" else f"no images are further apart in norm {norm!r}"
        bracket = "[" if may_be_zero else "("
        raise ValueError(f"eps is {eps:g}; must be in {bracket}0, {largest:.4g}], as pixels are: {usual}")


def as_partial(logits_fn: Callable[..., jax.Array]) -> jax.tree_util.Partial:
    """Converts `logits_fn` to a pytree with fast convolutions, so that compiled programs take it as an argument.

    The arrays of a `jax.tree_util.Partial` and of a Flax NNX model become arguments of the program; what else a
    `Partial` holds, such as `train=False`, becomes a constant. Any other function becomes static and is compared by
    identity.
    """
    partial = logits_fn if isinstance(logits_fn, jax.tree_util.Partial) else jax.tree_util.Partial(logits_fn)
    if isinstance(partial.func, FastConvolutions):
        return partial
    function, *state = _without_state(partial.func)
    leaves, structure = jax.tree.flatten(((*state, *partial.args), partial.keywords))
    arrays = {i: leaf for i, leaf in enumerate(leaves) if _is_array(leaf)}
    constants = tuple((i, leaf) for i, leaf in enumerate(leaves) if i not in arrays)
    return jax.tree_util.Partial(FastConvolutions(_Bound(function, structure, constants)), *arrays.values())


@dataclasses.dataclass(frozen=True)
class _Bound:
    """A function of a model's arrays and of images, made of a `Partial`; equal for equal functions and constants.

    Attributes:
      function: the function of the `Partial`; that of an NNX model takes its state first.
      structure: of the positional and keyword arguments of the `Partial`, after that state if there is one.
      constants: the leaves of these arguments that are no arrays, with their places.
    """

    function: Callable[..., Any]
    structure: jax.tree_util.PyTreeDef
    constants: tuple[tuple[int, Any], ...]

    def __call__(self, *arguments: Any) -> Any:
        num_arrays = self.structure.num_leaves - len(self.constants)
        leaves = dict(self.constants)
        places = [i for i in range(self.structure.num_leaves) if i not in leaves]
        leaves |= dict(zip(places, arguments[:num_arrays], strict=True))
        args, keywords = jax.tree.unflatten(self.structure, [leaves[i] for i in sorted(leaves)])
        return self.function(*args, *arguments[num_arrays:], **keywords)


@dataclasses.dataclass(frozen=True)
class _NnxCall:
    """A Flax NNX model as a function of its state and images; equal for models of one structure."""

    graph: Any

    def __call__(self, state: Any, *args: Any, **keywords: Any) -> Any:
        """Raises ValueError if the call changes the state, as that of a model in training mode does."""
        nnx = sys.modules["flax.nnx"]
        before = jax.tree.leaves(state)  # Now, because the model may share the variables of `state`.
        model = nnx.merge(self.graph, state)
        logits = model(*args, **keywords)
        after = jax.tree.leaves(nnx.state(model))
        if len(before) != len(after) or any(old is not new for old, new in zip(before, after, strict=True)):
            raise ValueError(STATEFUL)
        return logits


def _without_state(function: Callable[..., Any]) -> tuple[Any, ...]:
    """Returns a function, and in the case of a Flax NNX model its arrays, which someone may change in place."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None or not isinstance(function, nnx.Module):
        return (function,)
    graph, state = nnx.split(function)
    return _NnxCall(graph), state


def _is_array(value: object) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic)


def _is_known(value: object) -> bool:
    """Returns whether an argument has values here, and is not traced by a compilation."""
    return not isinstance(value, jax.core.Tracer)
