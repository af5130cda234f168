"""AutoPGD in the L1 norm: sparse steps, and radii that shrink to eps.

Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", ICML 2021, with the radii
and constants of AutoAttack's public code.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrw.attacks import norms
from jaxrw.attacks.ascent import differentiate
from jaxrw.attacks.batch import AttackState, Batch, choose, start_fields
from jaxrw.attacks.thresholds import threshold
from jaxrw.attacks.types import LogitsFn, Scalar
from jaxrw.methods.margins import is_correct

RADII = (3.0, 2.0, 1.0)  # times eps, one for each stage
SHARES = (0.3, 0.3)  # of the steps that the stages before the last one take, rounded up
WINDOW = 0.04  # share of a stage's steps between two checkpoints
DENSER = 1.5  # a step moves the number of pixels that the best iterate has changed, divided by this
SPARSER = 0.95  # the step size is kept if the best iterate's number of changed pixels fell below this share
SHRINKS, SMALLEST_STEP = 1.5, 0.1  # or else it is divided by this, down to this share of the radius


class ApgdL1State(AttackState):
    """State of AutoPGD in L1; `adversarial` is the iterate that fooled, or else the stage's one of highest loss."""

    best_direction: jax.Array  # [B, H, W, C], gradient at the iterate of highest loss
    best_loss: jax.Array  # [B], of the stage
    step_size: jax.Array  # [B], L1 length of a step
    num_changed: jax.Array  # [B] int32, pixels that the best iterate had changed at the last checkpoint


