"""Batch weights, their normaliser, the warm-up, and what the gradient sees."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.golden import DEFAULTS

from jaxrw import methods
from jaxrw.methods import objectives, weightings

LOGITS = jax.random.normal(jax.random.key(0), (8, 5)) * 3
LABELS = jnp.arange(8) % 5
KAPPA = jnp.arange(8) + 1


def weights(name, active=True, logits=LOGITS, **options):
    method = methods.get(name)
    return weightings.batch_weights(
        method.weighting(DEFAULTS, num_steps=10),
        logits,
        LABELS,
        KAPPA,
        normalized=method.normalized,
        active=jnp.array(active),
        **options,
    )


@pytest.mark.parametrize("name", methods.METHODS)
def test_weights_are_one_while_warming_up(name):
    np.testing.assert_array_equal(weights(name, active=False), np.ones(8))
    chex.assert_shape(weights(name), (8,))
    assert name == "standard" or np.ptp(weights(name)) > 0.1


@pytest.mark.parametrize("name", ["gairat", "ewat"])
def test_normalised_weights_have_mean_one(name):
    np.testing.assert_allclose(weights(name).mean(), 1, rtol=1e-6)


@pytest.mark.parametrize("name", methods.METHODS)
def test_no_gradient_flows_through_the_weights_unless_asked(name):
    def total(logits, through):
        return weights(name, logits=logits, grad_through_weights=through).sum()

    chex.assert_trees_all_equal(jax.grad(total)(LOGITS, False), jnp.zeros_like(LOGITS))
    if name in ("wmmr", "mail", "ours_wmmr", "ours_mail"):
        assert jnp.abs(jax.grad(total)(LOGITS, True)).max() > 1e-3


def test_gradient_of_the_loss_is_the_weighted_gradient():
    """By hand: w_i (softmax(z_i) - onehot(y_i)), weights constant."""

    def total(logits):
        return jax.vmap(objectives.standard)(logits, LABELS, weights("mail", logits=logits)).sum()

    expected = weights("mail")[:, None] * (jax.nn.softmax(LOGITS) - jax.nn.one_hot(LABELS, 5))
    np.testing.assert_allclose(jax.grad(total)(LOGITS), expected, atol=1e-6)


def test_certain_predictions_do_not_divide_by_zero():
    """Every entropy is exactly 0 here, and so is their mean."""
    certain = 1000 * jax.nn.one_hot(LABELS, 5)
    np.testing.assert_array_equal(weights("ewat", logits=certain), np.zeros(8))
