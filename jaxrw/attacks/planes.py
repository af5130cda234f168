"""Projection onto a plane within the box [0, 1], in each norm: the step of FAB."""

import chex
import jax
import jax.numpy as jnp

from jaxrw.attacks import norms
from jaxrw.attacks.thresholds import threshold

# Every Newton step of the projection passes a pixel's bound or is the last; 5 to 10 are usual, for any image size.
_NEWTON_STEPS = 100


def project_on_plane(
    points: jax.Array, normals: jax.Array, offsets: jax.Array, *, norm: str = "linf"
) -> jax.Array:
    """Computes the smallest step, in a norm, from each point to its plane within the box [0, 1].

    Minimizes |d| subject to `<normal, d> = offset` and `0 <= point + d <= 1`. If the box does not reach the plane, the
    step leads to the box's corner nearest to it.

    Args:
      points: [B, ...] float in [0, 1].
      normals: [B, ...] float.
      offsets: [B] float, `b - <normal, point>` of the plane `<normal, x> = b`.
      norm: a key of `norms.NORMS`.

    Returns:
      [B, ...] steps d; 0 for pixels whose normal is 0.
    """
    chex.assert_equal_shape([points, normals])
    chex.assert_shape(offsets, points.shape[:1])
    norms.get(norm)
    shape, size = points.shape, len(points)
    points, normals = points.reshape(size, -1), jnp.nan_to_num(normals).reshape(size, -1)
    signs = jnp.sign(normals) * jnp.where(offsets < 0, -1, 1)[:, None]
    room = jnp.where(signs > 0, 1 - points, jnp.where(signs < 0, points, 0))
    weights, distances = jnp.abs(normals), jnp.abs(jnp.nan_to_num(offsets))
    if norm == "l1":
        return (signs * _fill(weights, room, distances)).reshape(shape)
    if norm == "linf":
        return (signs * _grow(weights, room, distances)).reshape(shape)
    # Pixels move in proportion to their weight. The largest is 1, so that no square of a weight becomes 0.
    scale = weights.max(1)
    scale = jnp.where(scale > 0, scale, 1)
    weights = weights / scale[:, None]
    return (signs * _grow(weights, room, distances / scale, speeds=weights)).reshape(shape)


def _grow(
    weights: jax.Array, room: jax.Array, distances: jax.Array, speeds: jax.Array | None = None
) -> jax.Array:
    """Returns how far each pixel [B, n] moves when all move at their speed, None: 1, until the plane is reached.

    A pixel stops at the end of its room, so the distance covered, sum(weights * min(t * speeds, room)), is a concave,
    piecewise linear function of t. Newton's method from t = 0 rises to the solution without passing it, in finitely
    many steps and without sorting.
    """
    rates = weights if speeds is None else weights * speeds

    def moved(t: jax.Array) -> jax.Array:
        return t[:, None] if speeds is None else t[:, None] * speeds

    def unfinished(carry: tuple[int, jax.Array, jax.Array]) -> jax.Array:
        done, _, rising = carry
        return (done < _NEWTON_STEPS) & rising.any()

    def newton(carry: tuple[int, jax.Array, jax.Array]) -> tuple[int, jax.Array, jax.Array]:
        done, t, rising = carry
        reach = (weights * jnp.minimum(moved(t), room)).sum(1)
        slope = jnp.where(room > moved(t), rates, 0).sum(1)
        missing = distances - reach
        # With a slope of 0 every pixel is at its bound: the box does not reach the plane.
        further = t + jnp.where(slope > 0, missing / jnp.maximum(slope, jnp.finfo(slope.dtype).tiny), 0)
        rises = rising & (further > t)
        return done + 1, jnp.where(rises, further, t), rises

    start = 0, jnp.zeros(len(room), room.dtype), jnp.ones(len(room), bool)
    t = jax.lax.while_loop(unfinished, newton, start)[1]
    return jnp.minimum(moved(t), room)


def _fill(weights: jax.Array, room: jax.Array, distances: jax.Array) -> jax.Array:
    """Returns how far each pixel [B, n] moves when the heaviest moves first, as far as it can, and then the next.

    Pixels of the same weight share what is left.
    """
    gains = weights * room
    last = threshold(weights, gains, distances)[:, None]
    missing = distances - jnp.where(weights > last, gains, 0).sum(1)
    shared = jnp.where(weights == last, gains, 0).sum(1)
    share = jnp.clip(missing / jnp.where(shared > 0, shared, 1), 0, 1)[:, None]
    return jnp.where(weights > last, room, jnp.where((weights == last) & (gains > 0), share * room, 0))
