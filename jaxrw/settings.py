"""What a config may say: every field's range, checked before anything is computed or written; and its fields."""

import difflib
import json
import math

from jaxrw import methods, networks
from jaxrw.attacks import suite
from jaxrw.attacks.pgd import STARTS
from jaxrw.system.errors import UserError

# Prefixes of fields that change no number of a run: where data lies, how it is batched, drawn and saved.
WITHOUT_EFFECT = (
    "dataset.data_dir",
    "evaluation.attacks",
    "evaluation.batch_size",
    "evaluation.figure_",
    "evaluation.save_adversarial",
    "checkpoint.",
)

_CHOICES = {
    "model.name": networks.ARCHITECTURES,
    "model.dtype": networks.DTYPES,
    "method.name": methods.METHODS,
    "attack.start": STARTS,
}

_EPS = (lambda v: 0 <= v < 1, "must be in [0, 1), in pixel units of [0, 1]: 8/255 is 0.03137")
_STEP_SIZE = (lambda v: 0 <= v < 1, "must be in [0, 1), in pixel units of [0, 1]: 2/255 is 0.00784")

_RANGES = {
    "seed": (lambda v: 0 <= v < 2**32, "must be in 0..2^32 - 1"),
    "dataset.downscale": (lambda v: v >= 1, "must be at least 1 (1: images as they are)"),
    "dataset.pad": (lambda v: v >= 0, "must be 0 or more pixels"),
    "method.warmup_epochs": (lambda v: v >= 0, "must be 0 or more"),
    "method.tau": (lambda v: v >= 2, "must be at least 2 (Eq. 10)"),
    "method.beta": (lambda v: True, "must be a finite number"),
    "method.alpha": (lambda v: True, "must be a finite number"),
    "method.lam": (lambda v: True, "must be a finite number"),
    "method.gamma": (lambda v: v > 0, "must be positive"),
    "method.multiplier": (lambda v: v > 0, "must be positive"),
    "attack.eps": _EPS,
    "attack.step_size": _STEP_SIZE,
    "attack.num_steps": (lambda v: v >= 0, "must be 0 or more (0 trains on clean images)"),
    "optim.num_epochs": (lambda v: 1 <= v <= 1_000_000, "must be at least 1, at most 1,000,000"),
    "optim.batch_size": (lambda v: v >= 1, "must be at least 1"),
    "optim.learning_rate": (lambda v: v > 0, "must be positive"),
    "optim.momentum": (lambda v: 0 <= v < 1, "must be in [0, 1)"),
    "optim.weight_decay": (lambda v: v >= 0, "must be 0 or more"),
    "optim.decay": (lambda v: 0 < v <= 1, "must be in (0, 1]"),
    "optim.milestones": (
        lambda v: all(isinstance(e, int) and e > 0 for e in v) and len(set(v)) == len(v),
        "must be different epochs, each at least 1, as in (75, 90, 100)",
    ),
    "evaluation.eps": _EPS,
    "evaluation.step_size": _STEP_SIZE,
    "evaluation.batch_size": (lambda v: v >= 1, "must be at least 1"),
    "evaluation.selection_steps": (lambda v: v >= 1, "must be at least 1"),
    "evaluation.figure_examples": (lambda v: v >= 0, "must be 0 (no figures) or more"),
    "evaluation.figure_eps": (
        lambda v: all(isinstance(m, int | float) and math.isfinite(m) and m >= 0 for m in v),
        "must be multiples of evaluation.eps, 0 or more, as in (0, 0.5, 1, 2)",
    ),
    "checkpoint.every_epochs": (lambda v: v >= 1, "must be at least 1"),
    "checkpoint.every_steps": (lambda v: v is None or v >= 1, "must be at least 1, or None for epochs only"),
}


def check(config, *, num_devices):
    """Raise UserError for the first field that no run could use; `num_devices` share the global batch."""
    for field in (*_CHOICES, *_RANGES):
        if not has(config, field):
            raise UserError(
                f"{field} is missing from the config; begin with configs/base.py, which has every field"
            )
    for field, choices in _CHOICES.items():
        _check_choice(field, get(config, field), choices)
    if not config.evaluation.attacks:
        raise UserError(f"evaluation.attacks is empty; choose of {', '.join(suite.ATTACKS)}")
    for name in config.evaluation.attacks:
        _check_choice("evaluation.attacks", name, suite.ATTACKS)
    for field, (holds, words) in _RANGES.items():
        value = get(config, field)
        finite = not isinstance(value, float) or math.isfinite(value)
        if not (finite and holds(value)):
            raise UserError(f"{field} is {value}; {words}")
    if suite.AUTOATTACK in config.evaluation.attacks and config.evaluation.eps == 0:
        raise UserError("evaluation.eps is 0; AutoAttack needs a positive one, as 8/255, which is 0.03137")
    if config.method.name == "gairat" and config.attack.num_steps == 0:
        raise UserError("attack.num_steps is 0; gairat counts attack steps, so it needs at least 1")
    if config.optim.batch_size % num_devices:
        nearest = max(num_devices, config.optim.batch_size // num_devices * num_devices)
        raise UserError(
            f"optim.batch_size is {config.optim.batch_size}, which {num_devices} devices cannot share evenly; "
            f"it is the global batch: choose a multiple of {num_devices}, as {nearest}"
        )


def check_dataset(config, dataset):
    """Raise UserError where the crop, the method or the batch does not fit the data set."""
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
    size = len(dataset.train.labels)
    if size < config.optim.batch_size:
        raise UserError(
            f"optim.batch_size is {config.optim.batch_size}, but only {size} images are left to train on; "
            "choose a smaller batch or more images"
        )


def get(config, field):
    """Value of a dotted field, as `optim.batch_size`."""
    for name in field.split("."):
        config = config[name]
    return config


def has(config, field):
    """Whether a config has such a dotted field."""
    try:
        get(config, field)
    except (KeyError, AttributeError, TypeError):
        return False
    return True


def as_json(config):
    """A ConfigDict as the nested dicts and lists that config.json holds."""
    return json.loads(config.to_json())


def flatten(config, prefix=""):
    """Nested dicts as one dict with dotted names."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def with_effect(flat):
    """Fields of a flat config that the numbers of its run depend on."""
    return {name: value for name, value in flat.items() if not name.startswith(WITHOUT_EFFECT)}


def differences(found, wanted):
    """Fields in which two flat configs differ, each in words; none where they are the same."""
    return [
        f"{field} is {found.get(field)!r} there and {wanted.get(field)!r} here"
        for field in sorted(found.keys() | wanted.keys())
        if found.get(field) != wanted.get(field)
    ]


def _check_choice(field, value, choices):
    """Refuse a name that is none of the choices, with the nearest one."""
    if value in choices:
        return
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(f"{field} is {value!r}; {hint}choose of {', '.join(choices)}")
