"""Averages of parameters against plain NumPy, and BatchNorm's statistics against the mean over batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrw import networks
from jaxrw.training import averages

STEPS = np.random.RandomState(0).normal(size=(12, 3)).astype(np.float32)


def variables(number):
    return {"params": {"w": jnp.array(STEPS[number])}, "batch_stats": {"mean": jnp.float32(number)}}


def follow(average, number):
    state = variables(0)
    for step in range(number):
        state = average(state, variables(step), jnp.int32(step))
    return state


def test_ema_is_its_recurrence():
    """Begins with step 4 (epoch 2 of 2 steps): d = min(0.5, (1 + t) / (10 + t)), t from 0."""
    average = averages.create("ema", decay=0.5, start_epoch=2, steps_per_epoch=2)
    np.testing.assert_array_equal(follow(average, 4)["params"]["w"], STEPS[3])
    expected = STEPS[3].astype(np.float64)
    for t, params in enumerate(STEPS[4:]):
        d = min(0.5, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * params
    state = follow(average, 12)
    np.testing.assert_allclose(state["params"]["w"], expected, rtol=1e-5, atol=1e-6)
    assert state["batch_stats"]["mean"] == 11  # the model's own


@pytest.mark.parametrize(("steps", "ends"), [(3, [2]), (6, [5]), (8, [5]), (9, [5, 8]), (12, [5, 8, 11])])
def test_swa_is_the_mean_of_the_ends_of_epochs(steps, ends):
    """Epochs of 3 steps, averaged from epoch 1 on: before the first end it is the parameters themselves."""
    average = averages.create("swa", decay=0.0, start_epoch=1, steps_per_epoch=3)
    state = follow(average, steps)
    np.testing.assert_allclose(
        state["params"]["w"], STEPS[ends].astype(np.float64).mean(0), rtol=1e-5, atol=1e-6
    )
    # The statistics of a mean of one are the model's; later ones are computed anew, not in the step.
    assert state["batch_stats"]["mean"] == min(steps - 1, 5)


def test_an_average_that_is_none_is_named():
    with pytest.raises(ValueError, match="name is 'EMA'; choose one of none, ema, swa"):
        averages.create("EMA", decay=0.9, start_epoch=0, steps_per_epoch=1)


def test_none_is_no_average():
    assert averages.create("none", decay=0.5, start_epoch=0, steps_per_epoch=1) is None


def test_statistics_are_the_mean_over_batches():
    """The first BatchNorm of a ResNet sees the stem's output, whose moments NumPy computes batch by batch."""
    model = networks.create("resnet18", 3, depth=10, width=2)
    images = jax.random.uniform(jax.random.key(0), (3, 4, 8, 8, 1))
    variables = jax.jit(lambda key: model.init(key, images[0], train=False))(jax.random.key(1))
    statistics = jax.tree.map(lambda leaf: leaf + 7, variables["batch_stats"])
    for number, batch in enumerate(images):
        statistics = averages.add_statistics(
            statistics, variables["params"], batch, jnp.int32(number), model=model
        )
    kernel = np.asarray(variables["params"]["conv_stem"]["kernel"], np.float64)
    padded = np.pad(np.asarray(images, np.float64), ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    outputs = sum(padded[:, :, i : i + 8, j : j + 8] @ kernel[i, j] for i in range(3) for j in range(3))
    expected = {"mean": outputs.mean((1, 2, 3)).mean(0), "var": outputs.var((1, 2, 3)).mean(0)}
    for name, values in expected.items():
        np.testing.assert_allclose(statistics["norm_stem"][name], values, rtol=1e-4, atol=1e-6)
