"""The paper's numbers, as data; they stand beside measured ones and are never mixed with them."""

import functools
import importlib.resources
import json

# What the paper's training and evaluation settings are, for each network.
_SETTINGS = {
    "dataset.train_size": None,
    "dataset.downscale": 1,
    "model.depth": None,
    "model.width": None,
    "attack.eps": 8 / 255,
    "attack.step_size": 2 / 255,
    "attack.num_steps": 10,
    "optim.num_epochs": 120,
    "optim.batch_size": 128,
    "optim.momentum": 0.9,
    "optim.milestones": [75, 90, 100],
    "optim.decay": 0.1,
    "method.warmup_epochs": 75,
    "evaluation.eps": 8 / 255,
}
# What it does not state and a number depends on, as the configs for its tables have it.
_UNSTATED = {
    "dataset.pad": 4,
    "dataset.flip": True,
    "model.dtype": "float32",
    "attack.start": "uniform",
    "evaluation.step_size": 2 / 255,
}
_TEST_SIZE = 10_000  # images of CIFAR-10's and CIFAR-100's test sets
_OF_MODEL = {
    "resnet18": {"optim.learning_rate": 0.01, "optim.weight_decay": 3.5e-3},
    "wrn34_10": {"optim.learning_rate": 0.1, "optim.weight_decay": 5e-4},
}

# The constants of the methods, in every published row.
CONSTANTS = {
    "beta": 0.5,
    "gamma": 10.0,
    "alpha": 2.0,
    "multiplier": 3.0,
    "lam": -1.0,
    "grad_through_weights": False,
    "similarity": True,
}


@functools.cache
def load():
    """Content of published.json: blocks of Tables 1-8, accuracies as [mean, standard deviation] in percent."""
    return json.loads(importlib.resources.files("jaxrw.report").joinpath("published.json").read_text())


def tau(dataset, model):
    """The tau that the paper uses for a network and a data set."""
    return 3.0 if (dataset, model) == ("cifar100", "resnet18") else 2.0


def blocks(dataset, model):
    """Blocks of the paper's tables of one data set and network, in the paper's order."""
    return [block for block in load()["blocks"] if (block["dataset"], block["model"]) == (dataset, model)]


def differences(config, num_examples):
    """Fields of a flat config that differ from the paper's: name -> (value here, value there, whether it states it).

    `num_examples` is the number of test images that were evaluated, whatever the config says of it.
    """
    stated = _SETTINGS | _OF_MODEL.get(config["model.name"], {})
    found = {
        field: (config[field], value, field in stated)
        for field, value in (stated | _UNSTATED).items()
        if field in config and not _same(config[field], value)
    }
    if num_examples != _TEST_SIZE:
        found["dataset.test_size"] = (num_examples, _TEST_SIZE, True)
    return found


def _same(value, other):
    """Equality to rounding."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (value, other))
    return abs(value - other) < 1e-9 if numbers else value == other
