"""FAB-T: searches the nearest adversarial image towards each of the likeliest wrong classes.

Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020,
Algorithm 1, in AutoAttack's targeted form. The constants are AutoAttack's.
"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp

from jaxrw.attacks.arguments import Examples, as_partial, check_at_least, prepare
from jaxrw.attacks.batch import AttackState, Batch, choose, largest, run_targets, start_fields
from jaxrw.attacks.losses import rank_targets
from jaxrw.attacks.types import LogitsFn, Scalar
from jaxrw.methods.margins import is_correct

ALPHA_MAX = 0.1  # largest share of the step that starts from the original image
OVERSHOOT = 1.05  # eta: length of a step relative to the distance of the linearized boundary
BACKWARD = 0.9  # beta: an adversarial image is moved back to this share of its distance

# Smaller distances are rounded up to this, so that their ratio is defined.
_SMALLEST = 1e-8

# Every Newton step of the projection passes a pixel's bound or is the last; 5 to 10 are usual, for any image size.
_NEWTON_STEPS = 100


def fab(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array,
    labels: jax.Array,
    *,
    eps: Scalar,
    num_steps: int = 100,
    num_targets: int = 9,
    index: jax.Array | None = None,
) -> jax.Array:
    """Runs FAB-T and returns an adversarial image at most eps away, or else the image itself.

    FAB maximizes no loss: it projects onto the linearized boundary between the label and a target, moves along it,
    and moves back towards the original. An example ends with its first adversarial image within eps, of any wrong
    class.

    Args: see `jaxrw.attacks`; `key` and `index` are ignored, because FAB-T without restarts draws nothing; and
      num_steps: steps for each target; at least 1.
      num_targets: number of likeliest wrong classes to try, at least 1; K - 1 if that is less.

    Returns:
      [B, H, W, C] adversarial images in [0, 1].

    Raises:
      ValueError: num_steps or num_targets below 1.
    """
    check_at_least(1, num_steps=num_steps, num_targets=num_targets)
    examples = prepare(images, labels, index)
    attack = Fab(num_steps=num_steps)
    return _fab(key, as_partial(logits_fn), examples, eps, attack=attack, num_targets=num_targets)


@functools.partial(jax.jit, static_argnames=("attack", "num_targets"))
def _fab(
    key: jax.Array, logits_fn: LogitsFn, examples: Examples, eps: Scalar, *, attack: "Fab", num_targets: int
) -> jax.Array:
    logits = logits_fn(examples.images)
    targets = jax.vmap(rank_targets, (0, 0, None))(logits, examples.labels, num_targets)
    adversarial = run_targets(key, logits_fn, examples, targets, attack=attack, eps=eps)
    # A misclassified image is its own nearest adversarial image.
    return choose(jax.vmap(is_correct)(logits, examples.labels), adversarial, examples.images)


@dataclasses.dataclass(frozen=True)
class Fab:
    """FAB-T as an `IterativeAttack`; `adversarial` is an adversarial image within eps, or the image itself."""

    num_steps: int = 100
    targeted = True

    @property
    def evaluations(self) -> int:
        """Steps for each target."""
        return self.num_steps

    def start(self, key: jax.Array, batch: Batch, *, eps: Scalar) -> AttackState:
        """Starts from the images themselves."""
        return AttackState(**start_fields(batch.images))

    def step(
        self, key: jax.Array, logits_fn: LogitsFn, batch: Batch, state: AttackState, *, eps: Scalar
    ) -> AttackState:
        """Projects the current and the original image onto the linearized boundary, and evaluates their mixture."""
        images = batch.images

        def target_margin(images: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = logits_fn(images).astype(jnp.float32)
            pick = jax.vmap(lambda row, i: row[i])
            margins = pick(logits, batch.targets) - pick(logits, batch.labels)
            return margins.sum(), margins

        gradient, margins = jax.grad(target_margin, has_aux=True)(state.current)
        from_current = project_on_plane(state.current, gradient, -margins)
        # The same plane as seen from the original image.
        shift = (gradient * (state.current - images)).sum((1, 2, 3))
        from_image = project_on_plane(images, gradient, -margins + shift)
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


def project_on_plane(points: jax.Array, normals: jax.Array, offsets: jax.Array) -> jax.Array:
    """Computes the smallest step, in the L-infinity norm, from each point to its plane within the box [0, 1].

    Minimizes max|d| subject to `<normal, d> = offset` and `0 <= point + d <= 1`. If the box does not reach the plane,
    the step leads to the box's corner nearest to it. Every pixel moves by min(t, its room) along the sign of +-normal,
    so `<normal, d>` is a concave, piecewise linear function of t. Newton's method from t = 0 rises to the solution
    without passing it, in finitely many steps and without sorting.

    Args:
      points: [B, ...] float in [0, 1].
      normals: [B, ...] float.
      offsets: [B] float, `b - <normal, point>` of the plane `<normal, x> = b`.

    Returns:
      [B, ...] steps d; 0 for pixels whose normal is 0.
    """
    chex.assert_equal_shape([points, normals])
    chex.assert_shape(offsets, points.shape[:1])
    shape, size = points.shape, len(points)
    points, normals = points.reshape(size, -1), jnp.nan_to_num(normals).reshape(size, -1)
    signs = jnp.sign(normals) * jnp.where(offsets < 0, -1, 1)[:, None]
    room = jnp.where(signs > 0, 1 - points, jnp.where(signs < 0, points, 0))
    weights, distances = jnp.abs(normals), jnp.abs(jnp.nan_to_num(offsets))

    def unfinished(carry: tuple[int, jax.Array, jax.Array]) -> jax.Array:
        done, _, rising = carry
        return (done < _NEWTON_STEPS) & rising.any()

    def newton(carry: tuple[int, jax.Array, jax.Array]) -> tuple[int, jax.Array, jax.Array]:
        done, t, rising = carry
        reach = (weights * jnp.minimum(t[:, None], room)).sum(1)
        slope = jnp.where(room > t[:, None], weights, 0).sum(1)
        missing = distances - reach
        # With a slope of 0 every pixel is at its bound: the box does not reach the plane.
        further = t + jnp.where(slope > 0, missing / jnp.maximum(slope, jnp.finfo(slope.dtype).tiny), 0)
        rises = rising & (further > t)
        return done + 1, jnp.where(rises, further, t), rises

    start = 0, jnp.zeros(size, points.dtype), jnp.ones(size, bool)
    t = jax.lax.while_loop(unfinished, newton, start)[1]
    return (signs * jnp.minimum(t[:, None], room)).reshape(shape)
