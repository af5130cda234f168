"""AutoAttack: attacks that each run on the examples that the previous ones left robust."""

from jaxrw.attacks.autoattack.checks import RobustnessWarning
from jaxrw.attacks.autoattack.evaluation import autoattack
from jaxrw.attacks.autoattack.result import AutoAttackResult, Progress

__all__ = ["AutoAttackResult", "Progress", "RobustnessWarning", "autoattack"]
