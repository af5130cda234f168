"""AutoAttack as its tests call it."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np

from helpers.linear import right
from jaxrw.attacks import RobustnessWarning, autoattack
from jaxrw.attacks.autoattack.checks import in_ball
from jaxrw.attacks.autoattack.state import ROBUST

KEY = jax.random.key(5)
# Enough for linear models, whose best image lies in a corner of the ball.
SHORT = {"num_steps": 20, "num_queries": 400}


def evaluate(logits_fn, images, labels, *, eps, batch_size=64, **settings):
    return autoattack(KEY, logits_fn, images, labels, eps=eps, batch_size=batch_size, **{**SHORT, **settings})


def evaluate_and_catch(*arguments, **settings):
    """The result, and the texts of its warnings, which must be the same as those in the result."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = evaluate(*arguments, **settings)
    assert [str(c.message) for c in caught if c.category is RobustnessWarning] == list(result.warnings)
    assert all("\n" not in text for text in result.warnings)
    return result


def assert_sound(result, logits_fn, images, labels, *, eps):
    """What holds of every result."""
    assert in_ball(result.adversarial, images, eps=eps).all()
    np.testing.assert_array_equal(right(logits_fn, result.adversarial, labels), result.robust)
    np.testing.assert_array_equal(result.robust, result.fooled_by == ROBUST)
    chain = [result.clean_accuracy, *result.accuracy.values()]
    assert chain == sorted(chain, reverse=True)
    assert chain[-1] == 100 * result.robust.mean()
    attacked = [result.attacked[name] for name in result.accuracy]
    for name, number, after in zip(
        result.accuracy, attacked, [*attacked[1:], result.robust.sum()], strict=True
    ):
        assert number - result.fooled[name] == after


class KilledError(Exception):
    """Stands for the end of the process."""


def in_the_widest_gap(distance):
    """A radius in the middle third of the distances, but not within one per cent of any: FAB may miss that."""
    middle = np.sort(distance)[21:43]
    gap = np.diff(middle).argmax()
    eps = float(middle[gap : gap + 2].mean())
    assert np.abs(distance / eps - 1).min() > 0.01
    return eps


def noisy(images, key):
    """Two classes, told apart by the mean, behind noise in front; right with a probability that falls with the mean."""
    bright = 40 * (images.mean((1, 2, 3)) - 0.5) + jax.random.normal(key, (len(images),))
    return jnp.stack([-bright, bright, jnp.full_like(bright, -100)], axis=1)
