"""AutoPGD in L1 against its published algorithm in a plain float64 loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.linear import SHAPE, linear_problem, right
from scipy import optimize

from jaxrw.attacks import apgd
from jaxrw.attacks.apgd_l1 import ApgdL1
from jaxrw.attacks.autoattack.checks import in_ball
from jaxrw.attacks.batch import Batch

KEY = jax.random.key(4)


def nearest(point, image, eps):
    """Projection onto the ball within the box, by the root of a function of one threshold."""
    step, room = point - image, np.where(point > image, 1 - image, image)
    shortened = lambda threshold: np.clip(np.abs(step) - threshold, 0, room)  # noqa: E731
    excess = lambda threshold: shortened(threshold).sum() - eps  # noqa: E731
    threshold = optimize.brentq(excess, 0, np.abs(step).max(), xtol=1e-15) if excess(0) > 0 else 0
    return image + np.sign(step) * shortened(threshold)


def test_is_the_published_algorithm_step_by_step():
    rng = np.random.default_rng(3)
    summit = 0.5 + 0.3 * rng.uniform(-1, 1, SHAPE)
    scale = rng.uniform(1, 6, SHAPE)
    eps, num_steps = 0.8, 20

    def logits_fn(images):
        hill = -(scale.astype(np.float32) * jnp.square(images - summit.astype(np.float32))).sum((1, 2, 3))
        return jnp.stack([jnp.ones(len(images)), hill], axis=1)

    images, labels = np.full((1, *SHAPE), 0.5, np.float32), np.zeros(1, int)

    def loss(x):  # cross-entropy of label 0: log(1 + exp(hill - 1))
        return np.logaddexp(0, -(scale * np.square(x - summit)).sum() - 1)

    (key,) = Batch(images, labels, labels, jnp.zeros(1, int), jnp.zeros(1, int)).keys(KEY)
    image = np.full(SHAPE, 0.5)
    noise = np.asarray(jax.random.normal(key, SHAPE, jnp.float32), np.float64)
    best = nearest(nearest(image + image + noise, image, 3 * eps) - image, image, 3 * eps)
    halvings = 0
    for radius, steps in (3 * eps, 6), (2 * eps, 6), (eps, 8):
        x = best = nearest(best, image, radius)
        best_loss, step_size, changed = loss(x), radius, (x != image).sum()
        for _ in range(steps):
            gradient = scale * (summit - x)
            number = int(32 - changed / 1.5)
            least = np.sort(np.abs(gradient).ravel())[min(max(number, 0), 31)]
            signs = np.sign(gradient) * (np.abs(gradient) >= least)
            x = nearest(x + step_size * signs / np.abs(signs).sum(), image, radius)
            if loss(x) > best_loss:
                best, best_loss = x, loss(x)
            # Windows of one step: 4 per cent of so few are less.
            now = (best != image).sum()
            if now < 0.95 * changed:
                step_size, x = radius, best
            else:
                step_size, halvings = max(step_size / 1.5, radius / 10), halvings + 1
            changed = now
    assert halvings > 5
    adversarial = np.asarray(apgd(KEY, logits_fn, images, labels, eps=eps, num_steps=num_steps, norm="l1"))[0]
    # A projection in float32 is off by its threshold's rounding, and twenty steps add up.
    np.testing.assert_allclose(adversarial, best, atol=2e-5)


@pytest.mark.parametrize(("num_classes", "loss"), [(2, "ce"), (3, "dlr-targeted"), (10, "dlr-targeted")])
def test_fools_what_can_be_fooled_on_a_linear_model(num_classes, loss):
    logits_fn, images, labels, distance = linear_problem(num_classes, norm="l1")
    eps = float(np.median(distance))
    # The last steps are a tenth of the radius, and move several of 32 pixels: within five per cent it may miss.
    clear = np.abs(distance / eps - 1) > 0.05
    adversarial = np.asarray(apgd(KEY, logits_fn, images, labels, eps=eps, loss=loss, norm="l1"))
    robust = right(logits_fn, adversarial, labels)
    np.testing.assert_array_equal(robust[clear], (distance > eps)[clear])
    assert in_ball(adversarial, images, eps=eps, norm="l1").all()


def test_evaluations_are_the_steps_of_three_stages():
    attack = ApgdL1(num_steps=100)
    schedule = attack._schedule()
    assert attack.max_steps == len(schedule.radius) == 103
    assert np.unique(np.asarray(schedule.radius), return_counts=True)[1].tolist() == [41, 31, 31]
    assert np.flatnonzero(schedule.first).tolist() == [0, 31, 62]
    assert np.flatnonzero(schedule.last).tolist() == [30, 61, 102]
    assert np.flatnonzero(schedule.counts).tolist() == list(range(62, 103))
