"""Histograms of margins and weights with fixed bins, which add up over steps, devices and epochs."""

import chex
import jax.numpy as jnp
import numpy as np

# Margins lie in [-1, 1]; rounding that leaves it falls into the last bin.
MARGIN_EDGES = np.linspace(-1, 1, 41)

# Weights spread over decades: MAIL's reach from 1e-6 to 3, WMMR's to 22. What lies outside falls into the last bins.
WEIGHT_EDGES = np.logspace(-4, 2, 49)

# By the name of their sums in the step and in metrics.jsonl.
EDGES = {"margins": MARGIN_EDGES, "weights": WEIGHT_EDGES}


def margin_counts(margins):
    """Number of margins in each bin of `MARGIN_EDGES`: [B] float -> [40] float32."""
    bins = len(MARGIN_EDGES) - 1
    return _count((margins + 1) / 2 * bins, bins)


def weight_counts(weights):
    """Number of weights in each bin of `WEIGHT_EDGES`, 0 in the first: [B] float, at least 0 -> [48] float32."""
    bins = len(WEIGHT_EDGES) - 1
    low, high = np.log10(WEIGHT_EDGES[[0, -1]])
    smallest = jnp.finfo(jnp.float32).tiny
    return _count((jnp.log10(jnp.maximum(weights, smallest)) - low) / (high - low) * bins, bins)


def _count(position, bins):
    """Number of positions in each of the unit intervals from 0 to `bins`, the outermost open to both sides."""
    chex.assert_rank(position, 1)
    index = jnp.clip(position, 0, bins - 1).astype(jnp.int32)
    return (index[:, None] == jnp.arange(bins)).sum(0, dtype=jnp.float32)
