"""Projection onto planes within the box against bisection in float64 and linear programs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.linear import distance_to_plane
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from jaxrw.attacks.norms import NORMS
from jaxrw.attacks.planes import project_on_plane

# Compiled once for all of hypothesis' examples.
PROJECT = {norm: jax.jit(functools.partial(project_on_plane, norm=norm)) for norm in NORMS}


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.floats(-3, 3), st.sampled_from([0.0, 0.3, 1.0]))
def test_projection_is_the_smallest_step_to_the_plane(norm, seed, offset, share_at_walls):
    rng = np.random.default_rng(seed)
    point, normal = rng.uniform(size=(1, 12)).astype(np.float32), rng.normal(size=(1, 12)).astype(np.float32)
    point = np.where(rng.uniform(size=point.shape) < share_at_walls, np.round(point), point)
    normal[:, rng.uniform(size=12) < 0.2] = 0
    step = np.asarray(PROJECT[norm](point, normal, np.array([offset], np.float32)))
    moved = point.astype(np.float64) + step
    assert (moved >= -1e-7).all()
    assert (moved <= 1 + 1e-7).all()
    assert (step[normal == 0] == 0).all()
    expected = distance_to_plane(point[0], normal[0], offset, norm)
    if np.isinf(expected):
        corner = np.where(normal * offset > 0, 1.0, np.where(normal * offset < 0, 0.0, point))
        np.testing.assert_allclose(moved, corner, atol=1e-6)
    else:
        # Float32 sums of 12 terms of up to 3: 12 * 3 * 2**-24 on the plane, more along a flat reach.
        np.testing.assert_allclose((step * normal).sum(), offset, atol=2e-5)
        np.testing.assert_allclose(NORMS[norm].length(step)[0], expected, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_in_l1_it_is_the_solution_of_the_linear_program(seed):
    rng = np.random.default_rng(seed)
    point, normal = rng.uniform(size=12).astype(np.float32), rng.normal(size=12).astype(np.float32)
    # d = up - down with both at least 0: minimize the sum of both.
    program = optimize.linprog(
        np.ones(24),
        A_eq=np.concatenate([normal, -normal])[None],
        b_eq=[1.5],
        bounds=[(0, 1 - x) for x in point] + [(0, x) for x in point],
    )
    step = np.asarray(project_on_plane(point[None], normal[None], np.array([1.5], np.float32), norm="l1"))[0]
    np.testing.assert_allclose(np.abs(step).sum(), program.fun, atol=1e-5)
    np.testing.assert_allclose(step, program.x[:12] - program.x[12:], atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_tiny_normals_are_normals_too(norm):
    """Squares of 1e-25 are 0 in float32."""
    point, normal = np.full((1, 4), 0.5, np.float32), np.array([[3e-25, -1e-25, 0, 2e-25]], np.float32)
    step = project_on_plane(point, normal, np.array([2e-26], np.float32), norm=norm)
    usual = project_on_plane(point, normal * 1e25, np.array([0.2], np.float32), norm=norm)
    np.testing.assert_allclose(step, usual, rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_stays_where_the_plane_already_is(norm):
    point, nowhere = jnp.full((1, 4), 0.5), jnp.zeros((1, 4))
    for normal, offset in (jnp.ones((1, 4)), jnp.zeros(1)), (nowhere, jnp.ones(1)):
        np.testing.assert_array_equal(project_on_plane(point, normal, offset, norm=norm), nowhere)
