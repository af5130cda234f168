"""Averages of the parameters over the steps of a run: what is validated, evaluated and exported if there is one."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from jaxrw.networks import Network

# The variables of a model: its parameters and BatchNorm's statistics.
Variables = dict[str, chex.ArrayTree]

# (average, the model's variables after a step, number of steps before it) -> next average.
Average = Callable[[Variables, Variables, jax.Array], Variables]


def create(name: str, *, decay: float, start_epoch: int, steps_per_epoch: int) -> Average | None:
    """Returns how an average follows the parameters, or None for "none".

    Args:
      name: "none"; "ema", see `ema`; or "swa", see `swa`.
      decay: of "ema".
      start_epoch: 0-based epoch in which it begins; before, the average is the variables themselves.
      steps_per_epoch: converts epochs to steps.

    Raises:
      ValueError: no such name.
    """
    if name == "none":
        return None
    start = start_epoch * steps_per_epoch
    if name == "ema":
        return lambda average, variables, step: ema(average, variables, step - start, decay=decay)
    if name != "swa":
        raise ValueError(f"name is {name!r}; choose one of none, ema, swa")
    return lambda average, variables, step: swa(
        average, variables, step - start, steps_per_epoch=steps_per_epoch
    )


def ema(average: Variables, variables: Variables, step: jax.Array, *, decay: float) -> Variables:
    """Computes the exponential moving average a d + p (1 - d) of the parameters, d = min(decay, (1 + t) / (10 + t)).

    BatchNorm's statistics are copied from the model.

    Args:
      average: a, before.
      variables: those of the model, with parameters p.
      step: t, [] integer; below 0 the average is the parameters themselves.
      decay: in [0, 1).
    """
    d = jnp.where(step < 0, 0.0, jnp.minimum(decay, (1 + step) / (10 + step)))
    params = jax.tree.map(lambda a, p: d * a + (1 - d) * p, average["params"], variables["params"])
    return {"params": params, "batch_stats": variables["batch_stats"]}


def swa(average: Variables, variables: Variables, step: jax.Array, *, steps_per_epoch: int) -> Variables:
    """Computes the plain mean of the parameters at the ends of epochs (stochastic weight averaging).

    BatchNorm's statistics of a mean of several are kept; `add_statistics` computes them anew.

    Args:
      average: before.
      variables: those of the model.
      step: [] integer, steps before this one since the averaging began; until the end of the first epoch the average is
        the variables themselves.
      steps_per_epoch: length of an epoch.
    """
    number = step // steps_per_epoch + 1  # of ends of epochs, if this step is the end of one
    at_end = (step + 1) % steps_per_epoch == 0
    share = jnp.where(number <= 1, 1.0, jnp.where(at_end, 1 / jnp.maximum(number, 1), 0.0))
    params = jax.tree.map(lambda a, p: (1 - share) * a + share * p, average["params"], variables["params"])
    statistics = jax.tree.map(
        lambda a, s: jnp.where(number <= 1, s, a), average["batch_stats"], variables["batch_stats"]
    )
    return {"params": params, "batch_stats": statistics}


def add_statistics(
    statistics: chex.ArrayTree,
    params: chex.ArrayTree,
    images: jax.Array,
    number: jax.Array,
    *,
    model: Network,
) -> chex.ArrayTree:
    """Adds a batch to the mean of BatchNorm's batch statistics.

    Args:
      statistics: mean over the batches before.
      params: the model's.
      images: [B, H, W, C] in [0, 1].
      number: [] integer, batches before.
      model: the network.

    Returns:
      Mean over the batches with this one.
    """
    zeros = jax.tree.map(jnp.zeros_like, statistics)
    variables = {"params": params, "batch_stats": zeros}
    _, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
    batch = jax.tree.map(lambda moved: moved / (1 - model.statistics_momentum), updated["batch_stats"])
    return jax.tree.map(lambda mean, one: mean + (one - mean) / (number + 1), statistics, batch)
