"""Margins against the specification's golden values, float64 NumPy, and the paper's own propositions."""

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.golden import GOLDEN, golden_logits
from hypothesis import strategies as st

from jaxrw.methods import margins

logits_and_label = st.integers(3, 12).flatmap(
    lambda k: st.tuples(
        st.lists(st.floats(-40, 40, width=32), min_size=k, max_size=k).map(lambda z: np.array(z, np.float32)),
        st.integers(0, k - 1),
    )
)


def in_float64(logits, label):
    """m, o, c by their definitions, in float64 from the probabilities of shifted logits."""
    z = logits.astype(np.float64)
    p = np.exp(z - z.max())
    others = np.delete(p, label)
    m = (p[label] - others.max()) / p.sum()
    # Shifted by the largest of the others: 1 - p_y and |p'| underflow otherwise.
    q = np.delete(np.exp(z - np.delete(z, label).max()), label)
    full = np.concatenate([q, [np.exp(min(z[label] - np.delete(z, label).max(), 300))]])
    return m, q.max() / q.sum(), np.linalg.norm(q) / np.linalg.norm(full)


@pytest.mark.parametrize(("probabilities", "expected"), GOLDEN)
def test_golden_values(probabilities, expected):
    logits, label = golden_logits(*probabilities), jnp.array(0)
    measured = (
        margins.probability_margin(logits, label),
        margins.top2_ratio(logits, label),
        margins.similarity(logits, label),
        margins.reweighted_margin(logits, label, tau=2),
        margins.reweighted_margin(logits, label, tau=3),
    )
    # The table rounds m to 4 digits (0.5556 for 5/9), the rest to 5.
    np.testing.assert_allclose(measured, expected, atol=1e-5 + 4e-5 * (expected[0] == 0.5556))
    chex.assert_shape(measured, ())


@hypothesis.given(logits_and_label)
def test_float64_agrees(example):
    logits, label = example
    measured = [
        f(jnp.array(logits), jnp.array(label))
        for f in (margins.probability_margin, margins.top2_ratio, margins.similarity)
    ]
    # exp of a float32 of magnitude up to 80 carries an error of 80 * 2^-24 = 5e-6, relative.
    np.testing.assert_allclose(measured, in_float64(logits, label), rtol=2e-5, atol=1e-6)


def test_confident_points_keep_their_ratio():
    """From float32 probabilities this would be 0.347 at a gap of 18, and infinite at 30."""
    others = np.log([0.254, 0.25, 0.25, 0.246])
    for gap in (18.0, 30.0, 80.0):
        logits = jnp.array([gap, *others], jnp.float32)
        np.testing.assert_allclose(margins.top2_ratio(logits, jnp.array(0)), 0.254, rtol=1e-6)


@hypothesis.given(logits_and_label)
def test_equation_8_bounds_the_ratio(example):
    logits, label = jnp.array(example[0]), jnp.array(example[1])
    ratio = margins.top2_ratio(logits, label)
    # log K carries a relative error of 2^-23 into the lower bound.
    assert 1 / (len(logits) - 1) * (1 - 1e-5) <= ratio <= 1


@hypothesis.given(logits_and_label, st.sampled_from([2.0, 3.0, 4.0]), st.booleans())
def test_reweighting_keeps_sign_and_range(example, tau, similarity):
    logits, label = jnp.array(example[0]), jnp.array(example[1])
    margin = margins.probability_margin(logits, label)
    reweighted = margins.reweighted_margin(logits, label, tau=tau, similarity=similarity)
    assert -1 - 1e-6 <= margin <= 1 + 1e-6
    assert 0 <= margins.similarity(logits, label) <= 1
    assert abs(float(reweighted)) <= tau * (1 + 1e-6)
    # c underflows for the most confident points only, so a sign may turn into 0, never around.
    assert float(reweighted) * float(margin) >= 0
    others = np.delete(example[0], example[1])
    assert np.sign(margin) == np.sign(example[0][example[1]] - others.max())


