"""The norms that bound a perturbation: its length, the ball, random directions, the direction of steepest ascent.

Arrays are batches [B, H, W, C]; every example is treated on its own.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from jaxrw.attacks.types import Scalar

# Share of the pixels that a step in the L1 norm moves, as in Tramer and Boneh 2019.
SPARSITY = 0.01

# Halvings of an interval of thresholds: float32 tells no more apart.
_HALVINGS = 40


class _Length(Protocol):
    def __call__(self, steps: jax.Array, *, keepdims: bool = False) -> jax.Array: ...


class _Project(Protocol):
    def __call__(self, points: jax.Array, images: jax.Array, *, eps: Scalar) -> jax.Array: ...


class _Draw(Protocol):
    def __call__(
        self, key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype, *, eps: Scalar
    ) -> jax.Array: ...


@dataclasses.dataclass(frozen=True)
class Norm:
    """A norm, and what attacks need of it.

    Attributes:
      name: as in configs.
      title: as in texts.
      order: p of the p-norm.
      low_eps: a positive radius below this one was probably meant for another norm.
      length: norm of steps [B, ...]; [B], or [B, 1, ..., 1] with `keepdims`.
      project: moves points into the ball of radius `eps` around the images, and into [0, 1]; `eps` is a number, or
        [B, 1, 1, 1].
      steepest: turns a gradient into a direction of length 1, or 0 where the gradient is 0.
      noise: (key, shape) -> float32 noise of one example, of random direction and any length.
      draw: (key, shape, dtype, eps) -> random step of one example in the ball.
    """

    name: str
    title: str
    order: float
    low_eps: float
    length: _Length
    project: _Project
    steepest: Callable[[jax.Array], jax.Array]
    noise: Callable[[jax.Array, tuple[int, ...]], jax.Array]
    draw: _Draw

    def ascend(self, gradient: jax.Array) -> jax.Array:
        """Returns the direction of the steepest ascent, of length 1; a gradient that is 0 or NaN moves nothing."""
        return jnp.nan_to_num(self.steepest(gradient))

    def largest_eps(self, shape: tuple[int, ...]) -> float:
        """Returns the distance between opposite corners of the box [0, 1] of images [H, W, C]."""
        return math.prod(shape) ** (1 / self.order)


def get(name: str) -> Norm:
    """Returns the norm of a name; raises ValueError if there is none."""
    if name not in NORMS:
        raise ValueError(f"norm is {name!r}; choose one of {', '.join(NORMS)}")
    return NORMS[name]


def doubts(norm: str, eps: float) -> str | None:
    """Returns a sentence if a radius was probably meant for another norm, or else None."""
    if not 0 < eps < NORMS[norm].low_eps:
        return None
    return (
        f"eps is {eps:.4g} for norm {norm!r}, where 0.5 (l2) and 12 (l1) are usual on CIFAR-10; such a small radius "
        "is usual for 'linf'"
    )


def _length_linf(steps: jax.Array, *, keepdims: bool = False) -> jax.Array:
    return jnp.abs(steps).max(range(1, steps.ndim), keepdims=keepdims)


def _length_l2(steps: jax.Array, *, keepdims: bool = False) -> jax.Array:
    return jnp.sqrt(jnp.square(steps).sum(range(1, steps.ndim), keepdims=keepdims))


def _length_l1(steps: jax.Array, *, keepdims: bool = False) -> jax.Array:
    return jnp.abs(steps).sum(range(1, steps.ndim), keepdims=keepdims)


def _project_linf(points: jax.Array, images: jax.Array, *, eps: Scalar) -> jax.Array:
    return jnp.clip(jnp.clip(points, images - eps, images + eps), 0, 1)


def _project_l2(points: jax.Array, images: jax.Array, *, eps: Scalar) -> jax.Array:
    """Scales a step that is too long, then clips it to the box, which only shortens it."""
    steps = points - images
    length = _length_l2(steps, keepdims=True)
    return jnp.clip(images + steps * jnp.where(length > eps, eps / length, 1), 0, 1)


def _project_l1(points: jax.Array, images: jax.Array, *, eps: Scalar) -> jax.Array:
    """Computes the nearest point of the ball within the box, in the Euclidean distance.

    It takes a threshold off every pixel's step and then clips it to the box. The length falls as the threshold rises,
    so halving finds the smallest threshold that ends in the ball (Croce and Hein 2021, Proposition 2.1).
    """
    steps = points - images
    sizes, room = jnp.abs(steps), jnp.where(steps > 0, 1 - images, images)

    def shortened(threshold: jax.Array) -> jax.Array:
        return jnp.clip(sizes - threshold, 0, room)

    def halve(_: int, interval: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = interval
        middle = (low + high) / 2
        outside = _length_l1(shortened(middle), keepdims=True) > eps
        return jnp.where(outside, middle, low), jnp.where(outside, high, middle)

    largest = _length_linf(steps, keepdims=True)
    threshold = jax.lax.fori_loop(0, _HALVINGS, halve, (jnp.zeros_like(largest), largest))[1]
    inside = jnp.clip(points, 0, 1)
    fits = _length_l1(shortened(jnp.zeros_like(largest)), keepdims=True) <= eps
    return jnp.where(fits, inside, jnp.clip(images + jnp.sign(steps) * shortened(threshold), 0, 1))


def _ascend_l2(gradient: jax.Array) -> jax.Array:
    """Divides by the length; by the largest entry first, so that small gradients do not become 0 when squared."""
    largest = _length_linf(gradient, keepdims=True)
    scaled = gradient / jnp.where(largest > 0, largest, 1)
    return scaled / jnp.maximum(_length_l2(scaled, keepdims=True), 1)  # The largest entry is 1, or all are 0.


def _ascend_l1(gradient: jax.Array) -> jax.Array:
    """Moves the pixels of largest gradient equally: the steepest direction alone would move one pixel at a time."""
    sizes = jnp.abs(gradient).reshape(len(gradient), -1)
    number = max(1, round(SPARSITY * sizes.shape[1]))
    least = jax.lax.top_k(sizes, number)[0][:, -1].reshape(-1, *[1] * (gradient.ndim - 1))
    return sparse_sign(gradient, least)


def sparse_sign(gradient: jax.Array, least: jax.Array) -> jax.Array:
    """Returns the signs of the entries of at least a size [B, 1, ..., 1], scaled to an L1 norm of 1."""
    signs = jnp.where(jnp.abs(gradient) >= least, jnp.sign(gradient), 0)
    return signs / jnp.maximum(_length_l1(signs, keepdims=True), 1)


def _uniform_noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.uniform(key, shape, jnp.float32, -1, 1)


def _normal_noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.normal(key, shape, jnp.float32)


def _draw_linf(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype, *, eps: Scalar) -> jax.Array:
    """Draws from the uniform distribution in the ball."""
    return jax.random.uniform(key, shape, dtype, -eps, eps)


def _draw_l2(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype, *, eps: Scalar) -> jax.Array:
    """Draws a direction uniformly, and a length uniformly in [0, eps]."""
    direction_key, radius_key = jax.random.split(key)
    direction = jax.random.normal(direction_key, shape, dtype)
    return direction / _length_l2(direction[None])[0] * jax.random.uniform(radius_key, (), dtype, 0, eps)


def _draw_l1(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype, *, eps: Scalar) -> jax.Array:
    """Draws a point of the sphere uniformly, and a length uniformly in [0, eps]."""
    direction_key, radius_key = jax.random.split(key)
    direction = jax.random.laplace(direction_key, shape, dtype)
    return direction / _length_l1(direction[None])[0] * jax.random.uniform(radius_key, (), dtype, 0, eps)


NORMS = {
    norm.name: norm
    for norm in (
        Norm(
            name="linf",
            title="L-infinity",
            order=math.inf,
            low_eps=0,
            length=_length_linf,
            project=_project_linf,
            steepest=jnp.sign,
            noise=_uniform_noise,
            draw=_draw_linf,
        ),
        Norm(
            name="l2",
            title="L2",
            order=2,
            low_eps=0.05,
            length=_length_l2,
            project=_project_l2,
            steepest=_ascend_l2,
            noise=_normal_noise,
            draw=_draw_l2,
        ),
        Norm(
            name="l1",
            title="L1",
            order=1,
            low_eps=1,
            length=_length_l1,
            project=_project_l1,
            steepest=_ascend_l1,
            noise=_normal_noise,
            draw=_draw_l1,
        ),
    )
}

# The dual of each norm: a linear function's distance from 0 is its value by the dual norm of its gradient.
DUALS = {"linf": "l1", "l2": "l2", "l1": "linf"}
