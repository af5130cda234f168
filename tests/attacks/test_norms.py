"""Norms against float64 NumPy, linear programs and their own definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from jaxrw.attacks import norms
from jaxrw.attacks.norms import NORMS

KEY = jax.random.key(2)
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
SHAPE = (2, 3, 2)
PROJECT = {name: jax.jit(norm.project) for name, norm in NORMS.items()}


def length(steps, name):
    return np.linalg.norm(np.asarray(steps, np.float64).reshape(len(steps), -1), ORDER[name], axis=1)


def draw(seed, share_at_walls):
    rng = np.random.default_rng(seed)
    images = rng.uniform(size=(6, *SHAPE)).astype(np.float32)
    images = np.where(rng.uniform(size=images.shape) < share_at_walls, np.round(images), images)
    return images, (images + rng.normal(size=images.shape) * rng.choice([0.1, 1])).astype(np.float32)


@pytest.mark.parametrize("name", NORMS)
def test_length_is_that_of_numpy(name):
    steps = draw(0, 0)[1]
    np.testing.assert_allclose(NORMS[name].length(steps), length(steps, name), rtol=1e-6)
    assert NORMS[name].length(steps, keepdims=True).shape == (6, 1, 1, 1)


@pytest.mark.parametrize("name", NORMS)
@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 5), st.sampled_from([0.0, 0.5, 1.0]))
def test_projection_ends_in_ball_and_box_and_leaves_what_is_there(name, seed, eps, share_at_walls):
    images, points = draw(seed, share_at_walls)
    projected = np.asarray(PROJECT[name](points, images, eps=eps))
    assert projected.min() >= 0
    assert projected.max() <= 1
    # Rounding of twelve pixels and of their sum, each half an ulp of a number up to 8.
    assert (length(projected.astype(np.float64) - images, name) <= eps + 24 * 2.0**-22).all()
    np.testing.assert_allclose(PROJECT[name](projected, images, eps=eps), projected, atol=2e-6)
    inside = (
        (length(points - images, name) <= eps) & (points >= 0).all((1, 2, 3)) & (points <= 1).all((1, 2, 3))
    )
    np.testing.assert_allclose(projected[inside], points[inside], atol=2**-23)


@pytest.mark.parametrize("eps", [0.2, 1.0, 2.5])
@pytest.mark.parametrize("share_at_walls", [0.0, 0.5])
def test_l1_projection_is_the_nearest_point(eps, share_at_walls):
    """p is nearest to y if no point z of the ball within the box has <y - p, z - p> > 0: a linear program in z."""
    images, points = draw(1, share_at_walls)
    projected = np.asarray(norms.NORMS["l1"].project(points, images, eps=eps), np.float64)
    for image, point, found in zip(images, points.astype(np.float64), projected, strict=True):
        image, towards = image.ravel().astype(np.float64), (point - found).ravel()
        # z = image + up - down
        program = optimize.linprog(
            -np.concatenate([towards, -towards]),
            A_ub=np.ones((1, 24)),
            b_ub=[eps],
            bounds=[(0, 1 - x) for x in image] + [(0, x) for x in image],
        )
        assert -program.fun + towards @ image <= towards @ found.ravel() + 2e-6


def test_l2_projection_scales_and_then_clips():
    images, points = draw(2, 0.5)
    steps = (points - images).astype(np.float64)
    scale = np.minimum(1, 0.7 / length(steps, "l2"))[:, None, None, None]
    expected = np.clip(images + steps * scale, 0, 1)
    np.testing.assert_allclose(NORMS["l2"].project(points, images, eps=0.7), expected, atol=1e-6)


@pytest.mark.parametrize("name", NORMS)
def test_each_example_may_have_its_own_radius(name):
    images, points = draw(3, 0)
    radii = np.array([0.01, 0.1, 0.2, 0.5, 1, 2], np.float32)
    together = NORMS[name].project(points, images, eps=radii[:, None, None, None])
    for i, eps in enumerate(radii):
        alone = NORMS[name].project(points[i : i + 1], images[i : i + 1], eps=float(eps))
        np.testing.assert_allclose(together[i : i + 1], alone, atol=1e-6)


@pytest.mark.parametrize("scale", [1, 1e-30, 1e30])
def test_ascent_in_l2_is_the_unit_gradient_at_any_scale(scale):
    gradient = draw(4, 0)[1]
    expected = gradient / length(gradient, "l2")[:, None, None, None]
    np.testing.assert_allclose(NORMS["l2"].ascend(gradient * np.float32(scale)), expected, rtol=1e-5)


def test_ascent_in_l1_moves_the_steepest_pixels_equally():
    gradient = jnp.asarray(
        np.random.default_rng(0).permutation(np.arange(-149, 151)).reshape(1, 10, 10, 3), float
    )
    step = np.asarray(NORMS["l1"].ascend(gradient))
    # One per cent of 300, and 150 is the steepest, then -149 and 149.
    moved = np.abs(gradient) >= 149
    np.testing.assert_allclose(step, np.where(moved, np.sign(gradient) / 3, 0), rtol=1e-6)


@pytest.mark.parametrize("name", NORMS)
def test_nothing_ascends_without_a_gradient(name):
    np.testing.assert_array_equal(NORMS[name].ascend(jnp.zeros((2, *SHAPE))), np.zeros((2, *SHAPE)))


@pytest.mark.parametrize("name", ["l2", "l1"])
def test_draws_have_uniform_length_and_direction(name):
    keys = jax.random.split(KEY, 4000)
    steps = np.asarray(jax.vmap(lambda key: NORMS[name].draw(key, (2, 2, 1), jnp.float32, eps=0.5))(keys))
    lengths = np.sort(length(steps, name))
    # Kolmogorov and Smirnov: 1.95 / sqrt(4000) is exceeded with probability 0.001.
    assert np.abs(lengths / 0.5 - (np.arange(4000) + 0.5) / 4000).max() < 1.95 / np.sqrt(4000)
    mean = (steps / length(steps, name)[:, None, None, None]).mean(0)
    # Each component lies in [-1, 1] with a deviation of at most 0.5.
    assert np.abs(mean).max() < 4 * 0.5 / np.sqrt(4000)


def test_a_radius_of_another_norm_is_doubted():
    assert norms.doubts("linf", 8 / 255) is norms.doubts("l2", 0.5) is norms.doubts("l1", 12) is None
    assert "eps is 0.03137 for norm 'l2'" in norms.doubts("l2", 8 / 255)
    assert "eps is 0.5 for norm 'l1'" in norms.doubts("l1", 0.5)


def test_an_unknown_norm_is_named():
    with pytest.raises(ValueError, match="norm is 'L2'; choose one of linf, l2, l1"):
        norms.get("L2")
