"""The fields of a config: the names they choose from, their ranges, and those without either."""

import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from jaxrw import methods, networks
from jaxrw.attacks import norms, suite
from jaxrw.attacks.pgd import STARTS
from jaxrw.data import TEST_SPLITS

SCHEDULES = ("milestones", "cosine", "one_cycle")
AVERAGES = ("none", "ema", "swa")

# Fields that hold a name, and the names they choose from.
CHOICES: dict[str, Collection[str]] = {
    "dataset.test_split": TEST_SPLITS,
    "model.name": networks.ARCHITECTURES,
    "model.dtype": networks.DTYPES,
    "method.name": methods.METHODS,
    "attack.start": STARTS,
    "objective.name": methods.OBJECTIVES,
    "average.name": AVERAGES,
    "optim.schedule": SCHEDULES,
    "attack.norm": norms.NORMS,
    "evaluation.norm": norms.NORMS,
    "evaluation.version": suite.VERSIONS,
    "evaluation.surrogate": suite.SURROGATES,
}


class Range(NamedTuple):
    """The values that a field may have; a float must be finite too."""

    contains: Callable[[Any], bool]
    requirement: str


def _at_least(minimum: int, note: str = "") -> Range:
    return Range(lambda value: value >= minimum, f"must be at least {minimum}{note}")


def _distance(example: str) -> Range:
    return Range(lambda value: 0 <= value < 1, f"must be in [0, 1), in pixel units of [0, 1]: {example}")


# Radii and step sizes in the L-infinity norm, whose box has side 1; others may be longer.
_EPS = _distance("8/255 is 0.03137")
_STEP_SIZE = _distance("2/255 is 0.00784")
LENGTH = Range(lambda value: value >= 0, "must be at least 0, in pixel units of [0, 1]: 0.5 is usual for l2")
_FINITE = Range(lambda value: True, "must be a finite number")
_POSITIVE = Range(lambda value: value > 0, "must be positive")

RANGES = {
    "seed": Range(lambda value: 0 <= value < 2**32, "must be in 0..2^32 - 1"),
    "dataset.validation_share": Range(
        lambda value: value is None or 0 < value < 1,
        "must be in (0, 1), or None for dataset.validation_size images",
    ),
    "dataset.downscale": _at_least(1, " (1: images as they are)"),
    "dataset.pad": _at_least(0, " pixels"),
    "method.warmup_epochs": _at_least(0),
    "method.tau": _at_least(2, " (Eq. 10)"),
    "method.beta": _FINITE,
    "method.alpha": _FINITE,
    "method.lam": _FINITE,
    "method.gamma": _POSITIVE,
    "method.multiplier": _POSITIVE,
    "method.constant": _POSITIVE,
    "method.temperature": _POSITIVE,
    "objective.lam": _at_least(0),
    "objective.smoothing": Range(lambda value: 0 <= value < 1, "must be in [0, 1)"),
    "awp.gamma": Range(
        lambda value: value is None or value > 0, "must be positive, as 0.01, or None to train without AWP"
    ),
    "awp.start_epoch": _at_least(0),
    "average.decay": Range(lambda value: 0 <= value < 1, "must be in [0, 1)"),
    "average.start_epoch": _at_least(0),
    "extra.share": Range(
        lambda value: 0 < value < 1, "must be in (0, 1): a share of every batch, the rest are training images"
    ),
    "attack.eps": _EPS,
    "attack.step_size": _STEP_SIZE,
    "attack.num_steps": _at_least(0, " (0 trains on clean images)"),
    "optim.num_epochs": Range(lambda value: 1 <= value <= 1_000_000, "must be at least 1, at most 1,000,000"),
    "optim.batch_size": _at_least(1),
    "optim.learning_rate": _POSITIVE,
    "optim.rise_epochs": _at_least(0),
    "optim.peak": Range(lambda value: 0 < value < 1, "must be in (0, 1): a share of all steps"),
    "optim.clip_norm": Range(
        lambda value: value is None or value > 0, "must be positive, or None for no clipping"
    ),
    "optim.momentum": Range(lambda value: 0 <= value < 1, "must be in [0, 1)"),
    "optim.weight_decay": _at_least(0),
    "optim.decay": Range(lambda value: 0 < value <= 1, "must be in (0, 1]"),
    "optim.milestones": Range(
        lambda epochs: all(isinstance(e, int) and e > 0 for e in epochs) and len({*epochs}) == len(epochs),
        "must be different epochs, each at least 1, as in (75, 90, 100)",
    ),
    "evaluation.eps": _EPS,
    "evaluation.step_size": _STEP_SIZE,
    "evaluation.batch_size": _at_least(1),
    "evaluation.selection_steps": _at_least(1),
    "evaluation.figure_examples": _at_least(0, " (0: no figures)"),
    "evaluation.figure_eps": Range(
        lambda radii: all(isinstance(r, int | float) and math.isfinite(r) and r >= 0 for r in radii),
        "must be multiples of evaluation.eps, 0 or more, as in (0, 0.5, 1, 2)",
    ),
    "checkpoint.every_epochs": _at_least(1),
    "checkpoint.every_steps": Range(
        lambda value: value is None or value >= 1, "must be at least 1, or None for epochs only"
    ),
}

# Fields that have neither a range nor choices.
FREE = (
    "checkpoint.keep_warmup",
    "dataset.data_dir",
    "dataset.flip",
    "dataset.name",
    "dataset.test_size",
    "dataset.train_size",
    "dataset.validation_size",
    "evaluation.attacks",
    "evaluation.corruptions_dir",
    "evaluation.save_adversarial",
    "extra.path",
    "method.grad_through_weights",
    "method.normalize",
    "method.similarity",
    "model.activation",
    "model.depth",
    "model.last_norm",
    "model.mean",
    "model.shortcut",
    "model.std",
    "model.width",
    "objective.clean_statistics",
    "optim.decay_all",
    "optim.nesterov",
    "writers",
)
