"""Individual attacks, the versions plus and rand, and restarts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.autoattack import KilledError, evaluate, evaluate_and_catch, noisy
from helpers.linear import SHAPE

from jaxrw.attacks.autoattack.checks import in_ball
from jaxrw.attacks.autoattack.state import WRONG

# Versions


def test_individual_attacks_are_the_attacks_alone(problem, standard):
    logits_fn, images, labels, eps, _ = problem
    attacks = ("apgd-ce", "fab-t")
    result = evaluate(logits_fn, images, labels, eps=eps, attacks=attacks, individual=True)
    assert result.attacked == dict.fromkeys(attacks, 58)
    for name in attacks:
        alone = evaluate(logits_fn, images, labels, eps=eps, attacks=(name,))
        np.testing.assert_array_equal(result.robust_under[name], alone.robust)
        assert result.accuracy[name] == alone.accuracy[name] == 100 * alone.robust.mean()
        assert result.fooled[name] == alone.fooled[name]
    one_by_one = evaluate(logits_fn, images, labels, eps=eps, attacks=attacks)
    np.testing.assert_array_equal(result.fooled_by, one_by_one.fooled_by)
    np.testing.assert_array_equal(result.adversarial, one_by_one.adversarial)
    np.testing.assert_array_equal(one_by_one.robust_under["fab-t"], one_by_one.robust)
    # What they find does overlap, or both ways would be the same.
    assert sum(result.fooled.values()) > sum(one_by_one.fooled.values())


def test_plus_runs_all_attacks_and_restarts(problem):
    logits_fn, images, labels, eps, robust = problem
    looks = []
    result = evaluate(
        logits_fn,
        images,
        labels,
        eps=eps,
        version="plus",
        num_steps=10,
        num_queries=100,
        progress=looks.append,
    )
    assert list(result.accuracy) == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    np.testing.assert_array_equal(result.robust, robust)
    assert result.version == "plus"


def test_restarts_begin_elsewhere():
    """The image lies on a plateau without a gradient; a brighter first pixel leads off it, then to another class."""

    def logits_fn(images):
        pixel = images[:, 0, 0, 0] - 0.5
        margin = jnp.where(pixel > 0.005, 0.05 - pixel, 1)
        return jnp.stack([margin, jnp.zeros_like(pixel), jnp.full_like(pixel, -10.0)], axis=1)

    images, labels = np.full((32, *SHAPE), 0.5, np.float32), np.zeros(32, int)
    # A start is darker with a probability of 0.525 (APGD) or 0.55 (FAB); the first of FAB is the image itself.
    for name, most in {"apgd-ce": 28, "fab": 32}.items():
        robust = [
            evaluate_and_catch(
                logits_fn, images, labels, eps=0.1, attacks=(name,), num_restarts=number, num_steps=5
            ).robust.sum()
            for number in (1, 7)
        ]
        assert 5 < robust[0] <= most
        assert robust[1] <= 4
    assert robust[0] == 32


def test_a_random_model_is_judged_by_votes():
    """A shift of the mean by s is right with probability Phi(40 s), so more than half of the time if s is positive."""
    shifts = np.linspace(-0.05, 0.05, 32)
    images = (0.5 + shifts[:, None, None, None] * np.ones(SHAPE)).astype(np.float32)
    result = evaluate_and_catch(noisy, images, np.ones(32, int), eps=0.02, version="rand", num_votes=200)
    # 200 votes know a probability to 0.035: 40 * 0.0032 / sqrt(2 pi) = 0.05.
    clear = np.abs(shifts) > 0.0032
    np.testing.assert_array_equal((result.fooled_by != WRONG)[clear], (shifts > 0)[clear])
    clear = np.abs(shifts - 0.02) > 0.0032
    np.testing.assert_array_equal(result.robust[clear], (shifts > 0.02)[clear])
    assert list(result.accuracy) == ["apgd-ce", "apgd-dlr"]
    assert in_ball(result.adversarial, images, eps=0.02).all()


def test_a_random_model_gives_the_same_in_any_batch_and_after_a_kill(tmp_path):
    shifts = np.linspace(0.001, 0.04, 24)
    images, labels = (0.5 + shifts[:, None, None, None] * np.ones(SHAPE)).astype(np.float32), np.ones(24, int)
    call = {"eps": 0.02, "version": "rand", "num_samples": 4, "num_votes": 5, "num_steps": 10}
    whole = evaluate_and_catch(noisy, images, labels, **call)

    def kill(progress):
        raise KilledError

    path = tmp_path / "state.npz"
    with pytest.raises(KilledError):
        evaluate_and_catch(noisy, images, labels, progress=kill, state_path=path, **call)
    for more in {"batch_size": 7}, {"state_path": path}:
        result = evaluate_and_catch(noisy, images, labels, **call, **more)
        np.testing.assert_array_equal(result.fooled_by, whole.fooled_by)
        np.testing.assert_allclose(result.adversarial, whole.adversarial, atol=1e-6)
    assert 0 < whole.robust.sum() < 24


def test_a_random_model_in_a_program_of_float64():
    """State and sums keep their types whatever JAX's default is."""
    images, labels = np.full((4, *SHAPE), 0.5, np.float32), np.zeros(4, int)

    def noisy(images, key):
        flat = images.reshape(len(images), -1) + 0.1 * jax.random.normal(key, (32,), jnp.float32)
        return flat @ jnp.eye(32, 4, dtype=jnp.float32)

    with jax.enable_x64(True):
        call = {"version": "rand", "num_steps": 2, "num_samples": 2, "num_votes": 3, "batch_size": 4}
        result = evaluate_and_catch(noisy, images, labels, eps=0.1, **call)
    assert list(result.accuracy) == ["apgd-ce", "apgd-dlr"]


def test_the_mean_gradient_finds_its_way_through_noise():
    """Steep noise hides a slope: one gradient points anywhere, the mean of many along it."""
    rng = np.random.default_rng(0)
    slope = jnp.asarray(rng.normal(size=32), jnp.float32)

    def logits_fn(images, key):
        tilt = slope + 3 * jax.random.normal(key, (32,))
        score = (images.reshape(len(images), -1) - 0.5) @ tilt
        return jnp.stack([jnp.zeros_like(score), score + 1, jnp.full_like(score, -100.0)], axis=1)

    images, labels = np.full((16, *SHAPE), 0.5, np.float32), np.ones(16, int)
    # The whole slope takes eps * |slope|_1, more than 1 with some to spare.
    eps = 1.6 / float(jnp.abs(slope).sum())
    robust = [
        evaluate_and_catch(
            logits_fn,
            images,
            labels,
            eps=eps,
            version="rand",
            num_samples=n,
            num_votes=100,
            attacks=("apgd-ce",),
        ).robust.mean()
        for n in (1, 40)
    ]
    assert robust[1] < 0.2 < robust[0]
