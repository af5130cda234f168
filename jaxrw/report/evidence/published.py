"""The paper's accuracies and settings. Reports show them beside measured ones and never mix the two."""

import functools
import importlib.resources
import json
import math
from typing import Any

# A part of a table for one data set, network and checkpoint, as published.json holds it.
Block = dict[str, Any]

# The paper's settings of training and evaluation.
_SETTINGS: dict[str, Any] = {
    "dataset.train_size": None,
    "dataset.downscale": 1,
    "model.depth": None,
    "model.width": None,
    "attack.norm": "linf",
    "attack.eps": 8 / 255,
    "attack.step_size": 2 / 255,
    "attack.num_steps": 10,
    "optim.num_epochs": 120,
    "optim.batch_size": 128,
    "optim.momentum": 0.9,
    "optim.milestones": [75, 90, 100],
    "optim.decay": 0.1,
    "method.warmup_epochs": 75,
    "evaluation.norm": "linf",
    "evaluation.eps": 8 / 255,
}
# Settings on which accuracies depend and which the paper does not state, as in the configs of its tables.
_UNSTATED: dict[str, Any] = {
    "dataset.pad": 4,
    "dataset.flip": True,
    "dataset.test_split": "test",
    "extra.path": None,
    "model.dtype": "float32",
    "model.mean": None,
    "model.std": None,
    "model.activation": None,
    "model.shortcut": None,
    "model.last_norm": None,
    "attack.start": "uniform",
    "optim.schedule": "milestones",
    "optim.rise_epochs": 0.0,
    "optim.nesterov": False,
    "optim.decay_all": True,
    "optim.clip_norm": None,
    "evaluation.step_size": 2 / 255,
    "evaluation.version": "standard",
    "evaluation.surrogate": "none",
}
_TEST_SIZE = 10_000  # images of CIFAR-10's and CIFAR-100's test sets
_OF_MODEL: dict[str, dict[str, Any]] = {
    "resnet18": {"optim.learning_rate": 0.01, "optim.weight_decay": 3.5e-3},
    "wrn34_10": {"optim.learning_rate": 0.1, "optim.weight_decay": 5e-4},
}

# The paper's constants of the methods, but for tau.
CONSTANTS: dict[str, Any] = {
    "beta": 0.5,
    "gamma": 10.0,
    "alpha": 2.0,
    "multiplier": 3.0,
    "lam": -1.0,
    "grad_through_weights": False,
    "similarity": True,
}


@functools.cache
def load() -> dict[str, Any]:
    """Returns published.json: blocks of Tables 1-8, accuracies as [mean, standard deviation] in percent."""
    return json.loads(
        importlib.resources.files("jaxrw.report.evidence").joinpath("published.json").read_text()
    )


def blocks(dataset: str, model: str) -> list[Block]:
    """Returns the blocks of the paper's tables for a data set and network, in the paper's order."""
    return [block for block in load()["blocks"] if (block["dataset"], block["model"]) == (dataset, model)]


def constants(dataset: str, model: str) -> dict[str, Any]:
    """Returns the paper's constants of the methods for a data set and network."""
    return CONSTANTS | {"tau": 3.0 if (dataset, model) == ("cifar100", "resnet18") else 2.0}


def differences(config: dict[str, Any], num_examples: int) -> dict[str, tuple[Any, Any, bool]]:
    """Returns the fields that differ from the paper's: name -> (value, the paper's, whether the paper states it).

    Args:
      config: flat.
      num_examples: number of test images that were evaluated, which the config may not say.
    """
    stated = _SETTINGS | _OF_MODEL.get(config["model.name"], {})
    fields = {
        field: (config[field], value, field in stated)
        for field, value in (stated | _UNSTATED).items()
        if field in config and not _equal(config[field], value)
    }
    if num_examples != _TEST_SIZE:
        fields["dataset.test_size"] = (num_examples, _TEST_SIZE, True)
    return fields


def _equal(value: Any, other: Any) -> bool:
    """Compares numbers up to rounding."""
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in (value, other)):
        return value == other
    return math.isclose(value, other, rel_tol=0, abs_tol=1e-9)
