"""AutoAttack: four attacks, each on the examples that the ones before it left robust."""

from jaxrw.attacks.autoattack.checks import RobustnessWarning
from jaxrw.attacks.autoattack.evaluation import AutoAttackResult, Progress, autoattack

__all__ = ["AutoAttackResult", "Progress", "RobustnessWarning", "autoattack"]
