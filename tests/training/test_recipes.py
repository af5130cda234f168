"""Five steps of whole recipes against PyTorch: two forward passes, BatchNorm, weights, SGD, AWP and EMA."""

import numpy as np
import pytest
from helpers import recipes

from jaxrw import train
from jaxrw.training import accuracy, step
from jaxrw.training.batches import epoch_order

try:
    import torch
except ImportError:
    torch = None


def ours(name):
    """Arrays after five steps, by name."""
    config, experiment = recipes.create(name)
    train_step = train.create_step(config, experiment)
    state = step.replicate(experiment.create_state())
    images, labels = accuracy.replicated(experiment.dataset.train)
    for index in epoch_order(experiment.order_key, 0, recipes.SIZE).reshape(recipes.STEPS, -1):
        state, _ = train_step(state, step.replicate(experiment.step_key), images, labels, step.shard(index))
    average = {f"average_{key}": value for key, value in recipes.flat(state.average).items()}
    del average["average_mean"], average["average_var"]  # the model's own
    return {key: np.asarray(value) for key, value in (recipes.flat(state.variables) | average).items()}


def check(found, expected):
    """Compares five steps in float32 with float64.

    Each step adds rounding of about 1e-6 to parameters of order 1, which the next ones may enlarge: 2e-5 is allowed. A
    weight that is not a constant, a term with the wrong weight or BatchNorm in another order is above 1e-4.
    """
    assert set(found) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=2e-5, rtol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_five_steps_are_pytorchs(name):
    with np.load(recipes.GOLDEN) as golden:
        expected = {key.split("/")[1]: golden[key] for key in golden if key.startswith(f"{name}/")}
    assert np.abs(expected["average_dense"] - expected["dense"]).max() > 1e-4
    check(ours(name), expected)


@pytest.mark.skipif(torch is None, reason='needs torch: pip install -e ".[torch]"')
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_the_golden_file_is_what_pytorch_computes(name):
    from helpers import torch_recipe

    with np.load(recipes.GOLDEN) as golden:
        for key, value in torch_recipe.five_steps(name).items():
            np.testing.assert_allclose(golden[f"{name}/{key}"], value, atol=1e-6, err_msg=key)
