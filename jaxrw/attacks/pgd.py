"""FGSM and PGD."""

import functools

import jax
import jax.numpy as jnp

from jaxrw.attacks import norms
from jaxrw.attacks.arguments import Examples, as_partial, check_at_least, prepare
from jaxrw.attacks.losses import cw, scaled_cross_entropy
from jaxrw.attacks.types import LogitsFn, Scalar
from jaxrw.methods.margins import is_correct
from jaxrw.methods.objectives import cross_entropy, kl_divergence

LOSSES = {"ce": cross_entropy, "cw": cw, "scaled_ce": scaled_cross_entropy}
# The loss of TRADES' attack, which depends on the clean prediction instead of the label.
KL = "kl"
STARTS = ("uniform", "normal", "none")

# The public code of MAIL, TRADES and GAIRAT starts from 0.001 * normal noise.
NORMAL_START_SCALE = 0.001


def fgsm(
    logits_fn: LogitsFn, images: jax.Array, labels: jax.Array, *, eps: Scalar, norm: str = "linf"
) -> jax.Array:
    """Takes one step of size eps along the sign of the cross-entropy's gradient (Goodfellow et al. 2015).

    In another norm than L-infinity, along the direction that `norms.Norm.ascend` makes of the gradient.

    `jaxrw.attacks` describes the arguments that all attacks share.

    Returns:
      [B, H, W, C] adversarial images in [0, 1].
    """
    key = jax.random.key(0)  # Not used without a random start.
    return pgd(key, logits_fn, images, labels, eps=eps, step_size=eps, num_steps=1, start="none", norm=norm)


def pgd(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array,
    labels: jax.Array,
    *,
    eps: Scalar,
    step_size: Scalar,
    num_steps: int,
    loss: str = "ce",
    start: str = "uniform",
    norm: str = "linf",
    index: jax.Array | None = None,
) -> jax.Array:
    """Runs projected gradient ascent and returns its last iterate (Madry et al. 2018, Eq. 3).

    `jaxrw.attacks` describes the arguments that all attacks share.

    Further args:
      step_size: length of a step in the norm, in pixel units of [0, 1].
      num_steps: gradient steps; 0 returns `images` without a random start.
      loss: "ce", the cross-entropy, "cw", the negative logit margin, "scaled_ce", the cross-entropy of ten times the
        logits, or "kl", the KL divergence of the prediction from that of `images` (TRADES), which needs a random start:
        at `images` its gradient is 0.
      start: "uniform" in the ball (for L2 and L1: of uniform direction and length), "normal" (0.001 times standard
        normal) or "none"; projected onto the ball and [0, 1].

    Returns:
      [B, H, W, C] adversarial images in [0, 1].

    Raises:
      ValueError: unknown loss, start or norm, "kl" without a random start, or negative num_steps.
    """
    return pgd_and_kappa(
        key,
        logits_fn,
        images,
        labels,
        eps=eps,
        step_size=step_size,
        num_steps=num_steps,
        loss=loss,
        start=start,
        norm=norm,
        index=index,
    )[0]


def pgd_and_kappa(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array,
    labels: jax.Array,
    *,
    eps: Scalar,
    step_size: Scalar,
    num_steps: int,
    loss: str = "ce",
    start: str = "uniform",
    norm: str = "linf",
    index: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Runs `pgd` and also counts GAIRAT's kappa (Zhang et al. 2021).

    kappa is the number of iterates, the start included and the last one not, that are still classified correctly. It
    needs no extra evaluations of the model.

    Takes the arguments of `pgd`.

    Returns:
      [B, H, W, C] adversarial images, and kappa, [B] int32 in 0..num_steps.
    """
    if loss not in (*LOSSES, KL):
        raise ValueError(f"loss is {loss!r}; choose one of {', '.join((*LOSSES, KL))}")
    if start not in STARTS:
        raise ValueError(f"start is {start!r}; choose one of {', '.join(STARTS)}")
    if loss == KL and start == "none":
        raise ValueError(
            "loss is 'kl' and start 'none'; choose another start: at the image itself its gradient is 0"
        )
    check_at_least(0, num_steps=num_steps)
    examples = prepare(images, labels, index, eps=eps, norm=norm)
    return _ascend(
        key,
        as_partial(logits_fn),
        examples,
        eps,
        step_size,
        num_steps=num_steps,
        loss=loss,
        start=start,
        norm=norm,
    )


@functools.partial(jax.jit, static_argnames=("num_steps", "loss", "start", "norm"))
def _ascend(
    key: jax.Array,
    logits_fn: LogitsFn,
    examples: Examples,
    eps: Scalar,
    step_size: Scalar,
    *,
    num_steps: int,
    loss: str,
    start: str,
    norm: str,
) -> tuple[jax.Array, jax.Array]:
    images, labels = examples.images, examples.labels
    kappa, ball = jnp.zeros(labels.shape, jnp.int32), norms.get(norm)
    if num_steps == 0:
        return images, kappa

    reference = logits_fn(images) if loss == KL else None

    def objective(adversarial: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = logits_fn(adversarial)
        if reference is None:
            return jax.vmap(LOSSES[loss])(logits, labels).sum(), logits
        return jax.vmap(kl_divergence)(reference, logits).sum(), logits

    def step(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        adversarial, kappa = carry
        gradient, logits = jax.grad(objective, has_aux=True)(adversarial)
        moved = ball.project(adversarial + step_size * ball.ascend(gradient), images, eps=eps)
        return moved, kappa + jax.vmap(is_correct)(logits, labels)

    first = _start(key, images, examples.index, eps=eps, start=start, ball=ball)
    return jax.lax.fori_loop(0, num_steps, step, (first, kappa))


def _start(
    key: jax.Array, images: jax.Array, index: jax.Array, *, eps: Scalar, start: str, ball: norms.Norm
) -> jax.Array:
    if start == "none":
        return images
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    shape, dtype = images.shape[1:], images.dtype
    if start == "uniform":
        noise = jax.vmap(lambda k: ball.draw(k, shape, dtype, eps=eps))(keys)
    else:
        noise = NORMAL_START_SCALE * jax.vmap(lambda k: jax.random.normal(k, shape, dtype))(keys)
    return ball.project(images + noise, images, eps=eps)
