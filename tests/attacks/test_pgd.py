"""FGSM and PGD against plain loops, closed forms and foolbox."""

import functools
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from jaxrw import attacks
from jaxrw.attacks import suite
from jaxrw.attacks.losses import cw, scaled_cross_entropy
from jaxrw.methods.margins import is_correct, logit_margin

EPS, STEP_SIZE = 0.1, 0.03
SHAPE = (4, 4, 2)
IMAGES = jax.random.uniform(jax.random.key(0), (9, *SHAPE))
LABELS = jnp.arange(9) % 5
WEIGHTS = (
    jax.random.normal(jax.random.key(1), (32, 24)) / 4,
    jax.random.normal(jax.random.key(2), (24, 5)),
)


def network(images):
    """A small network with a smooth nonlinearity: no gradient is exactly 0, so no sign is a toss-up."""
    return jnp.tanh(images.reshape(len(images), -1) @ WEIGHTS[0]) @ WEIGHTS[1]


def attack(**options):
    return functools.partial(attacks.pgd, eps=EPS, step_size=STEP_SIZE, **({"num_steps": 7} | options))


def loss(images, labels):
    return optax.softmax_cross_entropy_with_integer_labels(network(images), labels)


@pytest.mark.parametrize("start", ["uniform", "normal", "none"])
@pytest.mark.parametrize("objective", ["ce", "cw", "scaled_ce"])
def test_pgd_stays_in_the_ball_and_raises_the_loss(start, objective):
    adversarial = attack(start=start, loss=objective)(jax.random.key(3), network, IMAGES, LABELS)
    chex.assert_equal_shape([adversarial, IMAGES])
    # Adding and subtracting eps rounds once: half an ulp of a number below 2.
    assert jnp.abs(adversarial - IMAGES).max() <= EPS + 2**-24
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert (loss(adversarial, LABELS) > loss(IMAGES, LABELS)).all()


@pytest.mark.parametrize("start", ["uniform", "normal"])
def test_a_random_start_is_in_the_ball_and_differs_between_examples(start):
    """One step of size 0 returns the start itself."""
    same = jnp.broadcast_to(IMAGES[:1], IMAGES.shape)
    first = attacks.pgd(
        jax.random.key(3), network, same, LABELS, eps=EPS, step_size=0.0, num_steps=1, start=start
    )
    noise = np.asarray(first - same)
    assert np.abs(noise).max() <= EPS + 2**-24
    assert len(np.unique(noise.reshape(len(noise), -1), axis=0)) == len(noise)
    expected = {"uniform": EPS / np.sqrt(3), "normal": 0.001}[start]
    # A deviation of 9 * 32 draws is known to 1 / sqrt(2 * 288) = 4 %; clipping to [0, 1] takes a little.
    assert 0.8 * expected < noise.std() < 1.15 * expected


def test_trades_attack_equals_a_plain_loop():
    """Signs of the gradient of KL(p || p'), p of the clean image and constant, and kappa counted on the way."""
    key, num_steps = jax.random.key(3), 4
    options = {"eps": EPS, "step_size": STEP_SIZE, "start": "normal"}
    adversarial, kappa = attacks.pgd_and_kappa(
        key, network, IMAGES, LABELS, num_steps=num_steps, loss="kl", **options
    )
    expected = attacks.pgd(key, network, IMAGES, LABELS, **(options | {"step_size": 0.0}), num_steps=1)
    log_p = jax.nn.log_softmax(network(IMAGES))

    def divergence(images):
        return (jnp.exp(log_p) * (log_p - jax.nn.log_softmax(network(images)))).sum()

    counted = np.zeros(9, int)
    for _ in range(num_steps):
        counted += np.asarray(network(expected).argmax(1) == LABELS)
        expected = expected + STEP_SIZE * jnp.sign(jax.grad(divergence)(expected))
        expected = jnp.clip(jnp.clip(expected, IMAGES - EPS, IMAGES + EPS), 0, 1)
    np.testing.assert_allclose(adversarial, expected, atol=7 * 2**-24)
    np.testing.assert_array_equal(kappa, counted)
    assert divergence(adversarial) > divergence(IMAGES) + 0.1


def test_trades_attack_needs_a_random_start():
    with pytest.raises(ValueError, match="at the image itself its gradient is 0"):
        attack(loss="kl", start="none")(jax.random.key(0), network, IMAGES, LABELS)


