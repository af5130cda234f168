"""Configs as the flat dicts that are compared, with the fields that their version did not have yet."""

import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxrw import methods

# Prefixes of fields that do not change a number of a run.
WITHOUT_EFFECT = (
    "dataset.data_dir",
    "evaluation.attacks",
    "evaluation.batch_size",
    "evaluation.corruptions_dir",
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


def earlier(section: str) -> dict[str, Any]:
    """Returns the fields of a section that once did not exist, by name, with what runs did then."""
    prefix = f"{section}."
    return {
        field.removeprefix(prefix): value for field, value in _EARLIER.items() if field.startswith(prefix)
    }


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
