"""The attacks that runs are evaluated with, one record each: the columns of every table."""

import dataclasses
import enum
import functools
from collections.abc import Callable, Collection
from typing import Any

import jax

from jaxrw.attacks.apgd import apgd
from jaxrw.attacks.autoattack import ensemble
from jaxrw.attacks.pgd import fgsm, pgd
from jaxrw.attacks.types import Attack, LogitsFn


class Measured(enum.Enum):
    """How the accuracy of a column is measured."""

    ATTACK = enum.auto()  # every test image under one `Attack`
    AUTOATTACK = enum.auto()  # a loop on the host: each attack on the images that the previous ones left
    CORRUPTIONS = enum.auto()  # other images, under no attack


@dataclasses.dataclass(frozen=True)
class EvaluationAttack:
    """A column of the tables.

    Attributes:
      name: as in configs and in results.json.
      title: as in tables and figures.
      settings: fields of `config.evaluation` that its accuracy depends on.
      create: (norm, eps, step_size) -> `Attack`; None where the column is not measured by one.
      measured: how.
      ensemble: AutoAttack's attacks that run; None: those of `config.evaluation.version`.
      details: field of a checkpoint in results.json with more than the accuracy; None: there is no more.
      extra: whether tables have its column only if it was run, and never say that it was not.
    """

    name: str
    title: str
    settings: tuple[str, ...]
    create: Callable[[str, float, float], Attack] | None = None
    measured: Measured = Measured.ATTACK
    ensemble: tuple[str, ...] | None = None
    details: str | None = None
    extra: bool = False

    @property
    def is_attack(self) -> bool:
        """Whether it perturbs images, unlike the columns of clean and of corrupted ones."""
        return "eps" in self.settings


_OF_PGD = ("norm", "eps", "step_size")


def _clean(
    key: jax.Array, logits_fn: LogitsFn, images: jax.Array, labels: jax.Array, index: jax.Array
) -> jax.Array:
    return images


def _fgsm(norm: str, eps: float, step_size: float) -> Attack:
    return lambda key, logits_fn, images, labels, index: fgsm(logits_fn, images, labels, eps=eps, norm=norm)


def _pgd(norm: str, eps: float, step_size: float, *, num_steps: int, loss: str = "ce") -> Attack:
    return _as_attack(
        pgd, norm=norm, eps=eps, step_size=step_size, num_steps=num_steps, loss=loss, start="uniform"
    )


def _apgd_ce(norm: str, eps: float, step_size: float) -> Attack:
    return _as_attack(apgd, norm=norm, eps=eps, num_steps=100, loss="ce")


def _as_attack(function: Callable[..., jax.Array], **settings: Any) -> Attack:
    return lambda key, logits_fn, images, labels, index: function(
        key, logits_fn, images, labels, index=index, **settings
    )


# In the paper's order, which has no extra one.
ATTACKS = {
    attack.name: attack
    for attack in (
        EvaluationAttack("clean", "Clean", (), lambda norm, eps, step_size: _clean),
        EvaluationAttack("fgsm", "FGSM", ("norm", "eps"), _fgsm),
        EvaluationAttack("pgd20", "PGD-20", _OF_PGD, functools.partial(_pgd, num_steps=20)),
        EvaluationAttack("pgd100", "PGD-100", _OF_PGD, functools.partial(_pgd, num_steps=100)),
        EvaluationAttack("cw_pgd", "CW-PGD", _OF_PGD, functools.partial(_pgd, num_steps=100, loss="cw")),
        EvaluationAttack(
            "scaled_pgd",
            "PGD-100, 10 z",
            _OF_PGD,
            functools.partial(_pgd, num_steps=100, loss="scaled_ce"),
            extra=True,
        ),
        EvaluationAttack("apgd_ce", "APGD-CE", ("norm", "eps"), _apgd_ce),
        EvaluationAttack(
            "apgd_t",
            "APGD-CE+T",
            ("norm", "eps", "surrogate"),
            measured=Measured.AUTOATTACK,
            ensemble=("apgd-ce", "apgd-t"),
            details="apgd_t",
            extra=True,
        ),
        EvaluationAttack(
            "aa",
            "AA",
            ("norm", "eps", "version", "surrogate"),
            measured=Measured.AUTOATTACK,
            details="autoattack",
        ),
        EvaluationAttack(
            "corruptions",
            "Corrupted",
            ("corruptions_dir",),
            measured=Measured.CORRUPTIONS,
            details="corruptions",
            extra=True,
        ),
    )
}
# Settings that belong to few columns alone. The others are also those of the choice of the best checkpoint.
_OF_FEW = ("version", "surrogate", "corruptions_dir")
# The names of AutoAttack whole and of corruptions, which reports and checks ask for.
AUTOATTACK = "aa"
CORRUPTIONS = "corruptions"
# Of AutoAttack, without the one for random models: the networks of runs are not random.
VERSIONS = tuple(name for name, version in ensemble.VERSIONS.items() if not version.is_random)
# What it asks in place of the network: the network in a lower precision.
SURROGATES = ("none", "tensorfloat32", "bfloat16")


def unasked_settings(attacks: Collection[str]) -> list[str]:
    """Returns the fields of `config.evaluation` that belong to few columns, and to none of these."""
    return [field for field in _OF_FEW if not any(field in ATTACKS[name].settings for name in attacks)]


def create(name: str, *, eps: float, step_size: float, norm: str = "linf") -> Attack:
    """Returns the attack of one column.

    Args:
      name: a key of `ATTACKS` that is measured by an attack; also "pgdN" for PGD with any number N of steps.
      eps: radius in pixel units of [0, 1].
      step_size: PGD's, in pixel units of [0, 1].
      norm: of eps and step_size, a key of `norms.NORMS`.

    Raises:
      ValueError: unknown attack, or not measured by one.
    """
    if name in ATTACKS and (create_ := ATTACKS[name].create) is not None:
        return create_(norm, eps, step_size)
    if name.startswith("pgd") and name[3:].isdecimal():
        return _pgd(norm, eps, step_size, num_steps=int(name[3:]))
    choices = [attack.name for attack in ATTACKS.values() if attack.create is not None]
    raise ValueError(f"attack is {name!r}; choose of {', '.join(choices)}")