def test_pgd_equals_foolbox_from_the_same_start():
    with warnings.catch_warnings():
        # Importing it, and calling it, meets functions that SciPy and JAX deprecate.
        warnings.simplefilter("ignore", DeprecationWarning)
        import foolbox

        model = foolbox.JAXModel(network, bounds=(0, 1))
        theirs = foolbox.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=7, random_start=False)
        _, expected, _ = theirs(model, IMAGES, LABELS, epsilons=EPS)
    measured = attack(start="none")(jax.random.key(0), network, IMAGES, LABELS)
    assert jnp.abs(expected - IMAGES).max() > EPS / 2
    # Seven additions of numbers below 2, each rounded to half an ulp.
    np.testing.assert_allclose(measured, np.asarray(expected), atol=7 * 2**-24)


@pytest.mark.parametrize("objective", ["ce", "cw", "scaled_ce"])
def test_pgd_on_a_batch_equals_pgd_one_by_one(objective):
    key = jax.random.key(3)
    batch = attack(loss=objective)(key, network, IMAGES, LABELS)
    for i in range(len(IMAGES)):
        one = slice(i, i + 1)
        single = attack(loss=objective)(key, network, IMAGES[one], LABELS[one], index=jnp.array([i]))
        np.testing.assert_allclose(batch[one], single, atol=7 * 2**-24)


def test_draws_depend_on_the_example_not_on_its_place():
    key, order = jax.random.key(3), jnp.array([4, 2, 8, 0])
    whole = attack()(key, network, IMAGES, LABELS, index=jnp.arange(9))
    part = attack()(key, network, IMAGES[order], LABELS[order], index=order)
    np.testing.assert_allclose(whole[order], part, atol=7 * 2**-24)
    moved = attack()(key, network, IMAGES[order], LABELS[order])
    assert jnp.abs(whole[order] - moved).max() > 1e-3


def test_kappa_equals_a_plain_loop():
    key, num_steps = jax.random.key(3), 6
    _, kappa = attacks.pgd_and_kappa(
        key, network, IMAGES, LABELS, eps=EPS, step_size=STEP_SIZE, num_steps=num_steps
    )
    chex.assert_shape(kappa, (9,))
    for i in range(len(IMAGES)):
        clean, label = np.asarray(IMAGES[i]), int(LABELS[i])
        noise = jax.random.uniform(jax.random.fold_in(key, i), SHAPE, jnp.float32, -EPS, EPS)
        x, count = np.clip(clean + np.asarray(noise), 0, 1), 0
        for _ in range(num_steps):
            count += int(np.argmax(network(x[None])[0]) == label)
            gradient = jax.grad(lambda v, y=label: loss(v[None], jnp.array([y]))[0])(jnp.array(x))
            x = np.clip(x + STEP_SIZE * np.sign(gradient), clean - EPS, clean + EPS).clip(0, 1)
        assert count == kappa[i]
    assert len(set(np.asarray(kappa).tolist())) > 2  # or the test would tell nothing


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_other_norms_equal_a_plain_loop(norm):
    """Steps and projection in float64 NumPy, from the same start."""
    order, eps, step_size, num_steps = {"l2": (2, 0.4, 0.1, 6), "l1": (1, 0.9, 0.2, 6)}[norm]
    options = {"eps": eps, "norm": norm}
    first = attacks.pgd(jax.random.key(3), network, IMAGES, LABELS, step_size=0.0, num_steps=1, **options)
    measured = attacks.pgd(
        jax.random.key(3), network, IMAGES, LABELS, step_size=step_size, num_steps=num_steps, **options
    )
    starts = np.linalg.norm(np.asarray(first - IMAGES, np.float64).reshape(9, -1), order, axis=1)
    assert len(np.unique(starts)) == 9
    for i, (x, clean) in enumerate(
        zip(np.asarray(first, np.float64), np.asarray(IMAGES, np.float64), strict=True)
    ):
        for _ in range(num_steps):
            gradient = np.asarray(
                jax.grad(lambda v, y=i: loss(v[None], LABELS[y : y + 1])[0])(jnp.array(x)), float
            )
            if norm == "l2":
                step = x + step_size * gradient / (np.linalg.norm(gradient) + 1e-10) - clean
                x = np.clip(clean + step * min(1, eps / np.linalg.norm(step)), 0, 1)
            else:  # One per cent of 32 pixels is one.
                steepest = np.abs(gradient) == np.abs(gradient).max()
                x = nearest_in_l1_ball(x + step_size * np.sign(gradient) * steepest, clean, eps)
        # Six steps, each of 32 float32 pixels whose gradient is known to about 1e-6.
        np.testing.assert_allclose(measured[i], x, atol=2e-5)
    assert (loss(measured, LABELS) > loss(first, LABELS)).all()


