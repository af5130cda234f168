"""Program of test_step.py: a few training steps of every method on all devices; the parameters go to a file."""

import dataclasses
import sys

import chex
import flax.linen as nn
import jax
import numpy as np

from helpers import tiny
from jaxrw import methods, train
from jaxrw.networks.convolution import for_flax
from jaxrw.training import accuracy, step
from jaxrw.training.experiment import create_experiment, epoch_order


class OneConvolution(nn.Module):
    """The least network with BatchNorm, so that many steps compile in little time."""

    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(8, (3, 3), conv_general_dilated=for_flax, padding=1, use_bias=False)(images)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=step.AXIS)(x)
        return nn.Dense(10)(nn.relu(x).reshape(len(x), -1))


def parameters(method, **overrides):
    """Parameters and statistics after three steps with weights, in one flat array."""
    config = tiny.config(
        method, method__warmup_epochs=0, dataset__train_size=96, optim__batch_size=32, **overrides
    )
    config.optim.learning_rate = 0.02
    experiment = dataclasses.replace(create_experiment(config), model=OneConvolution())
    train_step = train.create_step(config, experiment)
    state = step.replicate(experiment.create_state())
    images, labels = accuracy.replicated(experiment.dataset.train)
    order = epoch_order(experiment.order_key, 0, len(labels))
    for batch in np.split(order, 3):
        state, sums = train_step(
            state, step.replicate(experiment.step_key), images, labels, step.shard(batch)
        )
    assert float(sums["examples"]) == 32
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.variables)])


if __name__ == "__main__":
    # Each program is traced once: a second trace of any of them is one too many.
    step.train_step = chex.assert_max_traces(step.train_step, n=len(methods.METHODS) + 1)
    runs = {method: parameters(method) for method in methods.METHODS}
    runs["ewat_through"] = parameters("ewat", method__grad_through_weights=True)
    np.savez(sys.argv[1], devices=jax.local_device_count(), **runs)
