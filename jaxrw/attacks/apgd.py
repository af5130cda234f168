"""AutoPGD: projected gradient ascent that adapts its step size. `apgd_l1` has the one for the L1 norm.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020, Section 3. The constants are the paper's.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrw.attacks import norms
from jaxrw.attacks.apgd_l1 import ApgdL1
from jaxrw.attacks.arguments import Examples, as_partial, check_at_least, prepare
from jaxrw.attacks.ascent import LOSSES, differentiate
from jaxrw.attacks.batch import AttackState, Batch, IterativeAttack, choose, run_targets, start_fields
from jaxrw.attacks.types import LogitsFn, Scalar
from jaxrw.methods.margins import is_correct

MOMENTUM = 0.75  # share of the new step; the rest is the previous direction
FIRST_STEP = 2.0  # times eps
RISING = 0.75  # a step size is kept if the loss rose in at least this share of the window's steps
# Shares of the number of steps: the first window, the decrease from each window to the next, the shortest window.
FIRST_WINDOW, WINDOW_SHRINKS, SHORTEST_WINDOW = 0.22, 0.03, 0.06


def apgd(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array,
    labels: jax.Array,
    *,
    eps: Scalar,
    num_steps: int = 100,
    loss: str = "ce",
    num_targets: int = 9,
    num_restarts: int = 1,
    norm: str = "linf",
    index: jax.Array | None = None,
) -> jax.Array:
    """Runs AutoPGD and returns the first iterate that fools, or else the one of highest loss.

    Each example has its own step size, best iterate, restarts and end. Every iterate counts, the random start
    included; in L1, every iterate of the last of three stages, see `apgd_l1.ApgdL1`.

    `jaxrw.attacks` describes the arguments that all attacks share.

    Further args:
      num_steps: gradient steps for each target; at least 1.
      loss: "ce", the cross-entropy; "dlr", which needs K of at least 3; or "dlr-targeted", which attacks towards the
        likeliest wrong classes one after the other (`losses.targeted_logit_ratio` describes K of 2 or 3).
      num_restarts: runs from different starts without targets; at least 1. A run attacks what the ones before left.
      num_targets: number of targets for "dlr-targeted", at least 1; K - 1 if that is less.

    Returns:
      [B, H, W, C] adversarial images in [0, 1]. With targets, an example that none fools gets its iterate of highest
      loss towards the likeliest wrong class.

    Raises:
      ValueError: unknown loss or norm, too few classes for it, or a number below 1.
    """
    check_at_least(1, num_steps=num_steps, num_targets=num_targets, num_restarts=num_restarts)
    examples = prepare(images, labels, index, eps=eps, norm=norm)
    attack = create(norm, num_steps=num_steps, loss=loss)
    return _apgd(
        key,
        as_partial(logits_fn),
        examples,
        eps,
        attack=attack,
        num_rounds=num_targets if attack.targeted else num_restarts,
    )


def create(norm: str, *, num_steps: int, loss: str) -> "Apgd | ApgdL1":
    """Returns AutoPGD in a norm; raises ValueError for an unknown norm or loss."""
    norms.get(norm)
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; choose one of {', '.join(LOSSES)}")
    if norm == "l1":
        return ApgdL1(num_steps=num_steps, loss=loss)
    return Apgd(num_steps=num_steps, loss=loss, norm=norm)


@functools.partial(jax.jit, static_argnames=("attack", "num_rounds"))
def _apgd(
    key: jax.Array,
    logits_fn: LogitsFn,
    examples: Examples,
    eps: Scalar,
    *,
    attack: IterativeAttack[Any],
    num_rounds: int,
) -> jax.Array:
    logits = logits_fn(examples.images)
    return run_targets(key, logits_fn, examples, logits, attack=attack, num_rounds=num_rounds, eps=eps)


class ApgdState(AttackState):
    """State of AutoPGD; `adversarial` is the iterate that fooled, or else the one of highest loss."""

    previous: jax.Array  # [B, H, W, C], iterate before `current`
    best_direction: jax.Array  # [B, H, W, C], that of the gradient at the iterate of highest loss
    best_loss: jax.Array  # [B]
    last_loss: jax.Array  # [B]
    step_size: jax.Array  # [B] in pixel units
    rises: jax.Array  # [B] int32, steps of this window after which the loss was higher
    halved: jax.Array  # [B] bool, whether the last checkpoint halved the step size
    checkpoint_loss: jax.Array  # [B], highest loss at the last checkpoint


@dataclasses.dataclass(frozen=True)
class Apgd:
    """AutoPGD in the L-infinity or L2 norm, as an `IterativeAttack`."""

    num_steps: int = 100
    loss: str = "ce"
    norm: str = "linf"

    @property
    def targeted(self) -> bool:
        """Whether the attack aims at a target."""
        return self.loss == "dlr-targeted"

    @property
    def max_steps(self) -> int:
        """Iterates that are evaluated, the start included."""
        return self.num_steps + 1

    def start(self, key: jax.Array, batch: Batch, *, eps: Scalar) -> ApgdState:
        """Starts at a distance of eps from every image: x + eps t / |t|, t uniform in (-1, 1) or, for L2, normal."""
        images, norm = batch.images, norms.get(self.norm)
        keys = batch.keys(key)
        noise = jax.vmap(lambda k: norm.noise(k, images.shape[1:]))(keys)
        first = norm.project(images + eps * noise / norm.length(noise, keepdims=True), images, eps=eps)
        size = images.shape[:1]
        lowest = jnp.full(size, -jnp.inf, jnp.float32)
        return ApgdState(
            **start_fields(first),
            previous=first,
            best_direction=jnp.zeros_like(first),
            best_loss=lowest,
            last_loss=lowest,
            step_size=jnp.full(size, FIRST_STEP * eps, jnp.float32),
            rises=jnp.zeros(size, jnp.int32),
            halved=jnp.ones(size, bool),  # so that the first checkpoint judges by the rises alone
            checkpoint_loss=lowest,
        )

    def step(
        self, key: jax.Array, logits_fn: LogitsFn, batch: Batch, state: ApgdState, *, eps: Scalar
    ) -> ApgdState:
        """Evaluates the iterate, adapts the step size at a checkpoint, and moves."""
        gradient, losses, logits = differentiate(logits_fn, state.current, batch, loss=self.loss)
        direction = self.direction(gradient)
        fooled = ~jax.vmap(is_correct)(logits, batch.labels)
        return self.take(batch, state, direction, losses, fooled, eps=eps)

    def direction(self, gradient: jax.Array) -> jax.Array:
        """Returns the direction of the steepest ascent."""
        return norms.get(self.norm).ascend(gradient)

    def counts(self, state: ApgdState) -> jax.Array:
        """Returns whether the current iterate lies in the ball and may fool; [B] bool."""
        return jnp.ones(state.step.shape, bool)

    def take(
        self,
        batch: Batch,
        state: ApgdState,
        direction: jax.Array,
        losses: jax.Array,
        fooled: jax.Array,
        *,
        eps: Scalar,
    ) -> ApgdState:
        """Takes the step that follows an evaluation of the current iterate.

        Args:
          batch: the examples.
          state: before the step.
          direction: [B, H, W, C] of the steepest ascent.
          losses: [B].
          fooled: [B] bool; these examples stop.
          eps: radius.
        """
        better = losses > state.best_loss
        state = state.replace(
            adversarial=choose(fooled | better, state.current, state.adversarial),
            fooled=fooled,
            best_direction=choose(better, direction, state.best_direction),
            best_loss=jnp.where(better, losses, state.best_loss),
            rises=state.rises + ((state.step > 0) & (losses > state.last_loss)),
            last_loss=losses,
        )
        state, halve = self._adapt_step_size(state)
        return self._move(batch, state, halve, direction, eps=eps)

    def _adapt_step_size(self, state: ApgdState) -> tuple[ApgdState, jax.Array]:
        """At a checkpoint, halves the step size if the loss rose too rarely or its maximum not at all.

        Returns the state and [B] bool, whether the step size was halved.
        """
        window = jnp.asarray(_windows(self.num_steps))[state.step]
        rarely = state.rises < RISING * window
        stalled = ~state.halved & (state.best_loss <= state.checkpoint_loss)
        checkpoint = window > 0
        halve = checkpoint & (rarely | stalled)
        state = state.replace(
            step_size=jnp.where(halve, state.step_size / 2, state.step_size),
            rises=jnp.where(checkpoint, 0, state.rises),
            halved=jnp.where(checkpoint, halve, state.halved),
            checkpoint_loss=jnp.where(checkpoint, state.best_loss, state.checkpoint_loss),
        )
        return state, halve

    def _move(
        self, batch: Batch, state: ApgdState, restart: jax.Array, direction: jax.Array, *, eps: Scalar
    ) -> ApgdState:
        """Takes one step with momentum, from the best iterate where `restart` [B] bool holds."""
        images, norm = batch.images, norms.get(self.norm)
        origin = choose(restart, state.adversarial, state.current)
        direction = choose(restart, state.best_direction, direction)
        share = jnp.where(state.step == 0, 1, MOMENTUM).reshape(-1, 1, 1, 1)
        step_size = state.step_size.reshape(-1, 1, 1, 1)
        plain = norm.project(origin + step_size * direction, images, eps=eps)
        moved = origin + share * (plain - origin) + (1 - share) * (origin - state.previous)
        return state.replace(
            running=~state.fooled & (state.step < self.num_steps),
            step=state.step + 1,
            current=norm.project(moved, images, eps=eps),
            previous=origin,  # A restart forgets the iterate it leaves.
        )


def _windows(num_steps: int) -> np.ndarray:
    """Returns the length of the window that ends at each evaluation, or 0; [num_steps + 1] int32.

    >>> np.flatnonzero(_windows(100)).tolist()
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    windows = np.zeros(num_steps + 1, np.int32)
    length = max(int(FIRST_WINDOW * num_steps), 1)
    end = length
    while end <= num_steps:
        windows[end] = length
        length = max(
            length - max(int(WINDOW_SHRINKS * num_steps), 1), max(int(SHORTEST_WINDOW * num_steps), 1)
        )
        end += length
    return windows
