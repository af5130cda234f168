"""Linear problems that the tests of AutoAttack share, and what the standard version makes of them."""

import numpy as np
import pytest
from helpers.autoattack import evaluate, in_the_widest_gap
from helpers.linear import linear_problem


@pytest.fixture(scope="session")
def problem():
    """Linear, five classes, a few labels wrong from the start, half of the rest within eps."""
    logits_fn, images, labels, distance = linear_problem(5)
    labels[:6] = (labels[:6] + 1) % 5
    eps = float(np.median(distance))
    assert np.abs(distance / eps - 1).min() > 1e-3
    return logits_fn, images, labels, eps, (distance > eps) & (np.arange(64) >= 6)


@pytest.fixture(scope="session")
def standard(problem):
    logits_fn, images, labels, eps, _ = problem
    return evaluate(logits_fn, images, labels, eps=eps)


@pytest.fixture(scope="session")
def l2_problem():
    """Linear, three classes, half of the labels within eps in L2."""
    logits_fn, images, labels, distance = linear_problem(3, norm="l2")
    eps = in_the_widest_gap(distance)
    return logits_fn, images, labels, eps, distance > eps


@pytest.fixture(scope="session")
def l2_standard(l2_problem):
    logits_fn, images, labels, eps, _ = l2_problem
    return evaluate(logits_fn, images, labels, eps=eps, norm="l2")
