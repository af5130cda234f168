"""What may be asked for: the fields of a config, checks of them, and configs as flat dicts."""

from jaxrw.settings.checks import check, check_dataset, doubts, num_extra
from jaxrw.settings.fields import CHOICES
from jaxrw.settings.flat import (
    WITHOUT_EFFECT,
    add_fields,
    as_json,
    completed,
    differences,
    earlier,
    flatten,
    with_effect,
)

__all__ = [
    "CHOICES",
    "WITHOUT_EFFECT",
    "add_fields",
    "as_json",
    "check",
    "check_dataset",
    "completed",
    "differences",
    "doubts",
    "earlier",
    "flatten",
    "num_extra",
    "with_effect",
]
