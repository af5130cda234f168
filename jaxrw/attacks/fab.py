"""FAB: searches the nearest adversarial image, in AutoAttack's targeted form towards each of the likeliest classes.

Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020,
Algorithm 1. The constants are AutoAttack's.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jaxrw.attacks import norms
from jaxrw.attacks.arguments import Examples, as_partial, check_at_least, prepare
from jaxrw.attacks.batch import AttackState, Batch, choose, run_targets, start_fields
from jaxrw.attacks.planes import project_on_plane
from jaxrw.attacks.types import LogitsFn, Scalar
from jaxrw.methods.margins import is_correct

ALPHA_MAX = 0.1  # largest share of the step that starts from the original image
RESTART = 0.5  # share of eps at which a restart begins
OVERSHOOT = 1.05  # eta: length of a step relative to the distance of the linearized boundary
BACKWARD = 0.9  # beta: an adversarial image is moved back to this share of its distance

# Keeps quotients by a gradient of 0 finite.
_TINY = 1e-12

# Smaller distances are rounded up to this, so that their ratio is defined.
_SMALLEST = 1e-8


def fab(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array,
    labels: jax.Array,
    *,
    eps: Scalar,
    num_steps: int = 100,
    num_targets: int = 9,
    targeted: bool = True,
    num_restarts: int = 1,
    norm: str = "linf",
    index: jax.Array | None = None,
) -> jax.Array:
    """Runs FAB and returns an adversarial image at most eps away, or else the image itself.

    FAB maximizes no loss: it projects onto the linearized boundary between the label and a target, moves along it,
    and moves back towards the original. An example ends with its first adversarial image within eps, of any wrong
    class.

    `jaxrw.attacks` describes the arguments that all attacks share. `key` and `index` are ignored
    without restarts.

    Further args:
      num_steps: steps for each target; at least 1.
      num_targets: number of likeliest wrong classes to try, at least 1; K - 1 if that is less.
      targeted: False projects onto the nearest of the boundaries to all wrong classes, which costs K backward passes
        for each step.
      num_restarts: runs without targets, at least 1; all but the first begin at a distance of eps / 2.

    Returns:
      [B, H, W, C] adversarial images in [0, 1].

    Raises:
      ValueError: a number below 1, or unknown norm.
    """
    check_at_least(1, num_steps=num_steps, num_targets=num_targets, num_restarts=num_restarts)
    examples = prepare(images, labels, index, eps=eps, norm=norm)
    attack = Fab(num_steps=num_steps, norm=norm, targeted=targeted)
    return _fab(
        key,
        as_partial(logits_fn),
        examples,
        eps,
        attack=attack,
        num_rounds=num_targets if targeted else num_restarts,
    )


@functools.partial(jax.jit, static_argnames=("attack", "num_rounds"))
def _fab(
    key: jax.Array,
    logits_fn: LogitsFn,
    examples: Examples,
    eps: Scalar,
    *,
    attack: "Fab",
    num_rounds: int,
) -> jax.Array:
    logits = logits_fn(examples.images)
    adversarial = run_targets(key, logits_fn, examples, logits, attack=attack, num_rounds=num_rounds, eps=eps)
    # A misclassified image is its own nearest adversarial image.
    return choose(jax.vmap(is_correct)(logits, examples.labels), adversarial, examples.images)


@dataclasses.dataclass(frozen=True)
class Fab:
    """FAB as an `IterativeAttack`; `adversarial` is an adversarial image within eps, or the image itself."""

    num_steps: int = 100
    norm: str = "linf"
    targeted: bool = True

    @property
    def max_steps(self) -> int:
        """Steps for each target."""
        return self.num_steps

    def start(self, key: jax.Array, batch: Batch, *, eps: Scalar) -> AttackState:
        """Starts from the images themselves; restarts of untargeted FAB from x + eps / 2 t / |t|, t random."""
        images, norm = batch.images, norms.get(self.norm)
        if self.targeted:
            return AttackState(**start_fields(images))
        noise = jax.vmap(lambda k: norm.noise(k, images.shape[1:]))(batch.keys(key))
        moved = jnp.clip(images + RESTART * eps * noise / norm.length(noise, keepdims=True), 0, 1)
        # An example that nothing fools gets its image back, so only the next step begins elsewhere.
        return AttackState(**start_fields(images) | {"current": choose(batch.rank > 0, moved, images)})

    def step(
        self, key: jax.Array, logits_fn: LogitsFn, batch: Batch, state: AttackState, *, eps: Scalar
    ) -> AttackState:
        """Projects the current and the original image onto the linearized boundary, and evaluates their mixture."""
        images, norm = batch.images, norms.get(self.norm)
        if self.targeted:
            gradient, margins = _boundary(logits_fn, state.current, batch)
        else:
            gradient, margins = _nearest_boundary(logits_fn, state.current, batch, norm=self.norm)
        from_current = project_on_plane(state.current, gradient, -margins, norm=self.norm)
        # The same plane as seen from the original image.
        shift = (gradient * (state.current - images)).sum((1, 2, 3))
        from_image = project_on_plane(images, gradient, -margins + shift, norm=self.norm)
        near = jnp.maximum(norm.length(from_current, keepdims=True), _SMALLEST)
        far = jnp.maximum(norm.length(from_image, keepdims=True), _SMALLEST)
        alpha = jnp.minimum(near / (near + far), ALPHA_MAX)
        moved = (1 - alpha) * (state.current + OVERSHOOT * from_current) + alpha * (
            images + OVERSHOOT * from_image
        )
        moved = jnp.clip(moved, 0, 1)
        adversarial = ~jax.vmap(is_correct)(logits_fn(moved), batch.labels)
        fooled = adversarial & (norm.length(moved - images) <= eps)
        return state.replace(
            adversarial=choose(fooled, moved, state.adversarial),
            fooled=fooled,
            running=~fooled & (state.step + 1 < self.num_steps),
            step=state.step + 1,
            current=choose(adversarial, images + BACKWARD * (moved - images), moved),
        )


def _boundary(logits_fn: LogitsFn, images: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Returns the linearized boundary to each target: the gradient [B, H, W, C] of z_t - z_y, and z_t - z_y [B]."""

    def target_margin(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = logits_fn(images).astype(jnp.float32)
        pick = jax.vmap(lambda row, i: row[i])
        margins = pick(logits, batch.targets) - pick(logits, batch.labels)
        return margins.sum(), margins

    return jax.grad(target_margin, has_aux=True)(images)


def _nearest_boundary(
    logits_fn: LogitsFn, images: jax.Array, batch: Batch, *, norm: str
) -> tuple[jax.Array, jax.Array]:
    """As `_boundary`, for the wrong class whose linearized boundary would be nearest if there were no box."""

    def all_margins(images: jax.Array) -> jax.Array:
        logits = logits_fn(images).astype(jnp.float32)
        return logits - jnp.take_along_axis(logits, batch.labels[:, None], 1)

    margins, backward = jax.vjp(all_margins, images)
    dual = norms.get(norms.DUALS[norm])

    def compare(
        nearest: tuple[jax.Array, jax.Array, jax.Array], number: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], None]:
        distance, gradient, margin = nearest
        (new_gradient,) = backward(jnp.zeros_like(margins).at[:, number].set(1))
        new_margin = margins[:, number]
        new_distance = jnp.abs(new_margin) / (dual.length(new_gradient) + _TINY)
        nearer = (new_distance < distance) & (number != batch.labels)
        chosen = (
            jnp.where(nearer, new_distance, distance),
            choose(nearer, new_gradient, gradient),
            jnp.where(nearer, new_margin, margin),
        )
        return chosen, None

    size = batch.labels.shape
    # Where every gradient is NaN there is no boundary, and the example stays where it is.
    none = jnp.full(size, jnp.inf), jnp.zeros_like(images), jnp.zeros(size, jnp.float32)
    (_, gradient, margin), _ = jax.lax.scan(compare, none, jnp.arange(margins.shape[1]))
    return gradient, margin
