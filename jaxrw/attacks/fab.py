"""FAB-T in the L-infinity norm: the nearest adversarial image towards each of the likeliest wrong classes.

Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020,
Algorithm 1, in the targeted form of AutoAttack. The numbers below are AutoAttack's.
"""

import dataclasses
import functools

import chex
import flax
import jax
import jax.numpy as jnp

from jaxrw.attacks.batch import as_function, attack_targets, choose, largest, prepare
from jaxrw.attacks.losses import rank_targets
from jaxrw.methods.margins import is_correct

ALPHA_MAX = 0.1  # largest share of the step that starts from the original image
OVERSHOOT = 1.05  # eta: steps go so much farther than the linearised boundary
BACKWARD = 0.9  # beta: an adversarial image is drawn back to this share of its distance

# Each Newton step of the projection passes a pixel's bound or ends; five to ten are usual, for any size.
_NEWTON_STEPS = 100


def fab(key, logits_fn, images, labels, *, eps, num_steps=100, num_targets=9, index=None):
    """FAB-T, an adversarial image at most eps away or else the image itself; pixels in [0, 1].

    FAB climbs no loss: it walks along the linearised boundary between the label and a target, projects on it,
    and draws nearer to the original. An example ends with its first adversarial image, of whatever wrong
    class, within eps; where there is none, nothing else is worth returning.

    Args:
      key: not used: FAB-T without restarts draws nothing. Kept so that all attacks are called alike.
      logits_fn: images [B, H, W, C] in [0, 1] -> logits [B, K]; each row depends on its own image alone. Pass
        the same function object again and nothing is compiled again.
      images: [B, H, W, C] float in [0, 1].
      labels: [B] integer in 0..K-1.
      eps: radius in pixel units of [0, 1].
      num_steps: for each target; at least 1.
      num_targets: likeliest wrong classes to be tried; K - 1 where that is less.
      index: as `key`.

    Returns:
      [B, H, W, C] adversarial images in [0, 1], at most eps from `images`.

    Raises:
      ValueError: num_steps or num_targets below 1.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; must be 1 or more")
    if num_targets < 1:
        raise ValueError(f"num_targets is {num_targets}; must be 1 or more")
    images, labels, index = prepare(images, labels, index)
    attack = Fab(num_steps=num_steps)
    return _fab(
        key, as_function(logits_fn), images, labels, index, eps, attack=attack, num_targets=num_targets
    )


@functools.partial(jax.jit, static_argnames=("attack", "num_targets"))
def _fab(key, logits_fn, images, labels, index, eps, *, attack, num_targets):
    """`fab` after its checks."""
    logits = logits_fn(images)
    targets = jax.vmap(rank_targets, (0, 0, None))(logits, labels, num_targets)
    adversarial, _ = attack_targets(key, logits_fn, images, labels, targets, index, attack=attack, eps=eps)
    # An image that is wrong by itself is its own nearest adversarial image.
    return choose(jax.vmap(is_correct)(logits, labels), adversarial, images)


@flax.struct.dataclass
class FabState:
    """All that an example carries from step to step."""

    adversarial: chex.Array  # [B, H, W, C], adversarial and within eps, or the image itself
    fooled: chex.Array  # [B] bool
    running: chex.Array  # [B] bool
    step: chex.Array  # [B] int32
    current: chex.Array  # [B, H, W, C], where the boundary is linearised next


@dataclasses.dataclass(frozen=True)
class Fab:
    """FAB towards one target, as `jaxrw.attacks.batch` runs it."""

    num_steps: int = 100
    targeted = True

    @property
    def evaluations(self):
        """Steps of `step`."""
        return self.num_steps

    def start(self, key, batch, *, eps):
        """Start from the images themselves."""
        del key, eps
        size = batch.labels.shape
        return FabState(
            adversarial=batch.images,
            fooled=jnp.zeros(size, bool),
            running=jnp.ones(size, bool),
            step=jnp.zeros(size, jnp.int32),
            current=batch.images,
        )

    def step(self, key, logits_fn, batch, state, *, eps):
        """Project on the linearised boundary from here and from the original; look at the mixture of both."""
        del key
        images = batch.images

        def ahead(images):
            logits = logits_fn(images).astype(jnp.float32)
            pick = jax.vmap(lambda row, i: row[i])
            gap = pick(logits, batch.targets) - pick(logits, batch.labels)
            return gap.sum(), gap

        gradient, gap = jax.grad(ahead, has_aux=True)(state.current)
        from_current = project_on_plane(state.current, gradient, -gap)
        # The same plane as seen from the original image.
        apart = (gradient * (state.current - images)).sum((1, 2, 3))
        from_image = project_on_plane(images, gradient, -gap + apart)
        near = jnp.maximum(largest(jnp.abs(from_current)), _SMALLEST)
        far = jnp.maximum(largest(jnp.abs(from_image)), _SMALLEST)
        alpha = jnp.minimum(near / (near + far), ALPHA_MAX)
        moved = (1 - alpha) * (state.current + OVERSHOOT * from_current) + alpha * (
            images + OVERSHOOT * from_image
        )
        moved = jnp.clip(moved, 0, 1)
        adversarial = ~jax.vmap(is_correct)(logits_fn(moved), batch.labels)
        fooled = adversarial & (jnp.abs(moved - images).max((1, 2, 3)) <= eps)
        return state.replace(
            adversarial=choose(fooled, moved, state.adversarial),
            fooled=fooled,
            running=~fooled & (state.step + 1 < self.num_steps),
            step=state.step + 1,
            current=choose(adversarial, images + BACKWARD * (moved - images), moved),
        )


# Distances below this count as this, so that their ratio is defined.
_SMALLEST = 1e-8


def project_on_plane(points, normals, offsets):
    """Smallest step, in the L-infinity norm, from each point to its plane within the box [0, 1].

    Minimises max|d| under `<normal, d> = offset` and `0 <= point + d <= 1`; where the box does not reach the
    plane, the step goes to the corner nearest to it. Every pixel goes min(t, its room) along the sign of
    +-normal, so the reach is a concave, piecewise linear function of t, and Newton's method from t = 0 rises to
    the solution without passing it and ends after finitely many steps. No sorting is needed.

    Args:
      points: [B, ...] float in [0, 1].
      normals: [B, ...] float.
      offsets: [B] float, `b - <normal, point>` of the plane `<normal, x> = b`.

    Returns:
      [B, ...] steps d. Pixels whose normal is 0 stay.
    """
    chex.assert_equal_shape([points, normals])
    chex.assert_shape(offsets, points.shape[:1])
    shape, size = points.shape, len(points)
    points, normals = points.reshape(size, -1), jnp.nan_to_num(normals).reshape(size, -1)
    signs = jnp.sign(normals) * jnp.where(offsets < 0, -1, 1)[:, None]
    room = jnp.where(signs > 0, 1 - points, jnp.where(signs < 0, points, 0))
    weights, distances = jnp.abs(normals), jnp.abs(jnp.nan_to_num(offsets))

    def unfinished(carry):
        done, _, rising = carry
        return (done < _NEWTON_STEPS) & rising.any()

    def newton(carry):
        done, t, rising = carry
        reach = (weights * jnp.minimum(t[:, None], room)).sum(1)
        slope = jnp.where(room > t[:, None], weights, 0).sum(1)
        missing = distances - reach
        # Without slope every pixel is at its bound: the box ends before the plane.
        further = t + jnp.where(slope > 0, missing / jnp.maximum(slope, jnp.finfo(slope.dtype).tiny), 0)
        rises = rising & (further > t)
        return done + 1, jnp.where(rises, further, t), rises

    start = 0, jnp.zeros(size, points.dtype), jnp.ones(size, bool)
    t = jax.lax.while_loop(unfinished, newton, start)[1]
    return (signs * jnp.minimum(t[:, None], room)).reshape(shape)
