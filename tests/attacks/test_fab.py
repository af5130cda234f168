import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.linear import linear_problem, right

from jaxrw.attacks import fab
from jaxrw.attacks.autoattack.checks import in_ball
from jaxrw.attacks.fab import OVERSHOOT

KEY = jax.random.key(3)


@pytest.mark.parametrize(
    ("num_classes", "norm", "targeted"),
    [
        (2, "linf", True),
        (6, "linf", True),
        (6, "linf", False),
        (2, "l2", True),
        (3, "l2", False),
        (10, "l2", True),
        (3, "l1", True),
        (10, "l1", False),
    ],
)
def test_fools_exactly_what_can_be_fooled_on_a_linear_model(num_classes, norm, targeted):
    logits_fn, images, labels, distance = linear_problem(num_classes, norm=norm)
    eps = float(np.median(distance))
    # A step goes 1.05 times as far as the boundary, and is then drawn back: within one per cent it may miss.
    clear = np.abs(distance / eps - 1) > 0.01
    adversarial = np.asarray(fab(KEY, logits_fn, images, labels, eps=eps, norm=norm, targeted=targeted))
    robust = right(logits_fn, adversarial, labels)
    np.testing.assert_array_equal(robust[clear], (distance > eps)[clear])
    assert in_ball(adversarial, images, eps=eps, norm=norm).all()
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


def test_the_nearest_boundary_is_that_of_the_norm():
    """Two wrong classes: one is nearer in L-infinity, the other in L2 and L1."""
    dense, sparse = np.zeros((32, 3)), np.zeros((32, 3))
    dense[:, 1] = 1  # a step of 1 in L-infinity raises it by 32, in L2 by 5.7, in L1 by 1
    sparse[0, 2] = 8  # ... by 8 in all of them
    weights = jnp.asarray(dense + sparse, jnp.float32)
    images, labels = np.full((1, 4, 4, 2), 0.5, np.float32), np.zeros(1, int)
    logits_fn = jax.tree_util.Partial(
        lambda w, x: (x.reshape(len(x), -1) - 0.5) @ w + jnp.array([1.0, 0, 0]), weights
    )
    for norm, nearest in {"linf": 1, "l2": 2, "l1": 2}.items():
        adversarial = fab(KEY, logits_fn, images, labels, eps=1.0, norm=norm, targeted=False, num_steps=1)
        assert int(logits_fn(adversarial).argmax()) == nearest


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


@pytest.mark.parametrize("changed", [{"num_steps": 0}, {"num_targets": 0}, {"num_restarts": 0}])
def test_mistakes_are_named(changed):
    logits_fn, images, labels, _ = linear_problem(3, size=4)
    with pytest.raises(ValueError, match=f"{next(iter(changed))} is 0"):
        fab(KEY, logits_fn, images, labels, eps=0.1, **changed)
