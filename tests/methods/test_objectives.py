"""Batch weights, their normaliser, the warm-up, and what the gradient sees."""

import functools
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.golden import DEFAULTS

from jaxrw import methods
from jaxrw.methods import objectives, weightings

try:
    import torch
except ImportError:
    torch = None

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
    assert name in ("standard", "constant") or np.ptp(weights(name)) > 0.1


@pytest.mark.parametrize("name", ["gairat", "ewat", "done"])
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


CLEAN = jax.random.normal(jax.random.key(1), (8, 5)) * 3
WEIGHTS = jnp.linspace(0, 3, 8)


def probabilities(logits):
    z = np.asarray(logits, np.float64)
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def by_hand(name, lam, smoothing=0.0):
    """Each example's loss in float64 NumPy, by the formulas of the papers."""
    p, q, rows = probabilities(CLEAN), probabilities(LOGITS), np.arange(8)
    w, y = np.asarray(WEIGHTS, np.float64), np.asarray(LABELS)
    kl = (p * np.log(p / q)).sum(1)
    if name == "trades":
        target = (1 - smoothing) * np.eye(5)[y] + smoothing / 5
        return -(target * np.log(p)).sum(1) + lam * w * kl
    others = np.where(np.eye(5)[y] == 1, -np.inf, q).max(1)
    boosted = -np.log(q[rows, y]) - np.log(1.0001 - others + 1e-12)
    return w * boosted + lam * kl * (1.0000001 - p[rows, y])


def loss_of(name, **options):
    return jax.vmap(functools.partial(getattr(objectives, name), **options))


@pytest.mark.parametrize(
    ("name", "options"),
    [("trades", {"lam": 6.0}), ("trades", {"lam": 5.0, "smoothing": 0.1}), ("mart", {"lam": 5.0})],
)
def test_losses_are_the_formulas(name, options):
    losses = loss_of(name, **options)(CLEAN, LOGITS, LABELS, WEIGHTS)
    chex.assert_shape(losses, (8,))
    np.testing.assert_allclose(losses, by_hand(name, **options), rtol=1e-5)


def test_the_weight_stands_where_mails_code_puts_it():
    """In TRADES it multiplies the KL alone, in MART the boosted cross-entropy alone."""
    none, one = jnp.zeros(8), jnp.ones(8)
    trades, mart = loss_of("trades", lam=5.0), loss_of("mart", lam=5.0)
    clean_loss = jax.vmap(objectives.cross_entropy)(CLEAN, LABELS)
    np.testing.assert_allclose(trades(CLEAN, LOGITS, LABELS, none), clean_loss, rtol=1e-6)
    kl = jax.vmap(objectives.kl_divergence)(CLEAN, LOGITS)
    p_y = probabilities(CLEAN)[np.arange(8), np.asarray(LABELS)]
    np.testing.assert_allclose(mart(CLEAN, LOGITS, LABELS, none), 5 * kl * (1 - p_y), rtol=1e-4, atol=1e-5)
    assert (mart(CLEAN, LOGITS, LABELS, one) > mart(CLEAN, LOGITS, LABELS, none)).all()


@pytest.mark.parametrize(("name", "options"), [("trades", {"lam": 6.0}), ("mart", {"lam": 5.0})])
def test_gradients_are_those_of_finite_differences(name, options):
    """In float64 from the formulas, by both logits; central differences of 1e-6 are exact to about 1e-9."""
    loss = loss_of(name, **options)
    gradients = jax.grad(lambda z, a: loss(z, a, LABELS, WEIGHTS).sum(), (0, 1))(CLEAN, LOGITS)
    for place, gradient in enumerate(gradients):
        for row, column in ((0, 0), (3, 1), (7, 4)):
            values = []
            for step in (1e-6, -1e-6):
                logits = [np.asarray(z, np.float64) for z in (CLEAN, LOGITS)]
                logits[place][row, column] += step
                with mock.patch.multiple(f"{__name__}", CLEAN=logits[0], LOGITS=logits[1]):
                    values.append(by_hand(name, **options).sum())
            expected = (values[0] - values[1]) / 2e-6
            np.testing.assert_allclose(gradient[row, column], expected, rtol=1e-4, atol=1e-5)


def test_the_smoothed_cross_entropy_is_that_of_the_smoothed_label():
    target = 0.9 * np.eye(5)[np.asarray(LABELS)] + 0.02
    expected = np.asarray(WEIGHTS) * -(target * np.log(probabilities(LOGITS))).sum(1)
    losses = loss_of("standard", smoothing=0.1)(LOGITS, LABELS, WEIGHTS)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize(("name", "lam"), [("standard", None), ("trades", 6.0), ("mart", 5.0)])
def test_a_record_gives_the_loss_its_constants(name, lam):
    objective = objectives.OBJECTIVES[name]
    clean = CLEAN if objective.needs_clean_logits else None
    assert objective.needs_clean_logits == (name != "standard")
    losses = jax.vmap(objective.bind({"lam": 6.0 if lam is None else lam, "smoothing": 0.0}))(
        clean, LOGITS, LABELS, WEIGHTS
    )
    if name == "standard":
        expected = np.asarray(WEIGHTS) * jax.vmap(objectives.cross_entropy)(LOGITS, LABELS)
    else:
        expected = by_hand(name, lam)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def autograd(name, method, constants):
    """Gradients by both logits of the weighted sum, by PyTorch in float64, weights detached."""
    z, a = (torch.tensor(np.asarray(x, np.float64), requires_grad=True) for x in (CLEAN, LOGITS))
    y = torch.tensor(np.asarray(LABELS), dtype=torch.long)
    rows = torch.arange(8)
    log_p, log_q = z.log_softmax(1), a.log_softmax(1)
    p, q = log_p.exp(), log_q.exp()
    others = q.masked_fill(torch.nn.functional.one_hot(y, 5).bool(), -1).max(1).values
    margin = q[rows, y] - others
    if method == "mail":
        w = constants["multiplier"] * torch.sigmoid(-constants["gamma"] * (margin + constants["beta"]))
    else:
        w = constants["multiplier"] * torch.exp(-constants["alpha"] * margin)
    w, kl = w.detach(), (p * (log_p - log_q)).sum(1)
    if name == "trades":
        losses = -log_p[rows, y] + 6 * w * kl
    else:
        losses = w * (-log_q[rows, y] - (1.0001 - others + 1e-12).log()) + 6 * kl * (1.0000001 - p[rows, y])
    losses.sum().backward()
    return z.grad.numpy(), a.grad.numpy()


@pytest.mark.skipif(torch is None, reason='needs torch: pip install -e ".[torch]"')
@pytest.mark.parametrize("method", ["mail", "wmmr"])
@pytest.mark.parametrize("name", ["trades", "mart"])
def test_gradients_of_reweighted_objectives_are_autograds(name, method):
    """MAIL-TRADES and MAIL-MART: the gradient does not see that the weights depend on the logits."""

    def total(clean, adversarial):
        w = weights(method, logits=adversarial)
        return loss_of(name, lam=6.0)(clean, adversarial, LABELS, w).sum()

    gradients = jax.grad(total, (0, 1))(CLEAN, LOGITS)
    for gradient, expected in zip(gradients, autograd(name, method, DEFAULTS), strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-5 * np.abs(expected).max())
