"""AutoAttack that asks a cheaper model: what counts is decided by the model itself."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.autoattack import KilledError
from helpers.linear import linear, linear_problem, right

from jaxrw.attacks import RobustnessWarning, autoattack
from jaxrw.attacks.autoattack.checks import in_ball
from jaxrw.attacks.autoattack.state import ROBUST

KEY = jax.random.key(5)


def in_bfloat16(weights, images):
    flat = images.reshape(len(images), -1).astype(jnp.bfloat16) - 0.5
    return flat @ jnp.asarray(weights, jnp.bfloat16)


def wrong_on_bright_images(weights, threshold, images):
    sign = jnp.where(images.mean((1, 2, 3)) > threshold, -1, 1)
    return linear(weights, images) * sign[:, None]


def evaluate(logits_fn, images, labels, *, eps, batch_size=16, **settings):
    short = {"num_steps": 20, "num_queries": 400, "progress": False}
    return autoattack(KEY, logits_fn, images, labels, eps=eps, batch_size=batch_size, **{**short, **settings})


@pytest.fixture(scope="module")
def problem():
    """Linear, five classes; half of the examples within eps, none closer to it than bfloat16 rounds."""
    logits_fn, images, labels, distance = linear_problem(5)
    eps = float(np.median(distance))
    return logits_fn, images, labels, eps, distance > eps


@pytest.fixture(scope="module")
def coarse(problem):
    """A surrogate that errs both ways: other weights, by a tenth."""
    weights = np.asarray(problem[0].args[0])
    noise = np.random.default_rng(0).normal(size=weights.shape)
    return jax.tree_util.Partial(linear, (weights * (1 + 0.1 * noise)).astype(np.float32))


@pytest.fixture(scope="module")
def with_coarse(problem, coarse):
    logits_fn, images, labels, eps, _ = problem
    return evaluate(logits_fn, images, labels, eps=eps, surrogate=coarse)


@pytest.mark.parametrize("individual", [False, True])
def test_bfloat16_finds_what_float32_finds(problem, individual):
    """Its logits are bfloat16 too, and no attack adds up in that."""
    logits_fn, images, labels, eps, robust = problem
    surrogate = jax.tree_util.Partial(in_bfloat16, logits_fn.args[0])
    assert surrogate(jnp.asarray(images)).dtype == jnp.bfloat16
    result = evaluate(logits_fn, images, labels, eps=eps, surrogate=surrogate, individual=individual)
    np.testing.assert_array_equal(result.robust, robust)
    assert result.surrogate
    assert result.warnings == ()
    assert result.record()["surrogate"] is True
    assert f"it alone was fooled by images of {len(result.unconfirmed)} examples" in repr(result)


def test_only_the_model_decides(problem, with_coarse):
    """Whatever the surrogate believes, every image that counts fools the model within eps."""
    logits_fn, images, labels, eps, robust = problem
    assert in_ball(with_coarse.adversarial, images, eps=eps).all()
    np.testing.assert_array_equal(right(logits_fn, with_coarse.adversarial, labels), with_coarse.robust)
    assert not (robust & ~with_coarse.robust).any()
    # It has been fooled alone, or this test shows nothing; it misses few.
    assert len(with_coarse.unconfirmed) > 0
    assert (with_coarse.robust & ~robust).sum() <= 3


def test_examples_that_fool_the_surrogate_alone_are_attacked_with_the_model(problem):
    """A surrogate that is always wrong is of no use, and does no harm."""
    logits_fn, images, labels, eps, robust = problem
    weights = -np.asarray(logits_fn.args[0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = evaluate(
            logits_fn,
            images,
            labels,
            eps=eps,
            surrogate=jax.tree_util.Partial(linear, weights),
            attacks=("apgd-t",),
        )
    alone = evaluate(logits_fn, images, labels, eps=eps, attacks=("apgd-t",))
    np.testing.assert_array_equal(alone.robust, robust)
    np.testing.assert_array_equal(result.adversarial, alone.adversarial)
    assert len(result.unconfirmed) >= robust.sum()
    assert [w.category for w in caught] == [RobustnessWarning]
    assert "the surrogate predicts another class than logits_fn for 16 of 16 images" in str(caught[0].message)


@pytest.mark.parametrize(("batch_size", "look"), [(16, 1), (16, 9), (4, 2), (4, 30)])
def test_goes_on_after_a_kill(problem, coarse, with_coarse, tmp_path, batch_size, look):
    """With the surrogate as with the model: the same images, and nothing is done twice."""
    logits_fn, images, labels, eps, _ = problem
    looks = []

    def kill(progress):
        looks.append(progress)
        if len(looks) == look:
            raise KilledError

    call = {"eps": eps, "batch_size": batch_size, "surrogate": coarse}
    kept = {"state_path": tmp_path / "state.npz", "state_seconds": 0}
    with pytest.raises(KilledError):
        evaluate(logits_fn, images, labels, **call, **kept, progress=kill)
    again = []
    result = evaluate(logits_fn, images, labels, **call, **kept, progress=again.append)
    np.testing.assert_array_equal(result.adversarial, with_coarse.adversarial)
    np.testing.assert_array_equal(result.fooled_by, with_coarse.fooled_by)
    np.testing.assert_array_equal(result.unconfirmed, with_coarse.unconfirmed)
    complete = []
    evaluate(logits_fn, images, labels, **call, progress=complete.append)
    assert len(looks) + len(again) <= len(complete) + 1


def test_what_was_in_the_slots_of_the_surrogate_is_not_attacked_again(problem, tmp_path):
    """Killed while robust examples fill the slots: after these, the slots are free for those that need the model."""
    logits_fn, images, labels, eps, _ = problem
    surrogate = jax.tree_util.Partial(
        wrong_on_bright_images, logits_fn.args[0], np.median(images.mean((1, 2, 3)))
    )
    call = {"eps": eps, "batch_size": 2, "surrogate": surrogate, "attacks": ("apgd-ce",)}
    complete, looks, again = [], [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RobustnessWarning)
        whole = evaluate(logits_fn, images, labels, **call, progress=complete.append)
        # While the surrogate is asked, after a look at which both slots are at the beginning of an attack.
        done = [now.fraction * len(images) for now in complete]
        last = max(look for look, n in enumerate(done, 1) if n < len(images) / 2 and 0.01 < n % 1 < 0.5)

        def kill(progress):
            looks.append(progress)
            if len(looks) == last:
                raise KilledError

        kept = {"state_path": tmp_path / "state.npz"}
        with pytest.raises(KilledError):
            evaluate(logits_fn, images, labels, **call, **kept, state_seconds=0, progress=kill)
        # Nothing is written before the end now, so what was restored stays in memory.
        result = evaluate(logits_fn, images, labels, **call, **kept, progress=again.append)
    np.testing.assert_array_equal(result.robust, whole.robust)
    np.testing.assert_array_equal(result.adversarial, whole.adversarial)
    assert len(looks) + len(again) <= len(complete) + 1


def test_its_state_is_not_that_of_the_model(problem, coarse, tmp_path):
    logits_fn, images, labels, eps, _ = problem
    call = {"eps": eps, "state_path": tmp_path / "state.npz", "attacks": ("apgd-ce",)}
    evaluate(logits_fn, images, labels, surrogate=coarse, **call)
    with pytest.raises(ValueError, match="surrogate was given, is None"):
        evaluate(logits_fn, images, labels, **call)


def test_mistakes_are_named_in_one_line(problem):
    logits_fn, images, labels, eps, _ = problem
    fewer = jax.tree_util.Partial(linear, logits_fn.args[0][:, :4])
    with pytest.raises(ValueError, match=r"surrogate maps images to \(16, 4\) and logits_fn to \(16, 5\)"):
        evaluate(logits_fn, images, labels, eps=eps, surrogate=fewer)
    with pytest.raises(ValueError, match="surrogate is given; must be None for version 'rand'"):
        evaluate(
            lambda images, key: logits_fn(images),
            images,
            labels,
            eps=eps,
            surrogate=logits_fn,
            version="rand",
        )


def test_robust_examples_keep_their_images(problem, with_coarse):
    kept = with_coarse.fooled_by == ROBUST
    np.testing.assert_array_equal(with_coarse.adversarial[kept], problem[1][kept])