def nearest_in_l1_ball(point, clean, eps):
    step, room = point - clean, np.where(point > clean, 1 - clean, clean)
    shortened = lambda threshold: np.clip(np.abs(step) - threshold, 0, room)  # noqa: E731
    excess = lambda threshold: shortened(threshold).sum() - eps  # noqa: E731
    threshold = scipy.optimize.brentq(excess, 0, np.abs(step).max(), xtol=1e-14) if excess(0) > 0 else 0
    return clean + np.sign(step) * shortened(threshold)


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("start", ["uniform", "normal", "none"])
def test_other_norms_stay_in_the_ball_and_raise_the_loss(norm, start):
    adversarial = attack(start=start, norm=norm)(jax.random.key(3), network, IMAGES, LABELS)
    size = np.linalg.norm(np.asarray(adversarial - IMAGES, np.float64).reshape(9, -1), int(norm[1]), axis=1)
    assert (size <= EPS + 32 * 2**-24).all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert (loss(adversarial, LABELS) > loss(IMAGES, LABELS)).all()


def test_fgsm_in_l2_is_one_step_along_the_gradient():
    gradient = np.asarray(jax.grad(lambda x: loss(x, LABELS).sum())(IMAGES), np.float64)
    direction = gradient / np.linalg.norm(gradient.reshape(9, -1), axis=1)[:, None, None, None]
    expected = np.clip(IMAGES + EPS * direction, 0, 1)
    np.testing.assert_allclose(attacks.fgsm(network, IMAGES, LABELS, eps=EPS, norm="l2"), expected, atol=1e-6)


def test_fgsm_is_one_step_of_size_eps():
    gradient = jax.grad(lambda x: loss(x, LABELS).sum())(IMAGES)
    expected = jnp.clip(IMAGES + EPS * jnp.sign(gradient), 0, 1)
    np.testing.assert_allclose(attacks.fgsm(network, IMAGES, LABELS, eps=EPS), expected, atol=2**-24)


def test_no_steps_leave_the_images_alone():
    np.testing.assert_array_equal(attack(num_steps=0)(jax.random.key(0), network, IMAGES, LABELS), IMAGES)


def test_more_steps_are_a_stronger_attack():
    losses = [
        float(
            loss(attack(num_steps=n, start="none")(jax.random.key(0), network, IMAGES, LABELS), LABELS).mean()
        )
        for n in (0, 1, 3, 10)
    ]
    assert losses == sorted(losses)
    assert losses[-1] > losses[0] + 0.1


def test_the_same_function_is_traced_once():
    traces = []

    def counted(images):
        traces.append(images.shape)
        return network(images)

    attack()(jax.random.key(0), counted, IMAGES, LABELS)
    first = len(traces)
    attack()(jax.random.key(1), counted, IMAGES, LABELS)
    assert len(traces) == first > 0


def test_other_parameters_of_the_same_function_compile_nothing():
    """A `Partial` hands its arrays over as arguments, and they are used: the images differ."""
    traces = []

    def counted(weights, images):
        traces.append(images.shape)
        return images.reshape(len(images), -1) @ weights

    both = [
        attack()(jax.random.key(0), jax.tree_util.Partial(counted, weights), IMAGES, LABELS)
        for weights in (jnp.eye(32, 5), -jnp.eye(32, 5))
    ]
    assert jnp.abs(both[0] - both[1]).max() > EPS
    first = len(traces)
    attack()(jax.random.key(0), jax.tree_util.Partial(counted, jnp.ones((32, 5))), IMAGES, LABELS)
    assert len(traces) == first


def test_cw_masks_the_true_class_even_where_all_logits_are_negative():
    """Multiplying by 0 instead would make the true class the largest."""
    logits, label = jnp.array([-1.0, -3.0, -2.0]), jnp.array(0)
    assert cw(logits, label) == -1
    assert logit_margin(logits, label) == 1


def scaled_losses(logits, labels):
    """Cross-entropy of 10 z and its gradient in float64: -log p_y, and 10 (p - onehot)."""
    z = 10 * np.float64(logits)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    onehot = np.eye(z.shape[1])[labels]
    return -np.log((p * onehot).sum(1)), 10 * (p - onehot)


