"""Weights of the seven methods against golden values and the public formulas."""

import chex
import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.golden import DEFAULTS, GOLDEN, golden_logits
from hypothesis import strategies as st

from jaxrw import methods, weightings

# Of the distributions of helpers.golden: entropy in nats, MAIL (M 3), WMMR (alpha 2, M 1), then with
# tau 2 and with tau 3: Ours+MAIL and Ours+WMMR (both M 3).
WEIGHTS = [
    (0.07333, 0.000001, 0.13946, 0.018560, 2.97635, 0.017612, 2.96069),
    (1.10589, 0.001006, 0.54881, 0.003739, 2.53446, 0.000971, 2.21461),
    (1.55190, 0.000078, 0.32919, 0.002074, 2.38923, 0.000622, 2.11796),
    (0.76301, 0.020079, 1.00000, 0.020079, 3.00000, 0.020079, 3.00000),
    (1.92068, 0.020079, 1.00000, 0.020079, 3.00000, 0.020079, 3.00000),
    (2.14262, 0.227575, 1.64872, 0.913570, 4.55410, 2.517707, 5.83496),
    (0.79141, 1.867378, 3.00417, 1.968691, 5.27652, 2.992287, 8.97735),
    (0.13270, 2.972960, 6.95875, 2.975451, 7.99135, 2.999998, 21.07966),
]


def weight(name, logits, label=0, kappa=0, **fields):
    """Weight of one example by a method with the paper's constants, `fields` changed."""
    weighting = methods.get(name).weighting(DEFAULTS | fields, num_steps=10)
    return weighting(logits, jnp.array(label), jnp.array(kappa))


@pytest.mark.parametrize(("golden", "weights"), list(zip(GOLDEN, WEIGHTS, strict=True)))
def test_golden_values(golden, weights):
    logits = golden_logits(*golden[0])
    measured = (
        weight("ewat", logits),
        weight("mail", logits),
        weight("wmmr", logits, multiplier=1.0),
        weight("ours_mail", logits),
        weight("ours_wmmr", logits),
        weight("ours_mail", logits, tau=3.0),
        weight("ours_wmmr", logits, tau=3.0),
    )
    np.testing.assert_allclose(measured, weights, atol=1e-5)
    chex.assert_shape(measured, ())


def test_gairat_golden_values():
    expected = [0.9997, 0.9975, 0.9820, 0.8808, 0.5, 0.1192, 0.0180, 0.0025, 0.0003, 0.00005, 0.000006]
    measured = [weightings.gairat(jnp.array(kappa), num_steps=10, lam=-1.0) for kappa in range(11)]
    np.testing.assert_allclose(measured, expected, atol=5e-5)
    assert measured[-1] > 0


@pytest.mark.parametrize("lam", [-1.0, -4.0])
def test_small_weights_of_gairat_are_not_rounded_to_0(lam):
    """(1 + tanh) / 2 of float32 is off by 1 % at 6e-6, and 0 at 1e-8; then a batch of such examples trains nothing."""
    kappa = np.arange(11)
    expected = (1 + np.tanh(np.float64(lam) + 5 * (1 - 2 * kappa / 10))) / 2
    measured = [weightings.gairat(jnp.array(number), num_steps=10, lam=lam) for number in kappa]
    np.testing.assert_allclose(measured, expected, rtol=1e-5)
    weights = weightings.batch_weights(
        lambda logits, label, kappa: weightings.gairat(kappa, num_steps=10, lam=lam),
        jnp.zeros((4, 3)),
        jnp.zeros(4, int),
        jnp.full(4, 10),
        normalized=True,
        active=jnp.array(True),
    )
    np.testing.assert_allclose(weights, 1, rtol=1e-6)


