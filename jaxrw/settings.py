"""The values that each field of a config may have, and configs as flat dicts."""

import difflib
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxrw import methods, networks
from jaxrw.attacks import norms, suite
from jaxrw.attacks.pgd import KL, STARTS
from jaxrw.data import TEST_SPLITS, Dataset
from jaxrw.system.errors import UserError, one_line

# Prefixes of fields that do not change a number of a run.
WITHOUT_EFFECT = (
    "dataset.data_dir",
    "evaluation.attacks",
    "evaluation.batch_size",
    "evaluation.figure_",
    "evaluation.save_adversarial",
    "checkpoint.",
    "writers",
)

# What a run did whose config was written before a field existed.
_EARLIER: dict[str, Any] = {
    "writers": ["tensorboard"],
    "dataset.validation_share": None,
    "dataset.test_split": "test",
    "model.activation": None,
    "model.shortcut": None,
    "model.last_norm": None,
    "method.constant": 1.0,
    "method.temperature": 1.0,
    "method.normalize": None,
    "attack.norm": "linf",
    "evaluation.norm": "linf",
    "evaluation.version": "standard",
    "evaluation.surrogate": "none",
    "evaluation.corruptions_dir": None,
    "objective.name": "standard",
    "objective.lam": 6.0,
    "objective.smoothing": 0.0,
    "objective.clean_statistics": True,
    "awp.gamma": None,
    "awp.start_epoch": 0,
    "average.name": "none",
    "average.decay": 0.995,
    "average.start_epoch": 0,
    "extra.path": None,
    "extra.share": 0.7,
    "optim.schedule": "milestones",
    "optim.rise_epochs": 0.0,
    "optim.peak": 0.025,
    "optim.nesterov": False,
    "optim.decay_all": True,
    "optim.clip_norm": None,
}

