"""The threshold against a sort, in float64 and to the last bit."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrw.attacks.thresholds import threshold


@pytest.mark.parametrize("scale", [1e-38, 1e-3, 1.0, 1e30])
def test_it_is_the_kth_largest_entry(scale):
    rng = np.random.default_rng(0)
    sizes = (rng.exponential(size=(40, 17)) * scale).astype(np.float32)
    sizes[rng.random(sizes.shape) < 0.3] = 0
    sizes[:5] = sizes[:5, :1]  # all the same
    k = rng.integers(1, 18, 40)
    found = threshold(jnp.asarray(sizes), 1, jnp.asarray(k - 1))
    np.testing.assert_array_equal(found, -np.sort(-sizes, axis=1)[np.arange(40), k - 1])


def test_what_lies_above_does_not_exceed_the_limit_and_with_it_does():
    rng = np.random.default_rng(1)
    sizes = rng.integers(0, 9, (200, 12)).astype(np.float32) / 8  # with ties
    masses = rng.integers(0, 5, (200, 12)).astype(np.float32)
    limits = rng.integers(0, 30, 200)
    found = np.asarray(threshold(jnp.asarray(sizes), jnp.asarray(masses), jnp.asarray(limits)))[:, None]
    assert ((masses * (sizes > found)).sum(1) <= limits).all()
    reached = (masses * (sizes >= found)).sum(1) > limits
    np.testing.assert_array_equal(reached | (found[:, 0] == 0), True)
    assert 20 < reached.sum() < 200