@hypothesis.given(st.lists(st.floats(0.001, 1), min_size=3, max_size=10))
def test_mail_and_wmmr_are_their_public_formulas(masses):
    """MAIL's code: 3 sigmoid(10 ((p_2 - p_y) - 0.5)); WMMR's: exp(-alpha (p_y - p_2))."""
    p = np.array(masses) / np.sum(masses)
    logits = jnp.log(jnp.array(p, jnp.float32))
    gap = np.delete(p, 0).max() - p[0]
    np.testing.assert_allclose(weight("mail", logits), 3 / (1 + np.exp(-10 * (gap - 0.5))), rtol=1e-4)
    np.testing.assert_allclose(weight("wmmr", logits), 3 * np.exp(2 * gap), rtol=1e-5)


@hypothesis.given(st.lists(st.floats(-30, 30, width=32), min_size=3, max_size=10))
def test_entropy_stays_in_its_range(logits):
    entropy = weightings.ewat(jnp.array(logits, jnp.float32))
    assert -1e-6 <= entropy <= np.log(len(logits)) + 1e-5


def test_wrong_examples_weigh_more_than_correct_ones():
    """The sign of every method: a mistake of sign turns these around."""
    correct, wrong = golden_logits(0.6, 0.3), golden_logits(0.05, 0.3)
    for name in ("wmmr", "mail", "ours_wmmr", "ours_mail"):
        assert weight(name, wrong) > weight(name, correct), name
    assert weight("gairat", correct, kappa=0) > weight("gairat", correct, kappa=10)


@hypothesis.given(st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=10))
def test_later_weights_are_their_formulas(logits):
    """exp(L / r) with r = 2, the sigmoid of the difference of logits both ways, and a constant, in float64."""
    z = np.array(logits)
    gap = z[0] - np.delete(z, 0).max()
    loss = np.log(np.exp(z).sum()) - z[0]
    logits = jnp.array(logits, jnp.float32)
    np.testing.assert_allclose(weight("done", logits), np.exp(loss / 2), rtol=1e-4)
    expected = 3 / (1 + np.exp(2 * (gap + 0.5)))
    np.testing.assert_allclose(weight("mail_logits", logits, gamma=2.0), expected, rtol=1e-4)
    assert weight("constant", logits) == 0.5
    np.testing.assert_allclose(weight("far", logits, gamma=2.0), 1 / (1 + np.exp(-2 * gap)), rtol=1e-4)


def test_the_weight_of_a_huge_loss_is_finite():
    """So is its sum over a batch of many of them, by which it is divided."""
    highest = weight("done", jnp.array([0.0, 1e4, 0.0]), temperature=0.1)
    assert np.isfinite(np.float32(highest) * np.float32(1e6))


def test_titles_name_the_weighting_and_what_it_weighs():
    def title(method, objective, **options):
        return methods.title(methods.get(method), methods.OBJECTIVES[objective], **options)

    assert title("standard", "standard") == "Standard"
    assert title("standard", "trades") == "TRADES"
    assert title("mail", "trades") == "MAIL-TRADES"
    assert title("ours_mail", "mart", perturbs_weights=True) == "Ours+MAIL-MART-AWP"
    assert title("standard", "standard", perturbs_weights=True) == "Standard-AWP"


def test_algorithm_1_as_printed_is_reachable():
    """Line 10 with Eq. 4's sign: sigmoid(gamma (m' + beta)) with m' = -m, which is beta = -0.5 here."""
    logits = golden_logits(0.6, 0.3)
    printed = 3 / (1 + np.exp(-10 * (-0.3 + 0.5)))
    np.testing.assert_allclose(weight("mail", logits, beta=-0.5), printed, rtol=1e-5)


def test_which_methods_are_normalised():
    for name in methods.METHODS:
        assert methods.get(name).normalized == (name in ("gairat", "ewat", "done")), name
    assert weight("standard", golden_logits(0.6, 0.3)) == 1


def test_an_unknown_method_names_the_choices():
    with pytest.raises(ValueError, match="method is 'mart'; choose one of standard, gairat"):
        methods.get("mart")
