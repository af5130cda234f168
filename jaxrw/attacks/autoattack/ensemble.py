"""The attacks that AutoAttack consists of, one record each."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jaxrw.attacks.apgd import Apgd
from jaxrw.attacks.arguments import check_at_least
from jaxrw.attacks.batch import IterativeAttack
from jaxrw.attacks.fab import Fab
from jaxrw.attacks.square import Square


@dataclasses.dataclass(frozen=True)
class Budget:
    """Work of the attacks on one example; all at least 1."""

    num_steps: int  # of APGD and FAB, for each target
    num_targets: int  # of APGD-T and FAB-T
    num_queries: int  # of Square

    def __post_init__(self) -> None:
        """Raises ValueError for a number below 1."""
        check_at_least(1, **dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class EnsembleAttack:
    """One of AutoAttack's attacks.

    Attributes:
      name: as in `AutoAttackResult.accuracy`.
      stream: number that is folded into the random key. It must be unique and never change, or results change.
      create: returns the attack on one target, for a budget.
      steps_per_look: steps between two looks from the host. A finished example keeps its slot for at most that many.
      standard: whether the attack is in the paper's standard set.
      min_classes: smallest number of classes.
    """

    name: str
    stream: int
    create: Callable[[Budget], IterativeAttack[Any]]
    steps_per_look: int
    standard: bool = True
    min_classes: int = 2


def _apgd(loss: str) -> Callable[[Budget], IterativeAttack[Any]]:
    return lambda budget: Apgd(num_steps=budget.num_steps, loss=loss)


# In the order in which the standard set runs.
ATTACKS = {
    attack.name: attack
    for attack in (
        EnsembleAttack("apgd-ce", 0, _apgd("ce"), steps_per_look=5),
        EnsembleAttack("apgd-t", 1, _apgd("dlr-targeted"), steps_per_look=10),
        EnsembleAttack("fab-t", 2, lambda budget: Fab(num_steps=budget.num_steps), steps_per_look=10),
        EnsembleAttack(
            "square", 3, lambda budget: Square(num_queries=budget.num_queries), steps_per_look=100
        ),
        EnsembleAttack("apgd-dlr", 4, _apgd("dlr"), steps_per_look=5, standard=False, min_classes=3),
    )
}
STANDARD = tuple(attack.name for attack in ATTACKS.values() if attack.standard)


def select(names: Sequence[str]) -> list[EnsembleAttack]:
    """Returns the attacks of these names.

    Raises:
      ValueError: an unknown name, a name given twice, or no name.
    """
    for name in names:
        if name not in ATTACKS:
            raise ValueError(f"attack is {name!r}; choose of {', '.join(ATTACKS)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"attacks are {names}; name at least one, and each once, of {', '.join(ATTACKS)}")
    return [ATTACKS[name] for name in names]


def check_classes(attacks: Sequence[EnsembleAttack], num_classes: int) -> None:
    """Raises ValueError if an attack needs more classes than there are."""
    for attack in attacks:
        if num_classes < attack.min_classes:
            raise ValueError(
                f"attack {attack.name!r} needs at least {attack.min_classes} classes, and the model has "
                f"{num_classes}; leave it out"
            )