# Fields that have neither a range nor choices.
_FREE = (
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
    "dataset.validation_share": _Range(
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
    "objective.smoothing": _Range(lambda value: 0 <= value < 1, "must be in [0, 1)"),
    "awp.gamma": _Range(
        lambda value: value is None or value > 0, "must be positive, as 0.01, or None to train without AWP"
    ),
    "awp.start_epoch": _at_least(0),
    "average.decay": _Range(lambda value: 0 <= value < 1, "must be in [0, 1)"),
    "average.start_epoch": _at_least(0),
    "extra.share": _Range(
        lambda value: 0 < value < 1, "must be in (0, 1): a share of every batch, the rest are training images"
    ),
    "attack.eps": _EPS,
    "attack.step_size": _STEP_SIZE,
    "attack.num_steps": _at_least(0, " (0 trains on clean images)"),
    "optim.num_epochs": _Range(
        lambda value: 1 <= value <= 1_000_000, "must be at least 1, at most 1,000,000"
    ),
    "optim.batch_size": _at_least(1),
    "optim.learning_rate": _POSITIVE,
    "optim.rise_epochs": _at_least(0),
    "optim.peak": _Range(lambda value: 0 < value < 1, "must be in (0, 1): a share of all steps"),
    "optim.clip_norm": _Range(
        lambda value: value is None or value > 0, "must be positive, or None for no clipping"
    ),
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
    for field in (*CHOICES, *_RANGES, *_FREE):
        if field not in fields:
            raise UserError(
                f"{field} is missing from the config; begin with configs/base.py, which has every field, and give "
                "--config to evaluate a file of weights"
            )
    if "method.source" in fields and fields["method.name"] not in methods.METHODS:
        raise UserError(
            f"method.name is {fields['method.name']!r}, which a config file has added; give that file with --config"
        )
    for field, choices in CHOICES.items():
        _check_choice(field, fields[field], choices)
    if not config.evaluation.attacks:
        raise UserError(f"evaluation.attacks is empty; choose of {', '.join(suite.ATTACKS)}")
    for name in config.evaluation.attacks:
        _check_choice("evaluation.attacks", name, suite.ATTACKS)
    _check_corruptions(config)
    for field, (contains, requirement) in _RANGES.items():
        value = fields[field]
        section = field.partition(".")[0]
        if field.endswith((".eps", ".step_size")) and fields[f"{section}.norm"] != "linf":
            contains, requirement = _LENGTH
        is_finite = not isinstance(value, float) or math.isfinite(value)
        if not (is_finite and contains(value)):
            raise UserError(f"{field} is {value}; {requirement}")
    measured = {suite.ATTACKS[name].measured for name in config.evaluation.attacks}
    if suite.Measured.AUTOATTACK in measured and config.evaluation.eps == 0:
        raise UserError("evaluation.eps is 0; AutoAttack needs a positive one, as 8/255, which is 0.03137")
    if methods.get(config.method.name).counts_steps and config.attack.num_steps == 0:
        raise UserError(
            f"attack.num_steps is 0; {config.method.name} counts attack steps, so it needs at least 1"
        )
    _check_objective(config)
    _check_lengths(config)
    if config.extra.path is not None:
        _check_extra(config, num_devices=num_devices)
    if config.optim.batch_size % num_devices:
        nearest = max(num_devices, config.optim.batch_size // num_devices * num_devices)
        raise UserError(
            f"optim.batch_size is {config.optim.batch_size}, which {num_devices} devices cannot share evenly; "
            f"it is the global batch: choose a multiple of {num_devices}, as {nearest}"
        )


def _check_corruptions(config: ConfigDict) -> None:
    path, is_measured = config.evaluation.corruptions_dir, suite.CORRUPTIONS in config.evaluation.attacks
    if is_measured and path is None:
        raise UserError(
            "evaluation.corruptions_dir is None; evaluation.attacks has 'corruptions', so it must be the directory of "
            "corrupted test images, as CIFAR-10-C"
        )
    if is_measured and config.dataset.test_split != "test":
        raise UserError(
            f"evaluation.attacks has 'corruptions', which are of test images; dataset.test_split is "
            f"{config.dataset.test_split!r}: leave one of them out"
        )
    if path is not None and not is_measured:
        raise UserError(
            f"evaluation.corruptions_dir is {path!r}; add 'corruptions' to evaluation.attacks, or leave it out"
        )


def _check_objective(config: ConfigDict) -> None:
    objective = methods.OBJECTIVES[config.objective.name]
    if "smoothing" not in objective.constants and config.objective.smoothing:
        raise UserError(
            f"objective.smoothing is {config.objective.smoothing}; must be 0 for {objective.name}, which has none"
        )
    if objective.attack_loss == KL and config.attack.start == "none":
        raise UserError(
            f"attack.start is 'none'; must be uniform or normal for {objective.name}: at the image itself the "
            "gradient of its KL divergence is 0"
        )


def _check_lengths(config: ConfigDict) -> None:
    """Raises UserError for a schedule, an average or AWP that is longer than the run or begins after it."""
    num_epochs, starts = config.optim.num_epochs, []
    if config.awp.gamma is not None:
        starts.append("awp.start_epoch")
    if config.average.name != "none":
        starts.append("average.start_epoch")
    if config.optim.schedule != "one_cycle":
        starts.append("optim.rise_epochs")
    elif config.optim.rise_epochs:
        raise UserError(
            f"optim.rise_epochs is {config.optim.rise_epochs}; must be 0 for one_cycle, which rises until optim.peak"
        )
    fields = flatten(config.to_dict())
    for field in starts:
        if fields[field] >= num_epochs:
            raise UserError(
                f"{field} is {fields[field]}; must be below optim.num_epochs, which is {num_epochs}"
            )


def _check_extra(config: ConfigDict, *, num_devices: int) -> None:
    number, batch_size, share = num_extra(config), config.optim.batch_size, config.extra.share
    if not 0 < number < batch_size:
        raise UserError(
            f"extra.share is {share}, which is {number} of {batch_size} images of a batch; must leave 1 of each kind"
        )
    if number % num_devices:
        nearest = max(num_devices, number // num_devices * num_devices) / batch_size
        raise UserError(
            f"extra.share is {share}, which is {number} images of a batch that {num_devices} devices cannot share "
            f"evenly; choose {nearest:g}"
        )


def num_extra(config: ConfigDict) -> int:
    """Returns how many images of every batch are extra ones."""
    return 0 if config.extra.path is None else round(config.extra.share * config.optim.batch_size)


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
    _check_weight(config, dataset.num_classes)
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


def _check_weight(config: ConfigDict, num_classes: int) -> None:
    """Raises UserError if the weight of a method of one's own cannot be computed."""
    method = methods.METHODS[config.method.name]
    if method.source is None:
        return
    scalar = jax.ShapeDtypeStruct((), jnp.int32)
    logits = jax.ShapeDtypeStruct((num_classes,), jnp.float32)
    try:
        weighting = method.weighting(config.method, num_steps=config.attack.num_steps)
        weight = jax.eval_shape(lambda *arguments: jnp.asarray(weighting(*arguments)), logits, scalar, scalar)
    except Exception as error:  # It is a user's program, which can raise anything.
        raise UserError(
            f"method.name is {method.name!r}; its weight raises {type(error).__name__}: {one_line(error)[:200]}"
        ) from error
    if weight.shape != () or not jnp.issubdtype(weight.dtype, jnp.floating):
        raise UserError(
            f"method.name is {method.name!r}; its weight is {weight.dtype}{list(weight.shape)}; must be one float for "
            f"logits [{num_classes}], a label and kappa"
        )


def as_json(config: ConfigDict) -> dict[str, Any]:
    """Returns a config as the nested dicts and lists that config.json holds, with the code of a method of one's own."""
    content: dict[str, Any] = json.loads(config.to_json())
    method = methods.METHODS.get(content.get("method", {}).get("name"))
    if method is not None and method.source is not None:
        own = {"title": method.title, "constants": list(method.constants), "source": method.source}
        content["method"] |= own
    return content


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested dicts as one dict with dotted names, such as `optim.batch_size`."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def completed(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a flat config of a run with the fields that did not exist yet when it was written."""
    return _EARLIER | dict(flat)


def add_fields(config: ConfigDict | dict[str, Any]) -> None:
    """Adds to a nested config the fields that did not exist yet when it was written."""
    for field, value in _EARLIER.items():
        section, _, name = field.rpartition(".")
        if section and section not in config:
            config[section] = {}
        owner = config[section] if section else config
        if name not in owner:
            owner[name] = value


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
