"""What makes robustness numbers wrong is told."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.autoattack import (
    assert_sound,
    evaluate_and_catch,
)
from helpers.linear import linear, right

from jaxrw.attacks.autoattack.state import WRONG


def test_masked_gradients_are_told_and_do_not_help(problem):
    logits_fn, images, labels, eps, robust = problem
    steep = jax.tree_util.Partial(linear, logits_fn.args[0] * 1e4)
    result = evaluate_and_catch(steep, images, labels, eps=eps)
    assert any("cross-entropy has no input gradient" in text for text in result.warnings)
    assert not any("logit margin" in text for text in result.warnings)
    np.testing.assert_array_equal(result.robust, robust)
    assert result.fooled["apgd-t"] > 0


def test_a_layer_without_gradient_is_told_and_square_helps(problem):
    logits_fn, images, labels, eps, _ = problem

    def rounded(images):
        return linear(logits_fn.args[0], jnp.round(images * 100) / 100)

    correct = right(rounded, images, labels)
    result = evaluate_and_catch(rounded, images, labels, eps=2 * eps, attacks=("apgd-ce", "square"))
    assert any(
        f"logit margin has no input gradient at all for {correct.sum()}" in text for text in result.warnings
    )
    assert any(f"square fooled {result.fooled['square']} examples" in text for text in result.warnings)
    assert result.fooled["square"] > 5
    assert_sound(result, rounded, images, labels, eps=2 * eps)


def test_probabilities_are_told(problem):
    logits_fn, images, labels, eps, _ = problem
    result = evaluate_and_catch(
        lambda images: jax.nn.softmax(logits_fn(images)), images, labels, eps=eps, attacks=("apgd-ce",)
    )
    assert [text for text in result.warnings if "look like probabilities" in text]


@pytest.mark.parametrize("frozen_by_compiling", [True, False])
def test_random_outputs_are_told(problem, frozen_by_compiling):
    logits_fn, images, labels, eps, _ = problem
    rng = np.random.default_rng(0)

    def draw(shape):
        return rng.normal(size=shape).astype(np.float32)

    @jax.custom_jvp
    def drawn_anew(logits):
        shape = jax.ShapeDtypeStruct(logits.shape, jnp.float32)
        return jax.pure_callback(lambda _: draw(shape.shape), shape, logits)

    drawn_anew.defjvp(lambda primals, tangents: (drawn_anew(*primals), jnp.zeros_like(tangents[0])))

    def noisy(images):
        logits = logits_fn(images)
        if frozen_by_compiling:
            return logits + draw(logits.shape)
        return logits + drawn_anew(logits)

    settings = {"attacks": ("square",), "num_queries": 5}
    result = evaluate_and_catch(noisy, images, labels, eps=eps, **settings)
    assert any("outputs are random" in text for text in result.warnings)


def test_images_that_do_not_fool_again_do_not_count(problem):
    logits_fn, images, labels, eps, _ = problem
    calls = collections.Counter()

    def forgiving(images):
        """Wrong on everything that differs from the data, but only in the compiled program of an attack."""
        traced = isinstance(images, jax.core.Tracer)
        calls["traced"] += traced
        logits = logits_fn(images)
        return -logits if calls["traced"] > 4 else logits

    result = evaluate_and_catch(forgiving, images, labels, eps=eps / 100, attacks=("apgd-ce",))
    assert result.fooled == {"apgd-ce": 0}
    assert any(
        "58 examples had adversarial images that left the ball, or that the model, asked again, predicted right"
        in t
        for t in result.warnings
    )


@pytest.mark.parametrize("depends_on", ["others", "place"])
def test_outputs_that_depend_on_the_batch_are_told(problem, depends_on):
    logits_fn, images, labels, eps, _ = problem

    def entangled(images):
        logits = logits_fn(images)
        if depends_on == "others":
            return logits - logits.mean(0)
        return logits + jnp.linspace(0, 1, len(images))[:, None] * jnp.arange(5)

    result = evaluate_and_catch(entangled, images, labels, eps=eps, attacks=("fab-t",))
    assert any("depend on the other examples" in text for text in result.warnings)


def test_nan_is_not_robust_and_told(problem):
    logits_fn, images, labels, eps, _ = problem

    def broken(images):
        """NaN for the last class where the first pixel is dark, as two or more images are, and more can be made."""
        logits = logits_fn(jnp.asarray(images))
        return logits.at[:, -1].add(jnp.where(images[:, 0, 0, 0] < 0.35, jnp.nan, 0))

    result = evaluate_and_catch(broken, images, labels, eps=eps, attacks=("apgd-ce",))
    dark = images[:, 0, 0, 0] < 0.35
    assert any(f"the logits of {dark.sum()} images are NaN" in text for text in result.warnings)
    assert (result.fooled_by[dark] == WRONG).all()
    broken_by_attack = np.isnan(broken(result.adversarial)).any(1) & ~dark
    assert any(
        f"the logits of {broken_by_attack.sum()} adversarial images" in text for text in result.warnings
    )
    assert not result.robust[broken_by_attack].any()


def test_a_radius_of_another_norm_is_told(l2_problem):
    logits_fn, images, labels, _, _ = l2_problem
    result = evaluate_and_catch(logits_fn, images, labels, eps=8 / 255, norm="l2", attacks=("apgd-ce",))
    assert result.warnings[0].startswith("eps is 0.03137 for norm 'l2'")
