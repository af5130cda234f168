"""Program of test_step.py: a few training steps of every method on all devices; the parameters go to a file.

With $JAXRW_EVERYTHING it takes those of every objective, method and AWP.
"""

import dataclasses
import os
import sys

import chex
import flax.linen as nn
import jax
import numpy as np

from helpers import tiny
from jaxrw import methods, settings, train
from jaxrw.data import ExtraImages
from jaxrw.networks.convolution import for_flax
from jaxrw.training import accuracy, step
from jaxrw.training.batches import batches
from jaxrw.training.experiment import create_experiment


class OneConvolution(nn.Module):
    """The least network with BatchNorm, so that many steps compile in little time."""

    features: int = 8

    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(self.features, (3, 3), conv_general_dilated=for_flax, padding=1, use_bias=False)(images)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=step.AXIS)(x)
        return nn.Dense(10)(nn.relu(x).reshape(len(x), -1))


def random_images(number):
    """Gray images of 8x8 and labels, as one file of extra images has them."""
    random = np.random.RandomState(number)
    return random.randint(0, 256, (number, 8, 8, 1), np.uint8), random.randint(0, 10, number)


def parameters(method, **overrides):
    """Parameters and statistics after three steps with weights, in one flat array."""
    config = tiny.config(
        method, method__warmup_epochs=0, dataset__train_size=96, optim__batch_size=32, **overrides
    )
    config.optim.learning_rate = 0.02
    extra = None
    if "extra__share" in overrides:
        config.extra.path = "no file"
        extra = ExtraImages([random_images(7), random_images(4)], downscale=1, fingerprint="")
    experiment = dataclasses.replace(create_experiment(config), model=OneConvolution())
    train_step = train.create_step(config, experiment)
    state = step.replicate(experiment.create_state())
    images, labels = accuracy.replicated(experiment.dataset.train)
    key = step.replicate(experiment.step_key)
    for batch in batches(
        experiment.order_key,
        0,
        size=len(labels),
        batch_size=32,
        steps_per_epoch=3,
        extra=extra,
        num_extra=settings.num_extra(config),
    ):
        state, sums = train_step(state, key, images, labels, *batch)
    assert float(sums["examples"]) == 32
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves((state.variables, state.average))])


def variants(everything):
    """Methods and overrides by name: the paper's, and recipes; `everything`: all methods, and every combination."""
    chosen = {
        name: (name, {}) for name, method in methods.METHODS.items() if everything or not method.beyond_paper
    }
    chosen["ewat_through"] = ("ewat", {"method__grad_through_weights": True})
    recipes = {
        "trades": {"objective__name": "trades"},
        "mart": {"objective__name": "mart"},
        "awp": {"awp__gamma": 0.01},
        "trades-awp": {"objective__name": "trades", "awp__gamma": 0.01},
        "mart-awp": {"objective__name": "mart", "awp__gamma": 0.01},
    }
    few = {"mart": "ewat", "trades-awp": "gairat"}
    for name, fields in recipes.items():
        for method in methods.METHODS:
            if everything or few.get(name) == method:
                chosen[f"{method}-{name}"] = (method, fields)
    averaged = {"average__name": "ema", "optim__nesterov": True, "optim__clip_norm": 0.5}
    chosen["mail-extra-ema"] = ("mail", averaged | {"extra__share": 0.25})
    return chosen


if __name__ == "__main__":
    chosen = variants("JAXRW_EVERYTHING" in os.environ)
    # Each program is traced once: a second trace of any of them is one too many.
    step.train_step = chex.assert_max_traces(step.train_step, n=len(chosen))
    runs = {name: parameters(method, **overrides) for name, (method, overrides) in chosen.items()}
    np.savez(sys.argv[1], devices=jax.local_device_count(), **runs)
