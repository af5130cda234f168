import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.linear import linear, linear_problem, right

from jaxrw.attacks import square
from jaxrw.attacks.autoattack.checks import in_ball
from jaxrw.attacks.square import _add_square, _sides
from jaxrw.methods.margins import logit_margin

KEY = jax.random.key(11)


def test_fools_exactly_what_can_be_fooled_on_a_linear_model():
    # Two classes: the margin is linear, every pixel has its best sign, and 16 pixels of 4 signs are soon tried.
    logits_fn, images, labels, distance = linear_problem(2)
    eps = float(np.median(distance))
    clear = np.abs(distance / eps - 1) > 1e-3
    adversarial = np.asarray(square(KEY, logits_fn, images, labels, eps=eps, num_queries=2000))
    robust = right(logits_fn, adversarial, labels)
    np.testing.assert_array_equal(robust[clear], (distance > eps)[clear])
    assert in_ball(adversarial, images, eps=eps).all()
    # Every pixel is at an end of its range: stripes and squares know nothing between.
    np.testing.assert_allclose(np.abs(adversarial - images), eps, atol=1e-6)


def test_uses_no_gradient():
    logits_fn, images, labels, distance = linear_problem(2)

    def rounded(weights, images):
        return linear(weights, jnp.round(images * 50) / 50)

    eps = 2 * float(np.median(distance))
    model = jax.tree_util.Partial(rounded, logits_fn.args[0])
    adversarial = square(KEY, model, images, labels, eps=eps, num_queries=1000)
    assert right(model, adversarial, labels).mean() < 0.5


def test_the_margin_never_rises():
    logits_fn, images, labels, distance = linear_problem(5, size=16)
    eps = float(distance.min()) / 2
    margins = [
        np.asarray(
            jax.vmap(logit_margin)(
                logits_fn(square(KEY, logits_fn, images, labels, eps=eps, num_queries=n)), labels
            )
        )
        for n in (1, 200)
    ]
    assert (margins[1] <= margins[0]).all()
    assert (margins[1] < margins[0]).any()


def test_is_the_same_again_alone_and_among_others():
    logits_fn, images, _, _ = linear_problem(5, size=12)
    images = np.clip((images - 0.5) * 3 + 0.5, 0, 1)  # at the walls, too
    labels = np.asarray(logits_fn(images).argmax(1))

    def attack(chosen, key=KEY):
        adversarial = square(
            key,
            logits_fn,
            images[chosen],
            labels[chosen],
            eps=0.03,
            num_queries=100,
            index=jnp.asarray(chosen),
        )
        return np.asarray(adversarial)

    together, order = attack(np.arange(12)), np.random.default_rng(0).permutation(12)
    assert in_ball(together, images, eps=0.03).all()
    np.testing.assert_array_equal(attack(np.arange(12)), together)
    np.testing.assert_array_equal(attack(order), together[order])
    crowd = np.repeat(np.array([3, 7]), 6)
    np.testing.assert_array_equal(attack(crowd), together[crowd])
    assert 0 < right(logits_fn, together, labels).sum() < 12
    assert (attack(np.arange(12), jax.random.key(12)) != together).any()


def test_a_square_is_a_square_of_extremes_and_reaches_every_place():
    image = jnp.full((6, 5, 2), 0.5)
    draw = jax.vmap(lambda key: _add_square(key, image, image, 2, eps=0.1))
    changes = np.asarray(draw(jax.random.split(KEY, 400))) - 0.5
    covered = np.abs(changes) > 0
    assert (covered.sum((1, 2, 3)) == 2 * 2 * 2).all()
    np.testing.assert_allclose(np.abs(changes[covered]), 0.1, atol=1e-6)
    # One sign for each channel of each square.
    assert (np.abs(changes.sum((1, 2))) > 0.39).all()
    assert covered.any(0).all()


def test_sides_are_the_papers():
    sides = _sides(5000, 0.8, 32, 32)
    assert sides[[0, 11, 51, 201, 501, 1001, 2001, 4001]].tolist() == [29, 20, 14, 10, 7, 5, 4, 3]
    assert sides[[10, 50, 200, 500, 1000, 2000, 4000]].tolist() == [29, 20, 14, 10, 7, 5, 4]
    assert _sides(5000, 0.8, 4, 8).max() == 4
    assert _sides(5000, 0.8, 4, 4).min() == 1


@pytest.mark.parametrize("changed", [{"num_queries": 0}, {"p_init": 0}, {"p_init": 1.5}])
def test_mistakes_are_named(changed):
    logits_fn, images, labels, _ = linear_problem(2, size=4)
    ((name, value),) = changed.items()
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        square(KEY, logits_fn, images, labels, eps=0.1, **changed)
