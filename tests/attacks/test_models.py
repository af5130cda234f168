"""Models as users have them: arrays that change, constants, gradients that are NaN; and images that are bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from jaxrw import attacks

KEY = jax.random.key(0)
IMAGES = np.random.RandomState(0).rand(8, 6, 5, 3).astype(np.float32)
KERNEL = jnp.asarray(np.random.RandomState(1).randn(90, 4), jnp.float32)
SHORT = {"eps": 0.01, "batch_size": 8, "num_steps": 2, "num_queries": 2, "progress": False}
PGD = {"eps": 0.1, "step_size": 0.05, "num_steps": 2, "start": "none"}


class Nnx(nnx.Module):
    """Flax's newer kind of model, whose parameters are changed in place."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.norm, self.dense = nnx.BatchNorm(3, rngs=rngs), nnx.Linear(3, 4, rngs=rngs)
        self.eval()

    def __call__(self, x):
        return self.dense(self.norm(x).mean((1, 2)))


class Trainer:
    """Whoever trains keeps the parameters in an attribute and replaces them."""

    def __init__(self):
        self.kernel = KERNEL

    def predict(self, x):
        return x.reshape(len(x), -1) @ self.kernel


def test_an_nnx_model_is_attacked_with_the_parameters_that_it_has_now():
    """With the signs of all parameters changed, what was right is wrong, and steps go the other way."""
    model = Nnx()
    labels = np.asarray(model(IMAGES).argmax(1))
    before = attacks.pgd(KEY, model, IMAGES, labels, **PGD)
    assert attacks.autoattack(KEY, model, IMAGES, labels, **SHORT).clean_accuracy == 100
    for parameter in (model.dense.kernel, model.dense.bias):
        parameter[...] = -parameter[...]
    after = attacks.pgd(KEY, model, IMAGES, labels, **PGD)
    # Two steps of 0.05 in opposite directions, where the image is not cut off at 0 or 1.
    assert np.abs(before - after).max() == pytest.approx(0.2, abs=1e-6)
    expected = 100 * np.mean(np.asarray(model(IMAGES).argmax(1)) == labels)
    assert attacks.autoattack(KEY, model, IMAGES, labels, **SHORT).clean_accuracy == expected < 100


def test_a_method_whose_arrays_were_replaced_is_refused():
    """Its program has the old ones. A new function of the new ones is attacked as it is."""
    trainer = Trainer()
    labels = np.asarray(trainer.predict(IMAGES).argmax(1))
    assert attacks.autoattack(KEY, trainer.predict, IMAGES, labels, **SHORT).clean_accuracy == 100
    trainer.kernel = -KERNEL
    with pytest.raises(
        ValueError, match=r"other parameters than when it was compiled.* give jax.tree_util.Partial"
    ):
        attacks.autoattack(KEY, trainer.predict, IMAGES, labels, **SHORT)
    assert attacks.autoattack(KEY, lambda x: trainer.predict(x), IMAGES, labels, **SHORT).clean_accuracy == 0


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x, train):
        x = linen.BatchNorm(use_running_average=not train)(linen.Conv(4, (3, 3))(x))
        return linen.Dense(4)(x.mean((1, 2)))


def test_constants_in_a_partial_stay_constants():
    model = Linen()
    variables = model.init(KEY, IMAGES, train=False)
    labels = np.asarray(model.apply(variables, IMAGES, train=False).argmax(1))
    partial = jax.tree_util.Partial(model.apply, variables, train=False)
    plain = jax.tree_util.Partial(lambda v, x: model.apply(v, x, train=False), variables)
    found, expected = (attacks.pgd(KEY, some, IMAGES, labels, **PGD) for some in (partial, plain))
    np.testing.assert_array_equal(found, expected)
    assert attacks.autoattack(KEY, partial, IMAGES, labels, **SHORT).clean_accuracy == 100


