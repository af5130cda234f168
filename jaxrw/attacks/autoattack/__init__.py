"""AutoAttack: attacks that each run on the examples that the previous ones left robust."""

from jaxrw.attacks.autoattack.checks import RobustnessWarning
from jaxrw.attacks.autoattack.evaluation import AutoAttackResult, Progress, autoattack

__all__ = ["AutoAttackResult", "Progress", "RobustnessWarning", "autoattack"]
