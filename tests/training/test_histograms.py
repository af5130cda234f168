"""Fixed bins: NumPy's counts inside, nothing lost outside."""

import jax.numpy as jnp
import numpy as np

from jaxrw.training import histograms


def test_margins_as_numpy_counts_them():
    """Positions on an edge may round either way, so the draws are none."""
    margins = np.random.RandomState(0).uniform(-1, 1, 500).astype(np.float32)
    expected, _ = np.histogram(margins, histograms.MARGIN_EDGES)
    np.testing.assert_array_equal(histograms.margin_counts(jnp.array(margins)), expected)


def test_weights_as_numpy_counts_them():
    weights = (10 ** np.random.RandomState(1).uniform(-4, 2, 500)).astype(np.float32)
    expected, _ = np.histogram(weights, histograms.WEIGHT_EDGES)
    np.testing.assert_array_equal(histograms.weight_counts(jnp.array(weights)), expected)


def test_what_lies_outside_falls_into_the_last_bins():
    counts = histograms.weight_counts(jnp.array([0.0, 1e-7, 1e3, np.inf]))
    assert (counts[0], counts[-1], counts.sum()) == (2, 2, 4)
    counts = histograms.margin_counts(jnp.array([-1 - 1e-6, -1, 1, 1 + 1e-6]))
    assert (counts[0], counts[-1], counts.sum()) == (2, 2, 4)


def test_a_weight_of_1_stands_at_the_lower_edge_of_its_bin():
    """All weights of the warm-up are 1: one bin, and always the same."""
    counts = np.asarray(histograms.weight_counts(jnp.ones(3)))
    (bin_,) = counts.nonzero()
    np.testing.assert_allclose(histograms.WEIGHT_EDGES[bin_], 1)