def test_functions_among_the_arrays_of_a_model_stay_what_they_are():
    """As in a model of Equinox, whose leaves are arrays, numbers and activation functions."""
    layers = {"activation": jax.nn.relu, "kernel": KERNEL, "scale": 2.0}

    def network(layers, x):
        return layers["scale"] * layers["activation"](x.reshape(len(x), -1) @ layers["kernel"])

    traces = []

    def counted(layers, x):
        traces.append(x.shape)
        return network(layers, x)

    labels = np.asarray(network(layers, IMAGES).argmax(1))
    partial = jax.tree_util.Partial(counted, layers)
    adversarial = attacks.pgd(KEY, partial, IMAGES, labels, **PGD)
    expected = attacks.pgd(KEY, lambda x: network(layers, x), IMAGES, labels, **PGD)
    np.testing.assert_allclose(adversarial, expected, atol=1e-6)
    number = len(traces)
    attacks.pgd(KEY, jax.tree_util.Partial(counted, layers | {"kernel": -KERNEL}), IMAGES, labels, **PGD)
    assert len(traces) == number > 0


def standardized(x):
    """Each image minus its mean, by its deviation: 0 / 0 for an image of one color, whose gradient is NaN."""
    moments = {"axis": (1, 2, 3), "keepdims": True}
    x = jnp.nan_to_num((x - x.mean(**moments)) / x.std(**moments))
    return x.reshape(len(x), -1) @ KERNEL


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_gradient_that_is_nan_moves_nothing(norm):
    black, labels = np.zeros((2, 6, 5, 3), np.float32), np.zeros(2, int)
    assert np.isnan(jax.grad(lambda x: standardized(x).sum())(black)).any()
    for adversarial in (
        attacks.fgsm(standardized, black, labels, eps=0.1, norm=norm),
        attacks.pgd(KEY, standardized, black, labels, **PGD, norm=norm),
        attacks.apgd(KEY, standardized, black, labels, eps=0.1, num_steps=2, norm=norm),
    ):
        assert np.isfinite(adversarial).all()


SINGLE = {
    "fgsm": attacks.fgsm,
    "pgd": lambda *arguments, eps: attacks.pgd(KEY, *arguments, eps=eps, step_size=eps / 4, num_steps=2),
    "apgd": lambda *arguments, eps: attacks.apgd(KEY, *arguments, eps=eps, num_steps=2),
    "fab": lambda *arguments, eps: attacks.fab(KEY, *arguments, eps=eps, num_steps=2),
    "square": lambda *arguments, eps: attacks.square(KEY, *arguments, eps=eps, num_queries=2),
}


@pytest.mark.parametrize("name", SINGLE)
def test_bytes_and_labels_that_are_none_are_refused(name):
    attack, labels = SINGLE[name], np.arange(8) % 4
    for images, eps, words in (
        ((255 * IMAGES).astype(np.uint8), 0.1, "images are uint8; must be float"),
        (255 * IMAGES, 0.1, r"images range from .* to 25\d.*; must lie in \[0, 1\]"),
        (IMAGES, 8, "eps is 8; .* 8 / 255, not 8"),
        (IMAGES, -0.1, "eps is -0.1"),
    ):
        with pytest.raises(ValueError, match=words):
            attack(standardized, images, labels, eps=eps)
    with pytest.raises(ValueError, match=r"labels begin with -1"):
        attack(standardized, IMAGES, labels - 1, eps=0.1)


@pytest.mark.parametrize("name", SINGLE)
def test_images_of_half_precision_stay_in_the_ball(name):
    """bfloat16 has steps of 1/256 between 1/2 and 1, which are no small part of a radius."""
    half = jnp.asarray(IMAGES, jnp.bfloat16)
    adversarial = SINGLE[name](standardized, half, np.arange(8) % 4, eps=0.01)
    assert adversarial.dtype == jnp.float32
    assert jnp.abs(adversarial - half.astype(jnp.float32)).max() <= 0.01 + 2**-23
