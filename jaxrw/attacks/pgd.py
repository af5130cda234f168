"""FGSM and PGD in the L-infinity ball."""

import functools

import chex
import jax
import jax.numpy as jnp

from jaxrw.attacks.batch import as_function
from jaxrw.attacks.losses import LOSSES
from jaxrw.methods.margins import is_correct

STARTS = ("uniform", "normal", "none")

# MAIL's, TRADES' and GAIRAT's public code starts from 0.001 * normal noise.
NORMAL_START_SCALE = 0.001


def fgsm(logits_fn, images, labels, *, eps):
    """One step of size eps along the sign of the cross-entropy's gradient; pixels in [0, 1].

    Args:
      logits_fn: images [B, H, W, C] in [0, 1] -> logits [B, K]; each row depends on its own image alone.
      images: [B, H, W, C] float in [0, 1].
      labels: [B] integer in 0..K-1.
      eps: radius in pixel units of [0, 1]: 8 / 255, not 8.

    Returns:
      [B, H, W, C] adversarial images in [0, 1], at most eps from `images` (Goodfellow et al. 2015).
    """
    attack = {"eps": eps, "step_size": eps, "num_steps": 1, "loss": "ce", "start": "none"}
    return pgd(jax.random.key(0), logits_fn, images, labels, **attack)


def pgd(key, logits_fn, images, labels, *, eps, step_size, num_steps, loss="ce", start="uniform", index=None):
    """Projected gradient ascent, its last iterate; pixels in [0, 1] (Madry et al. 2018, Eq. 3).

    Each example's result depends on `key`, its `index`, its image and its label, never on its neighbours.

    Args:
      key: PRNG key of the random start.
      logits_fn: images [B, H, W, C] in [0, 1] -> logits [B, K]; each row depends on its own image alone. Pass
        the same function object again, or a `jax.tree_util.Partial` of the same function with other arrays,
        and nothing is compiled again.
      images: [B, H, W, C] float in [0, 1].
      labels: [B] integer in 0..K-1.
      eps: radius in pixel units of [0, 1].
      step_size: in pixel units of [0, 1].
      num_steps: gradient steps; 0 returns `images` themselves, without a start.
      loss: "ce", the cross-entropy, or "cw", the margin of the logits.
      start: "uniform" in the ball, "normal" (0.001 times standard normal) or "none"; clipped to [0, 1].
      index: [B] integer that names each example to the random start; None: its place in the batch.

    Returns:
      [B, H, W, C] adversarial images in [0, 1], at most eps from `images`.

    Raises:
      ValueError: unknown loss or start, negative num_steps.
    """
    settings = {"eps": eps, "step_size": step_size, "num_steps": num_steps, "loss": loss, "start": start}
    return pgd_and_kappa(key, logits_fn, images, labels, index=index, **settings)[0]


def pgd_and_kappa(
    key, logits_fn, images, labels, *, eps, step_size, num_steps, loss="ce", start="uniform", index=None
):
    """`pgd`, and GAIRAT's kappa in 0..num_steps counted in the same loop (Zhang et al. 2021).

    kappa is the number of iterates, each looked at before its update and the start included, that are still
    classified correctly. It costs nothing: the loop has these logits anyway.

    Args: as `pgd`.

    Returns:
      [B, H, W, C] adversarial images and [B] int32 kappa.
    """
    _check(images, labels, num_steps=num_steps, loss=loss, start=start)
    index = jnp.arange(len(labels)) if index is None else index
    problem = key, as_function(logits_fn), images, labels, index, eps, step_size
    return _ascend(*problem, num_steps=num_steps, loss=loss, start=start)


@functools.partial(jax.jit, static_argnames=("num_steps", "loss", "start"))
def _ascend(key, logits_fn, images, labels, index, eps, step_size, *, num_steps, loss, start):
    """`pgd_and_kappa` after its checks."""
    kappa = jnp.zeros(labels.shape, jnp.int32)
    if num_steps == 0:
        return images, kappa

    def objective(adversarial):
        logits = logits_fn(adversarial)
        return jax.vmap(LOSSES[loss])(logits, labels).sum(), logits

    def step(_, carry):
        adversarial, kappa = carry
        gradient, logits = jax.grad(objective, has_aux=True)(adversarial)
        moved = project(adversarial + step_size * jnp.sign(gradient), images, eps=eps)
        return moved, kappa + jax.vmap(is_correct)(logits, labels)

    first = _start(key, images, index, eps=eps, start=start)
    return jax.lax.fori_loop(0, num_steps, step, (first, kappa))


def project(adversarial, images, *, eps):
    """Bring adversarial images back into the eps-box around `images` and into [0, 1]; same shapes."""
    return jnp.clip(jnp.clip(adversarial, images - eps, images + eps), 0, 1)


def _start(key, images, index, *, eps, start):
    """First iterates; every example draws from a key of its own."""
    if start == "none":
        return images
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    shape, dtype = images.shape[1:], images.dtype
    if start == "uniform":
        noise = jax.vmap(lambda k: jax.random.uniform(k, shape, dtype, -eps, eps))(keys)
    else:
        noise = NORMAL_START_SCALE * jax.vmap(lambda k: jax.random.normal(k, shape, dtype))(keys)
    return project(images + noise, images, eps=eps)


def _check(images, labels, *, num_steps, loss, start):
    """Shapes and choices, before anything is traced."""
    chex.assert_rank([images, labels], [4, 1])
    chex.assert_equal_shape_prefix([images, labels], 1)
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; choose one of {', '.join(LOSSES)}")
    if start not in STARTS:
        raise ValueError(f"start is {start!r}; choose one of {', '.join(STARTS)}")
    if num_steps < 0:
        raise ValueError(f"num_steps is {num_steps}; must be 0 or more")
