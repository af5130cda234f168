"""Learning rates of every step, SGD, and adversarial weight perturbation."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import optax

# Keeps the perturbation finite where a gradient is 0, as in the authors' code.
_TINY = 1e-20


def create_schedule(
    name: str,
    *,
    learning_rate: float,
    num_epochs: int,
    steps_per_epoch: int,
    milestones: Sequence[int] = (),
    decay: float = 1.0,
    rise_epochs: float = 0.0,
    peak: float = 0.3,
) -> optax.Schedule:
    """Returns the positive learning rate as a function of the number of steps taken.

    Args:
      name: "milestones", constant between epochs; "cosine", to 0 after the last step; or "one_cycle", a cosine from
        1/25 of the highest rate up to it and a cosine down to 1/250,000 of it, as PyTorch's.
      learning_rate: the highest.
      num_epochs: of the whole run.
      steps_per_epoch: converts epochs to steps.
      milestones: 0-based epochs at whose start "milestones" multiplies the rate by `decay`.
      decay: in (0, 1].
      rise_epochs: length of a linear rise from 0 at the beginning of "milestones" and "cosine".
      peak: share of all steps, in (0, 1), after which "one_cycle" is highest.

    Raises:
      ValueError: no such name.
    """
    num_steps, rise_steps = num_epochs * steps_per_epoch, round(rise_epochs * steps_per_epoch)
    if name == "one_cycle":
        return optax.cosine_onecycle_schedule(num_steps, learning_rate, pct_start=peak)
    if name == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, learning_rate, rise_steps, num_steps)
    if name != "milestones":
        raise ValueError(f"name is {name!r}; choose one of milestones, cosine, one_cycle")
    rates = tuple(
        learning_rate * decay ** sum(epoch >= milestone for milestone in milestones)
        for epoch in range(num_epochs)
    )

    def piecewise(step: chex.Numeric) -> jax.Array:
        return jnp.array(rates)[step // steps_per_epoch]

    if not rise_steps:
        return piecewise
    rise = optax.linear_schedule(0.0, 1.0, rise_steps)
    return lambda step: rise(step) * piecewise(step)


def create_optimizer(
    schedule: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    nesterov: bool = False,
    decay_all: bool = True,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """Returns SGD in PyTorch's order: clipping, gradient plus weight decay, then momentum, then the learning rate.

    Args:
      schedule: learning rate by step.
      momentum: in [0, 1).
      weight_decay: at least 0.
      nesterov: whether the momentum looks one step ahead.
      decay_all: whether weight decay acts on all parameters, BatchNorm's and biases included, as in the paper; False:
        on kernels alone.
      clip_norm: largest L2 norm of the whole gradient, positive; None: any.
    """
    clipping = () if clip_norm is None else (optax.clip_by_global_norm(clip_norm),)
    return optax.chain(
        *clipping,
        optax.add_decayed_weights(weight_decay, mask=None if decay_all else _kernels),
        optax.trace(momentum, nesterov=nesterov),
        optax.scale_by_learning_rate(schedule),
    )


def perturb_weights(params: chex.ArrayTree, gradients: chex.ArrayTree, *, gamma: float) -> chex.ArrayTree:
    """Moves every kernel w up the loss by gamma |w| g / |g|, with L2 norms of the kernel and its gradient g.

    AWP: Wu et al., "Adversarial weight perturbation helps robust generalization", 2020. BatchNorm's parameters and
    biases stay.

    Args:
      params: parameters.
      gradients: of the loss by the parameters.
      gamma: length of the move relative to the kernel's, positive. The authors' is 0.01, and 0.005 for TRADES.

    Returns:
      Parameters of the same shapes.
    """

    def move(weight: jax.Array, gradient: jax.Array) -> jax.Array:
        scale = gamma * jnp.linalg.norm(weight) / (jnp.linalg.norm(gradient) + _TINY)
        return weight + scale * gradient

    return jax.tree.map(
        lambda is_kernel, weight, gradient: move(weight, gradient) if is_kernel else weight,
        _kernels(params),
        params,
        gradients,
    )


def _kernels(params: chex.ArrayTree) -> chex.ArrayTree:
    """Returns which parameters are kernels: those of more than one dimension."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