def test_the_cross_entropy_of_ten_times_the_logits_is_numpys():
    """Loss and gradient; logits of 0.3 as of a network that hides, and of 3."""
    for size in (0.3, 3.0):
        logits = np.float32(np.random.RandomState(0).randn(9, 5) * size)
        expected, slopes = scaled_losses(logits, LABELS)
        losses, gradients = jax.vmap(jax.value_and_grad(scaled_cross_entropy))(logits, LABELS)
        # The largest of 10 z is about 80 and known to 2^-24 of that: 5e-6, which p passes on.
        np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(gradients, slopes, atol=2e-4)
    # In half precision, ten times a logit is not rounded once more.
    half = jnp.array([0.1, 0.2003, 0.3], jnp.bfloat16)
    expected, _ = scaled_losses(np.float64(half.astype(jnp.float32))[None], [0])
    np.testing.assert_allclose(scaled_cross_entropy(half, jnp.array(0)), expected[0], rtol=1e-6)


def test_pgd_on_ten_times_the_logits_equals_a_loop_in_numpy():
    """Gradient by the chain rule in float64; it takes another way than PGD on the cross-entropy.

    The logits are a tenth of the network's: where p_y rounds to 1 in float32, a sign of the gradient is a toss-up.
    """
    first, second = np.float64(WEIGHTS[0]), np.float64(WEIGHTS[1]) / 10
    clean = np.float64(IMAGES).reshape(9, -1)
    x = clean
    for _ in range(7):
        hidden = np.tanh(x @ first)
        _, slopes = scaled_losses(hidden @ second, LABELS)
        gradient = (slopes @ second.T * (1 - hidden**2)) @ first.T
        x = np.clip(np.clip(x + STEP_SIZE * np.sign(gradient), clean - EPS, clean + EPS), 0, 1)

    def small(images):
        return network(images) / 10

    key = jax.random.key(0)
    found = attack(loss="scaled_ce", start="none")(key, small, IMAGES, LABELS)
    # Seven additions of numbers below 2, each rounded to half an ulp.
    np.testing.assert_allclose(found, x.reshape(IMAGES.shape), atol=7 * 2**-24)
    assert jnp.abs(found - attack(start="none")(key, small, IMAGES, LABELS)).max() > EPS / 2


def test_the_column_of_ten_times_the_logits_is_a_hundred_steps_of_it():
    key, index = jax.random.key(0), jnp.arange(9)
    column = suite.create("scaled_pgd", eps=EPS, step_size=STEP_SIZE)
    expected = attack(loss="scaled_ce", num_steps=100)(key, network, IMAGES, LABELS, index=index)
    np.testing.assert_array_equal(column(key, network, IMAGES, LABELS, index), expected)


def test_ties_and_nan_are_not_correct():
    assert not is_correct(jnp.zeros(3), jnp.array(0))
    assert not is_correct(jnp.full(3, jnp.nan), jnp.array(0))
    assert not is_correct(jnp.array([jnp.nan, 0, 1]), jnp.array(2))
    assert is_correct(jnp.array([0.0, 2, 1]), jnp.array(1))


def test_mistakes_name_the_value_and_the_choices():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="loss is 'dlr'; choose one of ce, cw, scaled_ce, kl"):
        attack(loss="dlr")(key, network, IMAGES, LABELS)
    with pytest.raises(ValueError, match="start is 'gauss'; choose one of uniform, normal, none"):
        attack(start="gauss")(key, network, IMAGES, LABELS)
    with pytest.raises(ValueError, match="norm is 'L2'; choose one of linf, l2, l1"):
        attack(norm="L2")(key, network, IMAGES, LABELS)
    with pytest.raises(ValueError, match="num_steps is -1"):
        attack(num_steps=-1)(key, network, IMAGES, LABELS)
    with pytest.raises(AssertionError, match="rank"):
        attack()(key, network, IMAGES[0], LABELS)


def test_every_column_of_a_table_is_an_attack():
    for name in suite.ATTACKS.keys() - {"apgd_t", "aa", "corruptions"}:
        adversarial = suite.create(name, eps=EPS, step_size=STEP_SIZE)(
            jax.random.key(0), network, IMAGES, LABELS, jnp.arange(9)
        )
        assert jnp.abs(adversarial - IMAGES).max() <= EPS + 2**-23
        assert (name == "clean") == bool((adversarial == IMAGES).all())
    for name in ("pgd", "apgd_t", "aa", "corruptions"):
        with pytest.raises(ValueError, match=f"attack is '{name}'; choose of clean, fgsm"):
            suite.create(name, eps=EPS, step_size=STEP_SIZE)
