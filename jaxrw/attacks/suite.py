"""The attacks that runs are evaluated with, one record each: the columns of every table."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from jaxrw.attacks.apgd import apgd
from jaxrw.attacks.autoattack import ensemble
from jaxrw.attacks.pgd import fgsm, pgd
from jaxrw.attacks.types import Attack, LogitsFn


@dataclasses.dataclass(frozen=True)
class EvaluationAttack:
    """A column of the tables.

    Attributes:
      name: as in configs and in results.json.
      title: as in tables and figures.
      settings: fields of `config.evaluation` that its accuracy depends on.
      create: (norm, eps, step_size) -> `Attack`; None for AutoAttack, which is a loop on the host, and for corruptions,
        which are other images.
      extra: whether tables have its column only if it was run, and never say that it was not.
    """

    name: str
    title: str
    settings: tuple[str, ...]
    create: Callable[[str, float, float], Attack] | None
    extra: bool = False


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
        EvaluationAttack(
            "pgd20", "PGD-20", ("norm", "eps", "step_size"), functools.partial(_pgd, num_steps=20)
        ),
        EvaluationAttack(
            "pgd100", "PGD-100", ("norm", "eps", "step_size"), functools.partial(_pgd, num_steps=100)
        ),
        EvaluationAttack(
            "cw_pgd",
            "CW-PGD",
            ("norm", "eps", "step_size"),
            functools.partial(_pgd, num_steps=100, loss="cw"),
        ),
        EvaluationAttack(
            "scaled_pgd",
            "PGD-100, 10 z",
            ("norm", "eps", "step_size"),
            functools.partial(_pgd, num_steps=100, loss="scaled_ce"),
            extra=True,
        ),
        EvaluationAttack("apgd_ce", "APGD-CE", ("norm", "eps"), _apgd_ce),
        EvaluationAttack("aa", "AA", ("norm", "eps", "version", "surrogate"), None),
        EvaluationAttack("corruptions", "Corrupted", ("corruptions_dir",), None, extra=True),
    )
}
AUTOATTACK = "aa"
CORRUPTIONS = "corruptions"
# Of AutoAttack, without the one for random models: the networks of runs are not random.
VERSIONS = tuple(name for name, version in ensemble.VERSIONS.items() if not version.is_random)
# What it asks in place of the network: the network in a lower precision.
SURROGATES = ("none", "tensorfloat32", "bfloat16")


def create(name: str, *, eps: float, step_size: float, norm: str = "linf") -> Attack:
    """Returns the attack of one column.

    Args:
      name: a key of `ATTACKS` other than AutoAttack's and that of corruptions; also "pgdN" for PGD with any number N of
        steps.
      eps: radius in pixel units of [0, 1].
      step_size: PGD's, in pixel units of [0, 1].
      norm: of eps and step_size, a key of `norms.NORMS`.

    Raises:
      ValueError: unknown attack, AutoAttack, or corruptions.
    """
    if name in ATTACKS and (create_ := ATTACKS[name].create) is not None:
        return create_(norm, eps, step_size)
    if name.startswith("pgd") and name[3:].isdecimal():
        return _pgd(norm, eps, step_size, num_steps=int(name[3:]))
    choices = [attack.name for attack in ATTACKS.values() if attack.create is not None]
    raise ValueError(f"attack is {name!r}; choose of {', '.join(choices)}")
