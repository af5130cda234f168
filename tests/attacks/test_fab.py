import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.linear import linear_problem, right
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrw.attacks import fab
from jaxrw.attacks.autoattack.checks import in_ball
from jaxrw.attacks.fab import OVERSHOOT, project_on_plane

KEY = jax.random.key(3)


@pytest.mark.parametrize("num_classes", [2, 6])
def test_fools_exactly_what_can_be_fooled_on_a_linear_model(num_classes):
    logits_fn, images, labels, distance = linear_problem(num_classes)
    eps = float(np.median(distance))
    # A step goes 1.05 times as far as the boundary, and is then drawn back: within one per cent it may miss.
    clear = np.abs(distance / eps - 1) > 0.01
    adversarial = np.asarray(fab(KEY, logits_fn, images, labels, eps=eps))
    robust = right(logits_fn, adversarial, labels)
    np.testing.assert_array_equal(robust[clear], (distance > eps)[clear])
    assert in_ball(adversarial, images, eps=eps).all()
    assert 10 < robust.sum() < 54
    # An example that nothing fools gets its image back.
    np.testing.assert_array_equal(adversarial[robust], images[robust])


def test_finds_the_nearest_image_not_just_any_in_the_ball():
    logits_fn, images, labels, distance = linear_problem(2)
    adversarial = np.asarray(fab(KEY, logits_fn, images, labels, eps=0.5))
    found = np.abs(adversarial - images).max((1, 2, 3))
    # In the middle of the box the first projection is exact, and overshoots.
    inside = (distance * OVERSHOOT < 0.3) & (distance > 1e-4)
    assert inside.sum() > 30
    np.testing.assert_allclose(found[inside], OVERSHOOT * distance[inside], rtol=1e-3)


def test_a_wrong_image_is_its_own_adversarial_image():
    logits_fn, images, labels, _ = linear_problem(3, size=4)
    np.testing.assert_array_equal(fab(KEY, logits_fn, images, (labels + 1) % 3, eps=0.1), images)


def test_is_the_same_again_alone_and_among_others():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(32, 9)), rng.normal(size=(9, 5))

    def network(images):
        return jnp.tanh(3 * images.reshape(len(images), -1) @ first) @ second

    _, images, _, _ = linear_problem(5, size=12)
    images = np.clip((images - 0.5) * 3 + 0.5, 0, 1)  # at the walls, too
    labels = np.asarray(network(images).argmax(1))
    eps = 0.03

    def attack(chosen):
        return np.asarray(fab(KEY, network, images[chosen], labels[chosen], eps=eps, num_steps=30))

    together, order = attack(np.arange(12)), np.random.default_rng(0).permutation(12)
    np.testing.assert_array_equal(attack(np.arange(12)), together)
    np.testing.assert_array_equal(attack(order), together[order])
    crowd = np.repeat(np.array([3, 7]), 6)
    np.testing.assert_array_equal(attack(crowd), together[crowd])
    assert in_ball(together, images, eps=eps).all()
    assert 0 < right(network, together, labels).sum() < 12


# Compiled once for all of hypothesis' examples.
project = jax.jit(project_on_plane)


def smallest_step(point, normal, offset):
    """The projection's length by bisection in float64, or None where the box does not reach the plane."""
    signs = np.sign(normal) * (1 if offset >= 0 else -1)
    room = np.where(signs > 0, 1 - point, np.where(signs < 0, point, 0))
    reach = lambda t: (np.abs(normal) * np.minimum(t, room)).sum()  # noqa: E731
    if reach(1) < abs(offset):
        return None
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if reach(middle) < abs(offset) else (low, middle)
    return high


@settings(max_examples=100)
@given(st.integers(0, 10_000), st.floats(-3, 3), st.sampled_from([0.0, 0.3, 1.0]))
def test_projection_is_the_smallest_step_to_the_plane(seed, offset, share_at_walls):
    rng = np.random.default_rng(seed)
    point, normal = rng.uniform(size=(1, 12)).astype(np.float32), rng.normal(size=(1, 12)).astype(np.float32)
    point = np.where(rng.uniform(size=point.shape) < share_at_walls, np.round(point), point)
    normal[:, rng.uniform(size=12) < 0.2] = 0
    step = np.asarray(project(point, normal, np.array([offset], np.float32)))
    moved = point.astype(np.float64) + step
    assert (moved >= -1e-7).all()
    assert (moved <= 1 + 1e-7).all()
    assert (step[normal == 0] == 0).all()
    expected = smallest_step(point[0].astype(np.float64), normal[0].astype(np.float64), offset)
    if expected is None:
        corner = np.where(normal * offset > 0, 1.0, np.where(normal * offset < 0, 0.0, point))
        np.testing.assert_allclose(moved, corner, atol=1e-6)
    else:
        # Float32 sums of 12 terms of up to 3: 12 * 3 * 2**-24 on the plane, more along a flat reach.
        np.testing.assert_allclose((step * normal).sum(), offset, atol=2e-5)
        np.testing.assert_allclose(np.abs(step).max(), expected, atol=1e-4)


def test_projection_stays_where_the_plane_already_is():
    point = jnp.full((1, 4), 0.5)
    np.testing.assert_array_equal(project_on_plane(point, jnp.ones((1, 4)), jnp.zeros(1)), jnp.zeros((1, 4)))
    np.testing.assert_array_equal(project_on_plane(point, jnp.zeros((1, 4)), jnp.ones(1)), jnp.zeros((1, 4)))


@pytest.mark.parametrize("changed", [{"num_steps": 0}, {"num_targets": 0}])
def test_mistakes_are_named(changed):
    logits_fn, images, labels, _ = linear_problem(3, size=4)
    with pytest.raises(ValueError, match=f"{next(iter(changed))} is 0"):
        fab(KEY, logits_fn, images, labels, eps=0.1, **changed)
