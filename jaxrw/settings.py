"""The values that each field of a config may have, and configs as flat dicts."""

import difflib
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxrw import methods, networks
from jaxrw.attacks import norms, suite
from jaxrw.attacks.pgd import STARTS
from jaxrw.data import Dataset
from jaxrw.system.errors import UserError

# Prefixes of fields that do not change a number of a run.
WITHOUT_EFFECT = (
    "dataset.data_dir",
    "evaluation.attacks",
    "evaluation.batch_size",
    "evaluation.figure_",
    "evaluation.save_adversarial",
    "checkpoint.",
)

# Fields that hold a name, and the names they choose from.
CHOICES: dict[str, Collection[str]] = {
    "model.name": networks.ARCHITECTURES,
    "model.dtype": networks.DTYPES,
    "method.name": methods.METHODS,
    "attack.start": STARTS,
    "attack.norm": norms.NORMS,
    "evaluation.norm": norms.NORMS,
    "evaluation.version": suite.VERSIONS,
}

# Fields that configs of earlier versions lack, and their values there.
ADDED = {"attack.norm": "linf", "evaluation.norm": "linf", "evaluation.version": "standard"}


class _Range(NamedTuple):
    """The values that a field may have; a float must be finite too."""

    contains: Callable[[Any], bool]
    requirement: str


def _at_least(minimum: int, note: str = "") -> _Range:
    return _Range(lambda value: value >= minimum, f"must be at least {minimum}{note}")


def _distance(example: str) -> _Range:
    return _Range(lambda value: 0 <= value < 1, f"must be in [0, 1), in pixel units of [0, 1]: {example}")


# Radii and step sizes in the L-infinity norm, whose box has side 1; others may be longer.
_EPS = _distance("8/255 is 0.03137")
_STEP_SIZE = _distance("2/255 is 0.00784")
_LENGTH = _Range(
    lambda value: value >= 0, "must be at least 0, in pixel units of [0, 1]: 0.5 is usual for l2"
)
_FINITE = _Range(lambda value: True, "must be a finite number")
_POSITIVE = _Range(lambda value: value > 0, "must be positive")

_RANGES = {
    "seed": _Range(lambda value: 0 <= value < 2**32, "must be in 0..2^32 - 1"),
    "dataset.downscale": _at_least(1, " (1: images as they are)"),
    "dataset.pad": _at_least(0, " pixels"),
    "method.warmup_epochs": _at_least(0),
    "method.tau": _at_least(2, " (Eq. 10)"),
    "method.beta": _FINITE,
    "method.alpha": _FINITE,
    "method.lam": _FINITE,
    "method.gamma": _POSITIVE,
    "method.multiplier": _POSITIVE,
    "attack.eps": _EPS,
    "attack.step_size": _STEP_SIZE,
    "attack.num_steps": _at_least(0, " (0 trains on clean images)"),
    "optim.num_epochs": _Range(
        lambda value: 1 <= value <= 1_000_000, "must be at least 1, at most 1,000,000"
    ),
    "optim.batch_size": _at_least(1),
    "optim.learning_rate": _POSITIVE,
    "optim.momentum": _Range(lambda value: 0 <= value < 1, "must be in [0, 1)"),
    "optim.weight_decay": _at_least(0),
    "optim.decay": _Range(lambda value: 0 < value <= 1, "must be in (0, 1]"),
    "optim.milestones": _Range(
        lambda epochs: all(isinstance(e, int) and e > 0 for e in epochs) and len({*epochs}) == len(epochs),
        "must be different epochs, each at least 1, as in (75, 90, 100)",
    ),
    "evaluation.eps": _EPS,
    "evaluation.step_size": _STEP_SIZE,
    "evaluation.batch_size": _at_least(1),
    "evaluation.selection_steps": _at_least(1),
    "evaluation.figure_examples": _at_least(0, " (0: no figures)"),
    "evaluation.figure_eps": _Range(
        lambda radii: all(isinstance(r, int | float) and math.isfinite(r) and r >= 0 for r in radii),
        "must be multiples of evaluation.eps, 0 or more, as in (0, 0.5, 1, 2)",
    ),
    "checkpoint.every_epochs": _at_least(1),
    "checkpoint.every_steps": _Range(
        lambda value: value is None or value >= 1, "must be at least 1, or None for epochs only"
    ),
}


