"""Checks of a config, by itself and against its data set; each failure is a UserError of one line."""

import difflib
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxrw import methods
from jaxrw.attacks import norms, suite
from jaxrw.attacks.pgd import KL
from jaxrw.data import Dataset
from jaxrw.settings.fields import CHOICES, FREE, LENGTH, RANGES
from jaxrw.settings.flat import flatten
from jaxrw.system.errors import UserError, one_line


def check(config: ConfigDict, *, num_devices: int) -> None:
    """Checks the fields of a config.

    Args:
      config: resolved.
      num_devices: number of devices that share the global batch.

    Raises:
      UserError: a field is missing, or no run could use its value; for the first such field.
    """
    fields = flatten(config.to_dict())
    _check_presence(fields)
    for field, choices in CHOICES.items():
        _check_choice(field, fields[field], choices)
    _check_attacks(config)
    _check_ranges(fields)
    measured = {suite.ATTACKS[name].measured for name in config.evaluation.attacks}
    if suite.Measured.AUTOATTACK in measured and config.evaluation.eps == 0:
        raise UserError("evaluation.eps is 0; AutoAttack needs a positive one, as 8/255, which is 0.03137")
    if methods.get(config.method.name).counts_steps and config.attack.num_steps == 0:
        raise UserError(
            f"attack.num_steps is 0; {config.method.name} counts attack steps, so it needs at least 1"
        )
    _check_objective(config)
    _check_lengths(fields)
    if config.extra.path is not None:
        _check_extra(config, num_devices=num_devices)
    if config.checkpoint.keep_warmup and not 0 < config.method.warmup_epochs <= config.optim.num_epochs:
        raise UserError(
            f"checkpoint.keep_warmup is True; method.warmup_epochs is {config.method.warmup_epochs}, and must be in "
            f"1..optim.num_epochs, which is {config.optim.num_epochs}, for a warm-up that ends"
        )
    if config.optim.batch_size % num_devices:
        nearest = max(num_devices, config.optim.batch_size // num_devices * num_devices)
        raise UserError(
            f"optim.batch_size is {config.optim.batch_size}, which {num_devices} devices cannot share evenly; "
            f"it is the global batch: choose a multiple of {num_devices}, as {nearest}"
        )


def _check_presence(fields: Mapping[str, Any]) -> None:
    for field in (*CHOICES, *RANGES, *FREE):
        if field not in fields:
            raise UserError(
                f"{field} is missing from the config; begin with configs/base.py, which has every field, and give "
                "--config to evaluate a file of weights"
            )
    if "method.source" in fields and fields["method.name"] not in methods.METHODS:
        raise UserError(
            f"method.name is {fields['method.name']!r}, which a config file has added; give that file with --config"
        )


def _check_ranges(fields: Mapping[str, Any]) -> None:
    for field, (contains, requirement) in RANGES.items():
        value = fields[field]
        section = field.partition(".")[0]
        if field.endswith((".eps", ".step_size")) and fields[f"{section}.norm"] != "linf":
            contains, requirement = LENGTH
        is_finite = not isinstance(value, float) or math.isfinite(value)
        try:
            is_contained = contains(value)
        except TypeError:  # Of a config that did not begin with configs/base.py, or of a damaged config.json.
            is_contained = False
        if not (is_finite and is_contained):
            raise UserError(f"{field} is {value}; {requirement}")


def _check_attacks(config: ConfigDict) -> None:
    if not config.evaluation.attacks:
        raise UserError(f"evaluation.attacks is empty; choose of {', '.join(suite.ATTACKS)}")
    for name in config.evaluation.attacks:
        _check_choice("evaluation.attacks", name, suite.ATTACKS)
    _check_corruptions(config)


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


def _check_lengths(fields: Mapping[str, Any]) -> None:
    """Raises UserError for a schedule, an average or AWP that is longer than the run or begins after it."""
    num_epochs, starts = fields["optim.num_epochs"], []
    if fields["awp.gamma"] is not None:
        starts.append("awp.start_epoch")
    if fields["average.name"] != "none":
        starts.append("average.start_epoch")
    if fields["optim.schedule"] != "one_cycle":
        starts.append("optim.rise_epochs")
    elif fields["optim.rise_epochs"]:
        raise UserError(
            f"optim.rise_epochs is {fields['optim.rise_epochs']}; must be 0 for one_cycle, which rises until optim.peak"
        )
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
    if missing := [name for name in method.constants if name not in config.method]:
        raise UserError(
            f"method.name is {method.name!r}; its weight reads {missing[0]}, which config.method lacks: set "
            f"config.method.{missing[0]} in get_config"
        )
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


def _check_choice(field: str, value: object, choices: Collection[str]) -> None:
    if value in tuple(choices):  # A tuple takes any value; a dict needs one that can be hashed.
        return
    nearest = difflib.get_close_matches(str(value), choices, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise UserError(f"{field} is {value!r}; {hint}choose of {', '.join(choices)}")
