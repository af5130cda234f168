"""AutoPGD in the L-infinity ball: projected gradient ascent that finds its step size itself.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020, Section 3. The numbers below are the paper's.
"""

import dataclasses
import functools

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np

from jaxrw.attacks.batch import as_function, attack_targets, choose, largest, prepare
from jaxrw.attacks.losses import logit_ratio, rank_targets, targeted_logit_ratio
from jaxrw.attacks.pgd import project
from jaxrw.methods.margins import is_correct
from jaxrw.methods.objectives import cross_entropy

LOSSES = {
    "ce": lambda logits, label, target: cross_entropy(logits, label),
    "dlr": lambda logits, label, target: logit_ratio(logits, label),
    "dlr-targeted": targeted_logit_ratio,
}

MOMENTUM = 0.75  # share of the new step; the rest is the direction of the last one
FIRST_STEP = 2.0  # times eps
RISING = 0.75  # a step size stays when at least this share of the window's steps rose
# Shares of the number of steps: the first window, by what each is shorter than the one before, the shortest.
FIRST_WINDOW, WINDOW_SHRINKS, SHORTEST_WINDOW = 0.22, 0.03, 0.06


def apgd(key, logits_fn, images, labels, *, eps, num_steps=100, loss="ce", num_targets=9, index=None):
    """AutoPGD, the first iterate that fools or else the one of highest loss; pixels in [0, 1].

    Each example decides its own step size, best point, restarts and end: its result depends on `key`, its
    `index`, its image and its label, never on its neighbours. Every iterate counts, the random start included.

    Args:
      key: PRNG key of the random start.
      logits_fn: images [B, H, W, C] in [0, 1] -> logits [B, K]; each row depends on its own image alone. Pass
        the same function object again and nothing is compiled again.
      images: [B, H, W, C] float in [0, 1].
      labels: [B] integer in 0..K-1.
      eps: radius in pixel units of [0, 1].
      num_steps: gradient steps, for each target where there are targets; at least 1.
      loss: "ce", the cross-entropy; "dlr", which needs K of at least 3; "dlr-targeted", one run for each of the
        likeliest wrong classes (K of 2 or 3: `objectives.targeted_logit_ratio` says what is climbed then).
      num_targets: for "dlr-targeted"; K - 1 where that is less.
      index: [B] integer that names each example to the random start; None: its place in the batch.

    Returns:
      [B, H, W, C] adversarial images in [0, 1], at most eps from `images`. With targets, an example that none
      fools gets its iterate of highest loss towards the likeliest wrong class.

    Raises:
      ValueError: unknown loss, too few classes for it, num_steps or num_targets below 1.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; choose one of {', '.join(LOSSES)}")
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; must be 1 or more")
    if num_targets < 1:
        raise ValueError(f"num_targets is {num_targets}; must be 1 or more")
    images, labels, index = prepare(images, labels, index)
    attack = Apgd(num_steps=num_steps, loss=loss)
    num_targets = num_targets if attack.targeted else 1
    return _apgd(
        key, as_function(logits_fn), images, labels, index, eps, attack=attack, num_targets=num_targets
    )


@functools.partial(jax.jit, static_argnames=("attack", "num_targets"))
def _apgd(key, logits_fn, images, labels, index, eps, *, attack, num_targets):
    """`apgd` after its checks."""
    targets = jax.vmap(rank_targets, (0, 0, None))(logits_fn(images), labels, num_targets)
    return attack_targets(key, logits_fn, images, labels, targets, index, attack=attack, eps=eps)[0]


@flax.struct.dataclass
class ApgdState:
    """All that an example carries from step to step."""

    adversarial: chex.Array  # [B, H, W, C], iterate that fooled or else of highest loss
    fooled: chex.Array  # [B] bool
    running: chex.Array  # [B] bool
    step: chex.Array  # [B] int32, evaluations so far
    current: chex.Array  # [B, H, W, C], iterate to be evaluated next
    previous: chex.Array  # [B, H, W, C], the one before
    best_direction: chex.Array  # [B, H, W, C], sign of the gradient at the iterate of highest loss
    best_loss: chex.Array  # [B]
    last_loss: chex.Array  # [B]
    step_size: chex.Array  # [B] in pixel units
    rises: chex.Array  # [B] int32, steps of this window after which the loss was higher
    halved: chex.Array  # [B] bool, whether the last checkpoint halved the step
    checkpoint_loss: chex.Array  # [B], highest loss at the last checkpoint


@dataclasses.dataclass(frozen=True)
class Apgd:
    """AutoPGD towards one target, as `jaxrw.attacks.batch` runs it."""

    num_steps: int = 100
    loss: str = "ce"

    @property
    def targeted(self):
        """Whether it aims at a target."""
        return self.loss == "dlr-targeted"

    @property
    def evaluations(self):
        """Steps of `step`: each evaluates an iterate, and the start is one."""
        return self.num_steps + 1

    def start(self, key, batch, *, eps):
        """Start eps away, in the L-infinity norm, from every image: x + eps t / max|t|, t uniform in (-1, 1)."""
        images = batch.images
        keys = batch.keys(key)
        noise = jax.vmap(lambda k: jax.random.uniform(k, images.shape[1:], jnp.float32, -1, 1))(keys)
        first = project(images + eps * noise / largest(jnp.abs(noise)), images, eps=eps)
        size = images.shape[:1]
        nothing = jnp.full(size, -jnp.inf, jnp.float32)
        return ApgdState(
            adversarial=first,
            fooled=jnp.zeros(size, bool),
            running=jnp.ones(size, bool),
            step=jnp.zeros(size, jnp.int32),
            current=first,
            previous=first,
            best_direction=jnp.zeros_like(first),
            best_loss=nothing,
            last_loss=nothing,
            step_size=jnp.full(size, FIRST_STEP * eps, jnp.float32),
            rises=jnp.zeros(size, jnp.int32),
            halved=jnp.ones(size, bool),  # so that the first checkpoint judges by the rises alone
            checkpoint_loss=nothing,
        )

    def step(self, key, logits_fn, batch, state, *, eps):
        """Evaluate the iterate, judge the step size at a checkpoint, and move on."""
        del key

        def objective(images):
            logits = logits_fn(images)
            losses = jax.vmap(LOSSES[self.loss])(logits, batch.labels, batch.targets)
            return losses.sum(), (losses, logits)

        gradient, (losses, logits) = jax.grad(objective, has_aux=True)(state.current)
        direction = jnp.nan_to_num(jnp.sign(gradient))  # no move along a gradient that is NaN
        fooled = ~jax.vmap(is_correct)(logits, batch.labels)
        better = losses > state.best_loss
        state = state.replace(
            adversarial=choose(fooled | better, state.current, state.adversarial),
            fooled=fooled,
            best_direction=choose(better, direction, state.best_direction),
            best_loss=jnp.where(better, losses, state.best_loss),
            rises=state.rises + ((state.step > 0) & (losses > state.last_loss)),
            last_loss=losses,
        )
        state, halve = self._judge(state)
        return self._move(batch, state, halve, direction, eps=eps)

    def _judge(self, state):
        """At a checkpoint: halve the step of who rose too seldom, or stood still since the last one."""
        window = jnp.asarray(_windows(self.num_steps))[state.step]
        seldom = state.rises < RISING * window
        still = ~state.halved & (state.best_loss <= state.checkpoint_loss)
        checkpoint = window > 0
        halve = checkpoint & (seldom | still)
        state = state.replace(
            step_size=jnp.where(halve, state.step_size / 2, state.step_size),
            rises=jnp.where(checkpoint, 0, state.rises),
            halved=jnp.where(checkpoint, halve, state.halved),
            checkpoint_loss=jnp.where(checkpoint, state.best_loss, state.checkpoint_loss),
        )
        return state, halve

    def _move(self, batch, state, restart, direction, *, eps):
        """One step with momentum, from the best iterate where `restart` is set."""
        images = batch.images
        origin = choose(restart, state.adversarial, state.current)
        direction = choose(restart, state.best_direction, direction)
        share = jnp.where(state.step == 0, 1, MOMENTUM).reshape(-1, 1, 1, 1)
        step_size = state.step_size.reshape(-1, 1, 1, 1)
        plain = project(origin + step_size * direction, images, eps=eps)
        moved = origin + share * (plain - origin) + (1 - share) * (origin - state.previous)
        return state.replace(
            running=~state.fooled & (state.step < self.num_steps),
            step=state.step + 1,
            current=project(moved, images, eps=eps),
            previous=origin,  # a restart forgets the iterate it leaves
        )


def _windows(num_steps):
    """[num_steps + 1] int: the length of the window that ends with the evaluation of that number, or 0.

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