@hypothesis.given(st.floats(0.05, 0.45), st.floats(0.01, 0.3))
def test_lemma_1_equal_margins_of_different_distributions(p_2, difference):
    """Both p_y and p_2 lower by the same number, the rest spread: the margin cannot tell the two apart."""
    p_y = min(p_2 + 0.1, 0.99 - p_2)
    rest = (1 - p_y - p_2 + 2 * difference) / 8
    hypothesis.assume(p_y > difference and rest <= p_2 - difference)
    first, second = golden_logits(p_y, p_2), golden_logits(p_y - difference, p_2 - difference)
    label = jnp.array(0)
    np.testing.assert_allclose(
        margins.probability_margin(first, label), margins.probability_margin(second, label), atol=1e-6
    )
    assert margins.top2_ratio(first, label) > margins.top2_ratio(second, label)


@st.composite
def equal_margin_pairs(draw):
    """Two distributions with equal margins and p_y(i) > p_y(j) > 1/K: the premise of Proposition 1."""
    k = draw(st.integers(3, 12))
    p_j = draw(st.floats(1 / k + 1e-3, 0.9))
    second_j = draw(st.floats((1 - p_j) / (k - 1), 1 - p_j))
    gain = draw(st.floats(1e-3, 0.9))
    p_i, second_i = p_j + gain, second_j + gain
    hypothesis.assume(p_i + second_i <= 1)
    pairs = []
    for p, second in ((p_i, second_i), (p_j, second_j)):
        # The others take what is left, none of them above the second: filled up one after the other.
        left, others = 1 - p - second, []
        for _ in range(k - 2):
            others.append(min(second, left))
            left -= others[-1]
        hypothesis.assume(left < 1e-9)
        pairs.append(jnp.log(jnp.maximum(jnp.array([p, second, *others], jnp.float32), 1e-30)))
    return pairs


@hypothesis.given(equal_margin_pairs())
def test_proposition_1_larger_probability_larger_ratio(pair):
    first, second = pair
    label = jnp.array(0)
    np.testing.assert_allclose(
        margins.probability_margin(first, label), margins.probability_margin(second, label), atol=1e-6
    )
    assert margins.top2_ratio(first, label) > margins.top2_ratio(second, label)


def test_margin_keeps_a_sign_that_probabilities_lose():
    """softmax rounds both to the same float32; the logits still tell them apart."""
    logits = jnp.array([0.01 + 2e-9, 0.01, -30.0], jnp.float32)
    assert logits[0] > logits[1]
    assert jax.nn.softmax(logits)[0] - jax.nn.softmax(logits)[1] == 0
    assert margins.probability_margin(logits, jnp.array(0)) > 0


def test_bfloat16_logits_are_worked_on_in_float32():
    logits = golden_logits(0.6, 0.3).astype(jnp.bfloat16)
    for function in (margins.probability_margin, margins.top2_ratio, margins.similarity):
        measured = function(logits, jnp.array(0))
        assert measured.dtype == jnp.float32
        assert measured == function(logits.astype(jnp.float32), jnp.array(0))


def test_gradients_are_finite_at_ties_and_extremes():
    def total(logits):
        return margins.reweighted_margin(logits, jnp.array(0), tau=2)

    for logits in (
        jnp.zeros(4),
        jnp.array([80.0, 0, 0, 0]),
        jnp.array([-80.0, 0, 0, 0]),
        jnp.array([0, 0, -80.0, 5]),
    ):
        assert jnp.isfinite(jax.grad(total)(logits)).all()


def test_vmap_equals_one_by_one():
    logits = jax.random.normal(jax.random.key(0), (6, 5)) * 4
    labels = jnp.arange(6) % 5
    batched = jax.vmap(lambda z, y: margins.reweighted_margin(z, y, tau=2))(logits, labels)
    chex.assert_shape(batched, (6,))
    single = [margins.reweighted_margin(z, y, tau=2) for z, y in zip(logits, labels, strict=True)]
    np.testing.assert_allclose(batched, single, rtol=1e-6)


def test_reweighting_refuses_what_it_is_not_defined_for():
    with pytest.raises(ValueError, match="at least 3 classes, got 2"):
        margins.reweighted_margin(jnp.zeros(2), jnp.array(0), tau=2)
    with pytest.raises(ValueError, match="tau is 1"):
        margins.reweighted_margin(jnp.zeros(3), jnp.array(0), tau=1)
    with pytest.raises(AssertionError, match="rank"):
        margins.probability_margin(jnp.zeros((2, 3)), jnp.array(0))