@dataclasses.dataclass(frozen=True)
class ApgdL1:
    """AutoPGD in L1 as an `IterativeAttack`: three runs with smaller and smaller radii, each from the best of the last.

    Only iterates of the last run lie in the ball and count.
    """

    num_steps: int = 100
    loss: str = "ce"

    @property
    def targeted(self) -> bool:
        """Whether the attack aims at a target."""
        return self.loss == "dlr-targeted"

    @property
    def max_steps(self) -> int:
        """Iterates that are evaluated, the start of each stage included."""
        return sum(self._stages()) + len(RADII)

    def _stages(self) -> list[int]:
        """Returns the number of steps of each stage."""
        first = [math.ceil(share * self.num_steps) for share in SHARES]
        return [*first, max(self.num_steps - sum(first), 0)]

    def _schedule(self) -> "_Schedule":
        sizes = self._stages()
        stage = np.repeat(np.arange(len(sizes)), [size + 1 for size in sizes])
        place = np.concatenate([np.arange(size + 1) for size in sizes])
        size = np.array(sizes)[stage]
        window = np.maximum((WINDOW * size).astype(int), 1)
        return _Schedule(
            radius=jnp.asarray(np.array(RADII)[stage], jnp.float32),
            first=jnp.asarray(place == 0),
            last=jnp.asarray(place == size),
            checkpoint=jnp.asarray((place > 0) & (place % window == 0)),
            counts=jnp.asarray(stage == len(sizes) - 1),
        )

    def start(self, key: jax.Array, batch: Batch, *, eps: Scalar) -> ApgdL1State:
        """Starts at random points of the largest ball, as the public code does.

        The public code projects the noisy image where one would expect the noise, takes the step that comes out for an
        image, and projects that one. So starts lie towards black, and change more pixels than projected noise would.
        """
        images, norm = batch.images, norms.get("l1")
        noise = jax.vmap(lambda k: norm.noise(k, images.shape[1:]))(batch.keys(key))
        step = norm.project(images + (images + noise), images, eps=RADII[0] * eps) - images
        first = norm.project(step, images, eps=RADII[0] * eps)
        size = images.shape[:1]
        return ApgdL1State(
            **start_fields(first),
            best_direction=jnp.zeros_like(first),
            best_loss=jnp.full(size, -jnp.inf, jnp.float32),
            step_size=jnp.full(size, RADII[0] * eps, jnp.float32),
            num_changed=jnp.zeros(size, jnp.int32),
        )

    def step(
        self, key: jax.Array, logits_fn: LogitsFn, batch: Batch, state: ApgdL1State, *, eps: Scalar
    ) -> ApgdL1State:
        """Evaluates the iterate, adapts step size and sparsity at a checkpoint, and moves."""
        gradient, losses, logits = differentiate(logits_fn, state.current, batch, loss=self.loss)
        fooled = ~jax.vmap(is_correct)(logits, batch.labels) & self.counts(state)
        return self.take(batch, state, self.direction(gradient), losses, fooled, eps=eps)

    def direction(self, gradient: jax.Array) -> jax.Array:
        """Returns the gradient itself, of which a step takes the largest entries; 0 in place of NaN."""
        return jnp.nan_to_num(gradient)

    def counts(self, state: ApgdL1State) -> jax.Array:
        """Returns whether the current iterate lies in the ball and may fool; [B] bool."""
        return self._schedule().counts[state.step]

    def take(
        self,
        batch: Batch,
        state: ApgdL1State,
        direction: jax.Array,
        losses: jax.Array,
        fooled: jax.Array,
        *,
        eps: Scalar,
    ) -> ApgdL1State:
        """Takes the step that follows an evaluation of the current iterate; arguments as of `Apgd.take`."""
        images, norm, schedule = batch.images, norms.get("l1"), self._schedule()
        now = jax.tree.map(lambda values: values[state.step], schedule)
        radius = now.radius * eps
        better = (losses > state.best_loss) | now.first
        state = state.replace(
            adversarial=choose(fooled | better, state.current, state.adversarial),
            fooled=fooled,
            best_direction=choose(better, direction, state.best_direction),
            best_loss=jnp.where(better, losses, state.best_loss),
        )
        # A stage begins with the sparsity of its start and the largest steps, and so does a checkpoint that finds the
        # best iterate sparser than the one before.
        changed = (state.adversarial != images).sum((1, 2, 3), dtype=jnp.int32)
        sparser = now.checkpoint & (changed < SPARSER * state.num_changed)
        smaller = jnp.maximum(state.step_size / SHRINKS, SMALLEST_STEP * radius)
        step_size = jnp.where(now.checkpoint, smaller, state.step_size)
        step_size = jnp.where(now.first | sparser, radius, step_size)
        num_changed = jnp.where(now.first | now.checkpoint, changed, state.num_changed)
        origin = choose(sparser, state.adversarial, state.current)
        direction = choose(sparser, state.best_direction, direction)

        moved = origin + step_size.reshape(-1, 1, 1, 1) * _sparse(direction, num_changed / DENSER)
        moved = norm.project(moved, images, eps=radius.reshape(-1, 1, 1, 1))
        # The next stage begins with the best iterate of this one, projected onto its ball.
        following = schedule.radius[jnp.minimum(state.step + 1, self.max_steps - 1)] * eps
        begun = norm.project(state.adversarial, images, eps=following.reshape(-1, 1, 1, 1))
        return state.replace(
            running=~fooled & (state.step < self.max_steps - 1),
            step=state.step + 1,
            current=choose(now.last, begun, moved),
            step_size=step_size,
            num_changed=num_changed,
        )


class _Schedule(NamedTuple):
    """What happens at each evaluation, [evaluations].

    Attributes:
      radius: of the stage, times eps.
      first: whether the stage begins with it.
      last: whether the stage ends with it.
      checkpoint: whether step size and sparsity are adapted after it.
      counts: whether it is of the last stage.
    """

    radius: jax.Array
    first: jax.Array
    last: jax.Array
    checkpoint: jax.Array
    counts: jax.Array


def _sparse(gradient: jax.Array, number: jax.Array) -> jax.Array:
    """Returns the signs of about `number` [B] entries of largest size, with an L1 norm of 1."""
    sizes = jnp.abs(gradient).reshape(len(gradient), -1)
    total = sizes.shape[1]
    smaller = jnp.clip((total - number).astype(jnp.int32), 0, total - 1)
    least = threshold(sizes, 1, total - smaller - 1)
    return norms.sparse_sign(gradient, least.reshape(-1, 1, 1, 1))
