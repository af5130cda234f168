"""Histograms of margins and weights with fixed bins, which can be added over steps, devices and epochs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

# Margins lie in [-1, 1]; the outermost bins also count what rounding puts outside.
MARGIN_EDGES = np.linspace(-1, 1, 41)

# Weights span decades: MAIL's reach from 1e-6 to 3, WMMR's to 22. The outermost bins also count what lies outside.
WEIGHT_EDGES = np.logspace(-4, 2, 49)

# Bin edges by the name of the histogram in the step's sums and in metrics.jsonl.
EDGES = {"margins": MARGIN_EDGES, "weights": WEIGHT_EDGES}


def margin_counts(margins: jax.Array) -> jax.Array:
    """Counts margins in the bins of `MARGIN_EDGES`: [B] float -> [40] float32."""
    bins = len(MARGIN_EDGES) - 1
    return _count((margins + 1) / 2 * bins, bins)


def weight_counts(weights: jax.Array) -> jax.Array:
    """Counts weights in the bins of `WEIGHT_EDGES`: [B] float, at least 0 -> [48] float32; 0 is in the first bin."""
    bins = len(WEIGHT_EDGES) - 1
    low, high = np.log10(WEIGHT_EDGES[[0, -1]])
    smallest = jnp.finfo(jnp.float32).tiny
    return _count((jnp.log10(jnp.maximum(weights, smallest)) - low) / (high - low) * bins, bins)


def _count(positions: jax.Array, bins: int) -> jax.Array:
    """Counts positions in the unit intervals of [0, bins]; the first and the last are open to the outside."""
    chex.assert_rank(positions, 1)
    index = jnp.clip(positions, 0, bins - 1).astype(jnp.int32)
    return (index[:, None] == jnp.arange(bins)).sum(0, dtype=jnp.float32)
