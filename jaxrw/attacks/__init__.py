"""Attacks as pure functions of `logits_fn`: images [B, H, W, C] in [0, 1] -> logits [B, K]."""

from jaxrw.attacks.apgd import apgd
from jaxrw.attacks.autoattack import AutoAttackResult, Progress, autoattack
from jaxrw.attacks.autoattack.checks import RobustnessWarning
from jaxrw.attacks.fab import fab
from jaxrw.attacks.pgd import fgsm, pgd, pgd_and_kappa
from jaxrw.attacks.square import square

__all__ = [
    "AutoAttackResult",
    "Progress",
    "RobustnessWarning",
    "apgd",
    "autoattack",
    "fab",
    "fgsm",
    "pgd",
    "pgd_and_kappa",
    "square",
]