def check(config: ConfigDict, *, num_devices: int) -> None:
    """Checks the fields of a config.

    Args:
      config: resolved.
      num_devices: number of devices that share the global batch.

    Raises:
      UserError: a field is missing, or no run could use its value; for the first such field.
    """
    fields = flatten(config.to_dict())
    for field in (*CHOICES, "evaluation.attacks", *_RANGES):
        if field not in fields:
            raise UserError(
                f"{field} is missing from the config; begin with configs/base.py, which has every field"
            )
    for field, choices in CHOICES.items():
        _check_choice(field, fields[field], choices)
    if not config.evaluation.attacks:
        raise UserError(f"evaluation.attacks is empty; choose of {', '.join(suite.ATTACKS)}")
    for name in config.evaluation.attacks:
        _check_choice("evaluation.attacks", name, suite.ATTACKS)
    for field, (contains, requirement) in _RANGES.items():
        value = fields[field]
        section = field.partition(".")[0]
        if field.endswith((".eps", ".step_size")) and fields[f"{section}.norm"] != "linf":
            contains, requirement = _LENGTH
        is_finite = not isinstance(value, float) or math.isfinite(value)
        if not (is_finite and contains(value)):
            raise UserError(f"{field} is {value}; {requirement}")
    if suite.AUTOATTACK in config.evaluation.attacks and config.evaluation.eps == 0:
        raise UserError("evaluation.eps is 0; AutoAttack needs a positive one, as 8/255, which is 0.03137")
    if methods.get(config.method.name).counts_steps and config.attack.num_steps == 0:
        raise UserError(
            f"attack.num_steps is 0; {config.method.name} counts attack steps, so it needs at least 1"
        )
    if config.optim.batch_size % num_devices:
        nearest = max(num_devices, config.optim.batch_size // num_devices * num_devices)
        raise UserError(
            f"optim.batch_size is {config.optim.batch_size}, which {num_devices} devices cannot share evenly; "
            f"it is the global batch: choose a multiple of {num_devices}, as {nearest}"
        )


def check_dataset(config: ConfigDict, dataset: Dataset) -> None:
    """Checks that the crop, the method and the batch of a config fit its data set.

    Raises:
      UserError: one of them does not.
    """
    height, width = dataset.train.images.shape[1:3]
    if config.dataset.pad >= min(height, width):
        raise UserError(
            f"dataset.pad is {config.dataset.pad}, but images are {height}x{width}; must be in "
            f"0..{min(height, width) - 1}, so that every crop shows some of its image"
        )
    if methods.METHODS[config.method.name].base is not None and dataset.num_classes < 3:
        raise UserError(
            f"dataset.name is {config.dataset.name!r} with {dataset.num_classes} classes; method.name "
            f"{config.method.name!r} needs at least 3: with 2 its ratio is always 1"
        )
    for section in "attack", "evaluation":
        norm, eps = norms.get(config[section].norm), config[section].eps
        if eps > norm.largest_eps(dataset.test.images.shape[1:]):
            raise UserError(
                f"{section}.eps is {eps}, but images of {height}x{width} are at most "
                f"{norm.largest_eps(dataset.test.images.shape[1:]):.4g} apart in norm {norm.name!r}"
            )
    size = len(dataset.train.labels)
    if size < config.optim.batch_size:
        raise UserError(
            f"optim.batch_size is {config.optim.batch_size}, but only {size} images are left to train on; "
            "choose a smaller batch or more images"
        )


def doubts(config: ConfigDict) -> Iterator[str]:
    """Yields a sentence for each radius that was probably meant for another norm."""
    for section in "attack", "evaluation":
        if doubt := norms.doubts(config[section].norm, config[section].eps):
            yield f"{section}.{doubt}"


def as_json(config: ConfigDict) -> dict[str, Any]:
    """Returns a config as the nested dicts and lists that config.json holds."""
    return json.loads(config.to_json())


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested dicts as one dict with dotted names, such as `optim.batch_size`."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def with_added(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a flat config of this or an earlier version with the fields that were added to its sections since."""
    sections = {name.partition(".")[0] for name in flat}
    return {name: value for name, value in ADDED.items() if name.partition(".")[0] in sections} | dict(flat)


def with_effect(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a flat config that the numbers of its run depend on."""
    return {name: value for name, value in flat.items() if not name.startswith(WITHOUT_EFFECT)}


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Describes each field in which two flat configs differ; empty if they are the same."""
    return [
        f"{field} is {found.get(field)!r} there and {wanted.get(field)!r} here"
        for field in sorted(found.keys() | wanted.keys())
        if found.get(field) != wanted.get(field)
    ]


def _check_choice(field: str, value: object, choices: Collection[str]) -> None:
    if value in tuple(choices):  # A tuple takes any value; a dict needs one that can be hashed.
        return
    nearest = difflib.get_close_matches(str(value), choices, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise UserError(f"{field} is {value!r}; {hint}choose of {', '.join(choices)}")
