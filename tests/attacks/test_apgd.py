import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.linear import SHAPE, linear, linear_problem, right

from jaxrw.attacks import apgd
from jaxrw.attacks.apgd import Apgd, _windows
from jaxrw.attacks.autoattack.checks import in_ball
from jaxrw.attacks.batch import Batch
from jaxrw.attacks.losses import logit_ratio, rank_targets, targeted_logit_ratio
from jaxrw.methods.objectives import cross_entropy

KEY = jax.random.key(7)


def network(images):
    """Random, and not linear."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(np.prod(SHAPE), 9)), rng.normal(size=(9, 5))
    return jnp.tanh(3 * images.reshape(len(images), -1) @ first) @ second


@pytest.mark.parametrize(
    ("num_classes", "loss", "norm"),
    [
        (2, "ce", "linf"),
        (3, "dlr", "linf"),
        (3, "dlr-targeted", "linf"),
        (6, "dlr-targeted", "linf"),
        (2, "ce", "l2"),
        (3, "dlr", "l2"),
        (10, "dlr-targeted", "l2"),
    ],
)
def test_fools_exactly_what_can_be_fooled_on_a_linear_model(num_classes, loss, norm):
    # From inside the box, the nearest wrong image is |z_y - z_j| / |w_y - w_j| away, in the dual norm of the weights.
    logits_fn, images, labels, distance = linear_problem(num_classes, norm=norm)
    eps = float(np.median(distance))
    clear = np.abs(distance / eps - 1) > 1e-3
    adversarial = apgd(KEY, logits_fn, images, labels, eps=eps, loss=loss, norm=norm)
    robust = right(logits_fn, adversarial, labels)
    np.testing.assert_array_equal(robust[clear], (distance > eps)[clear])
    assert 10 < robust.sum() < 54


def test_stays_in_the_ball_and_is_the_same_again_alone_and_among_others():
    _, images, _, _ = linear_problem(5, size=12)
    images = np.clip((images - 0.5) * 3 + 0.5, 0, 1)  # at the walls, too
    labels = np.asarray(network(images).argmax(1))
    order = np.random.default_rng(0).permutation(12)

    def attack(chosen):
        adversarial = apgd(
            KEY, network, images[chosen], labels[chosen], eps=0.02, num_steps=30, index=jnp.asarray(chosen)
        )
        return np.asarray(adversarial)

    together = attack(np.arange(12))
    assert in_ball(together, images, eps=0.02).all()
    np.testing.assert_array_equal(attack(np.arange(12)), together)
    np.testing.assert_array_equal(attack(order), together[order])
    # With an example that is fooled at once and one that never is beside them, others end no sooner or later.
    crowd = np.array([3, 3, 3, 3, 3, 3, 7, 7, 7, 7, 7, 7])
    np.testing.assert_array_equal(attack(crowd), together[crowd])
    assert 0 < right(network, together, labels).sum() < 12


def test_every_iterate_counts_even_the_start():
    # Wrong where the first pixel is bright, but the loss is higher where it is dark, and all steps lead there.
    def logits_fn(images):
        pixel = images[:, 0, 0, 0] - 0.5
        bright = jnp.stack([2 + pixel, jnp.full_like(pixel, 2.2), *[jnp.full_like(pixel, -10.0)] * 4], axis=1)
        dark = jnp.stack([0.5 + pixel, *[jnp.zeros_like(pixel)] * 5], axis=1)
        return jnp.where(pixel[:, None] > 0, bright, dark)

    images, labels = np.full((16, *SHAPE), 0.5, np.float32), np.zeros(16, int)
    adversarial = np.asarray(apgd(KEY, logits_fn, images, labels, eps=0.1, num_steps=5))
    fooled = ~right(logits_fn, adversarial, labels)
    assert 2 < fooled.sum() < 14  # those whose random start was bright
    np.testing.assert_allclose(np.abs(adversarial - images).max((1, 2, 3))[fooled], 0.1, rtol=1e-5)
    np.testing.assert_allclose(adversarial[~fooled][:, 0, 0, 0], 0.4, rtol=1e-5)


def test_is_the_published_algorithm_step_by_step():
    """Algorithm 1 of the paper in a plain float64 loop, on a loss that restarts it again and again."""
    rng = np.random.default_rng(3)
    summit = 0.5 + 0.03 * rng.uniform(-1, 1, SHAPE)
    scale = rng.uniform(10, 60, SHAPE)
    # Few enough steps that no pixel comes so near its summit that rounding decides its sign.
    eps, num_steps = 0.05, 30

    def logits_fn(images):
        hill = -(scale.astype(np.float32) * jnp.square(images - summit.astype(np.float32))).sum((1, 2, 3))
        return jnp.stack([jnp.ones(len(images)), hill], axis=1)

    images, labels = np.full((1, *SHAPE), 0.5, np.float32), np.zeros(1, int)

    def loss(x):  # cross-entropy of label 0: log(1 + exp(hill - 1))
        return np.logaddexp(0, -(scale * np.square(x - summit)).sum() - 1)

    def project_64(x):
        return np.clip(x, 0.5 - eps, 0.5 + eps)

    (key,) = Batch(images, labels, labels, jnp.zeros(1, int), jnp.zeros(1, int)).keys(KEY)
    noise = np.asarray(jax.random.uniform(key, SHAPE, jnp.float32, -1, 1), np.float64)
    x = previous = best = project_64(0.5 + eps * noise / np.abs(noise).max())
    best_loss = last = at_checkpoint = loss(x)
    step_size, rises, halved, restarts = 2 * eps, 0, True, 0
    ends = np.flatnonzero(_windows(num_steps)).tolist()
    for k in range(num_steps + 1):
        value = loss(x)
        if k and value > last:
            rises += 1
        last = value
        if value > best_loss:
            best, best_loss = x, value
        if k in ends:
            window = _windows(num_steps)[k]
            halve = rises < 0.75 * window or (not halved and best_loss <= at_checkpoint)
            if halve:
                step_size, x, restarts = step_size / 2, best, restarts + 1
            rises, halved, at_checkpoint = 0, halve, best_loss
        direction = np.sign(summit - x)
        share = 1 if k == 0 else 0.75
        moved = x + share * (project_64(x + step_size * direction) - x) + (1 - share) * (x - previous)
        previous, x = x, project_64(moved)
    assert restarts > 2
    adversarial = np.asarray(apgd(KEY, logits_fn, images, labels, eps=eps, num_steps=num_steps))[0]
    np.testing.assert_allclose(adversarial, best, atol=1e-6)


def test_halves_its_step_until_it_sits_on_the_summit():
    # Loss highest at `summit`, inside the ball, and never enough to fool. Steps of 2 eps overshoot for ever.
    summit = 0.5 + 0.03 * np.random.default_rng(1).uniform(-1, 1, SHAPE).astype(np.float32)

    def logits_fn(images):
        return jnp.stack([jnp.full(len(images), 5.0), -jnp.square(images - summit).sum((1, 2, 3))], axis=1)

    images, labels = np.full((3, *SHAPE), 0.5, np.float32), np.zeros(3, int)
    adversarial = apgd(KEY, logits_fn, images, labels, eps=0.05)
    assert right(logits_fn, adversarial, labels).all()
    # Eight checkpoints can halve 0.1 to 0.0004; without halving the distance stays of the order of eps.
    assert np.abs(adversarial - summit).max() < 0.004


def test_without_being_fooled_the_best_iterate_is_returned():
    logits_fn, images, labels, distance = linear_problem(4, size=16)
    eps = float(distance.min()) / 2
    adversarial = apgd(KEY, logits_fn, images, labels, eps=eps, loss="dlr")
    assert right(logits_fn, adversarial, labels).all()
    ratio = jax.vmap(logit_ratio)
    assert (ratio(logits_fn(adversarial), labels) > ratio(logits_fn(images), labels)).all()


def test_a_gradient_that_is_zero_or_nan_leaves_images_in_the_box():
    def flat(images):
        return jnp.tile(jnp.array([1.0, 0.0, -1.0]), (len(images), 1))

    def cursed(images):
        return flat(images) + jnp.sqrt(images - images).sum((1, 2, 3))[:, None]

    _, images, _, _ = linear_problem(3, size=4)
    for logits_fn in flat, cursed:
        adversarial = np.asarray(apgd(KEY, logits_fn, images, np.zeros(4, int), eps=0.05, num_steps=5))
        assert in_ball(adversarial, images, eps=0.05).all()


def test_one_program_serves_all_keys_eps_and_parameters():
    @chex.assert_max_traces(n=2)  # the targets' ranking and the loop
    def counted(weights, images):
        return linear(weights, images)

    logits_fn, images, labels, _ = linear_problem(4, size=8)
    for seed in range(3):
        model = jax.tree_util.Partial(counted, logits_fn.args[0] * (1 + seed))
        apgd(jax.random.key(seed), model, images, labels, eps=0.01 * (1 + seed), num_steps=5)


def test_works_inside_a_compiled_program_that_owns_the_parameters():
    logits_fn, images, labels, _ = linear_problem(4, size=8)

    @jax.jit
    def evaluate(weights):
        return apgd(KEY, functools.partial(linear, weights), images, labels, eps=0.02, num_steps=5)

    outside = apgd(KEY, logits_fn, images, labels, eps=0.02, num_steps=5)
    np.testing.assert_array_equal(evaluate(logits_fn.args[0]), outside)


def test_start_lies_on_the_surface_of_the_ball():
    images = jnp.full((5, *SHAPE), 0.5)
    index = jnp.arange(5)
    state = Apgd().start(KEY, Batch(images, index, index, jnp.zeros_like(index), index), eps=0.1)
    np.testing.assert_allclose(jnp.abs(state.current - images).max((1, 2, 3)), 0.1, rtol=1e-6)
    assert len(np.unique(np.asarray(state.current[:, 0, 0, 0]))) == 5


def test_checkpoints_are_the_papers():
    assert np.flatnonzero(_windows(100)).tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
    assert _windows(100)[[22, 41, 57, 70, 80, 87, 93, 99]].tolist() == [22, 19, 16, 13, 10, 7, 6, 6]
    assert np.flatnonzero(_windows(5)).tolist() == [1, 2, 3, 4, 5]


def test_ratios_are_free_of_shift_and_scale():
    logits, label, target = jnp.array([1.0, 5.0, 3.0, 2.0, 0.5]), jnp.array(1), jnp.array(3)
    assert float(logit_ratio(logits, label)) == pytest.approx(-(5 - 3) / (5 - 2))
    assert float(targeted_logit_ratio(logits, label, target)) == pytest.approx(-(5 - 2) / (5 - (2 + 1) / 2))
    for changed in logits * 1e4, logits + 100:
        assert float(logit_ratio(changed, label)) == pytest.approx(
            float(logit_ratio(logits, label)), rel=1e-5
        )
        assert float(targeted_logit_ratio(changed, label, target)) == pytest.approx(
            float(targeted_logit_ratio(logits, label, target)), rel=1e-5
        )
    # Wrong already: the largest logit is not the label's.
    assert float(logit_ratio(logits, jnp.array(2))) == pytest.approx((5 - 3) / (5 - 2))
    # The cross-entropy has lost its gradient there.
    assert float(jnp.abs(jax.grad(cross_entropy)(logits * 1e4, label)).max()) == 0
    assert float(jnp.abs(jax.grad(logit_ratio)(logits * 1e4, label)).max()) > 1e-6


def test_ranking_leaves_the_label_out():
    logits = jnp.array([4.0, 1.0, 3.0, 2.0])
    assert rank_targets(logits, jnp.array(0), 9).tolist() == [2, 3, 1]
    assert rank_targets(logits, jnp.array(1), 2).tolist() == [0, 2]
    assert 1 not in rank_targets(jnp.full(4, jnp.nan), jnp.array(1), 9).tolist()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"loss": "cw"}, "loss is 'cw'"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"num_targets": 0}, "num_targets is 0"),
        ({"num_restarts": 0}, "num_restarts is 0"),
        ({"norm": "L2"}, "norm is 'L2'"),
    ],
)
def test_mistakes_are_named(changed, named):
    logits_fn, images, labels, _ = linear_problem(3, size=4)
    with pytest.raises(ValueError, match=named):
        apgd(KEY, logits_fn, images, labels, eps=0.1, **changed)


def test_dlr_needs_three_classes():
    logits_fn, images, labels, _ = linear_problem(2, size=4)
    with pytest.raises(ValueError, match="at least 3 classes, got 2"):
        apgd(KEY, logits_fn, images, labels, eps=0.1, loss="dlr")
