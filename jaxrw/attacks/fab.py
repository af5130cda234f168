"""FAB-T: searches the nearest adversarial image towards each of the likeliest wrong classes.

Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020,
Algorithm 1, in AutoAttack's targeted form. The constants are AutoAttack's.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jaxrw.attacks import norms
from jaxrw.attacks.arguments import Examples, as_partial, check_at_least, prepare
from jaxrw.attacks.batch import AttackState, Batch, choose, run_targets, start_fields
from jaxrw.attacks.losses import rank_targets
from jaxrw.attacks.planes import project_on_plane
from jaxrw.attacks.types import LogitsFn, Scalar
from jaxrw.methods.margins import is_correct

ALPHA_MAX = 0.1  # largest share of the step that starts from the original image
OVERSHOOT = 1.05  # eta: length of a step relative to the distance of the linearized boundary
BACKWARD = 0.9  # beta: an adversarial image is moved back to this share of its distance

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
    norm: str = "linf",
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
      ValueError: num_steps or num_targets below 1, or unknown norm.
    """
    check_at_least(1, num_steps=num_steps, num_targets=num_targets)
    examples = prepare(images, labels, index)
    norms.get(norm)
    attack = Fab(num_steps=num_steps, norm=norm)
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
    norm: str = "linf"
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
        images, norm = batch.images, norms.get(self.norm)

        def target_margin(images: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = logits_fn(images).astype(jnp.float32)
            pick = jax.vmap(lambda row, i: row[i])
            margins = pick(logits, batch.targets) - pick(logits, batch.labels)
            return margins.sum(), margins

        gradient, margins = jax.grad(target_margin, has_aux=True)(state.current)
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
