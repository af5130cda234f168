"""The attacks that AutoAttack consists of, one record each, and its versions."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jaxrw.attacks.apgd import create as create_apgd
from jaxrw.attacks.arguments import check_at_least
from jaxrw.attacks.batch import IterativeAttack
from jaxrw.attacks.fab import Fab
from jaxrw.attacks.random_models import OfRandomModel
from jaxrw.attacks.square import Square


@dataclasses.dataclass(frozen=True)
class Budget:
    """Work of the attacks on one example; all at least 1, but for the last two.

    Attributes:
      num_steps: of APGD and FAB, for each target and restart.
      apgd_targets: of APGD-T.
      fab_targets: of FAB-T.
      num_restarts: runs of APGD and FAB without targets.
      num_queries: of Square.
      num_samples: evaluations of a random model for one gradient; 0: the model is not random.
      num_votes: evaluations of a random model for one verdict; 0: the model is not random.
    """

    num_steps: int
    apgd_targets: int
    fab_targets: int
    num_restarts: int
    num_queries: int
    num_samples: int
    num_votes: int

    @property
    def max_targets(self) -> int:
        """Number of targets that any attack needs."""
        return max(self.apgd_targets, self.fab_targets)


@dataclasses.dataclass(frozen=True)
class EnsembleAttack:
    """One of AutoAttack's attacks.

    Attributes:
      name: as in `AutoAttackResult.accuracy`.
      stream: number that is folded into the random key. It must be unique and never change, or results change.
      create: returns the attack in one round, for a norm and a budget.
      num_rounds: number of targets or restarts, for a budget.
      steps_per_look: steps between two looks from the host. A finished example keeps its slot for at most that many.
      for_random: whether the attack is of use against random models.
      min_classes: smallest number of classes.
    """

    name: str
    stream: int
    create: Callable[[str, Budget], IterativeAttack[Any]]
    num_rounds: Callable[[Budget], int]
    steps_per_look: int
    for_random: bool = False
    min_classes: int = 2


def _apgd(loss: str) -> Callable[[str, Budget], IterativeAttack[Any]]:
    def create(norm: str, budget: Budget) -> IterativeAttack[Any]:
        attack = create_apgd(norm, num_steps=budget.num_steps, loss=loss)
        return OfRandomModel(attack, num_samples=budget.num_samples) if budget.num_samples else attack

    return create


def _fab(*, targeted: bool) -> Callable[[str, Budget], IterativeAttack[Any]]:
    return lambda norm, budget: Fab(num_steps=budget.num_steps, norm=norm, targeted=targeted)


def _square(norm: str, budget: Budget) -> IterativeAttack[Any]:
    return Square(num_queries=budget.num_queries, norm=norm)


def _restarts(budget: Budget) -> int:
    return budget.num_restarts


ATTACKS = {
    attack.name: attack
    for attack in (
        EnsembleAttack("apgd-ce", 0, _apgd("ce"), _restarts, steps_per_look=5, for_random=True),
        EnsembleAttack(
            "apgd-t",
            1,
            _apgd("dlr-targeted"),
            lambda budget: budget.apgd_targets,
            steps_per_look=10,
            for_random=True,
        ),
        EnsembleAttack("fab-t", 2, _fab(targeted=True), lambda budget: budget.fab_targets, steps_per_look=10),
        EnsembleAttack("square", 3, _square, lambda budget: 1, steps_per_look=100),
        EnsembleAttack(
            "apgd-dlr", 4, _apgd("dlr"), _restarts, steps_per_look=5, for_random=True, min_classes=3
        ),
        EnsembleAttack("fab", 5, _fab(targeted=False), _restarts, steps_per_look=10),
    )
}


@dataclasses.dataclass(frozen=True)
class Version:
    """A version of AutoAttack.

    Attributes:
      attacks: names, in the order in which they run.
      num_restarts: runs of APGD and FAB without targets.
      is_random: whether the model is random.
    """

    attacks: tuple[str, ...]
    num_restarts: int = 1
    is_random: bool = False


STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")

# In L1, the public code restarts APGD-CE four times and gives APGD-T five targets, in the standard version.
L1_RESTARTS, L1_TARGETS = 5, 5

VERSIONS = {
    "standard": Version(STANDARD),
    "plus": Version(("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"), num_restarts=5),
    "rand": Version(("apgd-ce", "apgd-dlr"), is_random=True),
}


def get_version(name: str) -> Version:
    """Returns the version of a name; raises ValueError if there is none."""
    if name not in VERSIONS:
        raise ValueError(f"version is {name!r}; choose one of {', '.join(VERSIONS)}")
    return VERSIONS[name]


def create_budget(
    norm: str,
    version: str,
    *,
    num_steps: int,
    num_targets: int | None,
    num_restarts: int | None,
    num_queries: int,
    num_samples: int,
    num_votes: int,
) -> Budget:
    """Returns the budget of a version in a norm; numbers that are None are the version's.

    Raises:
      ValueError: a number below 1.
    """
    chosen = get_version(version)
    standard_l1 = norm == "l1" and version == "standard"
    if num_restarts is None:
        num_restarts = L1_RESTARTS if standard_l1 else chosen.num_restarts
    apgd_targets = num_targets if num_targets is not None else L1_TARGETS if standard_l1 else 9
    num_targets = num_targets if num_targets is not None else 9
    check_at_least(
        1,
        num_steps=num_steps,
        num_targets=num_targets,
        num_restarts=num_restarts,
        num_queries=num_queries,
        num_samples=num_samples,
        num_votes=num_votes,
    )
    return Budget(
        num_steps=num_steps,
        apgd_targets=apgd_targets,
        fab_targets=num_targets,
        num_restarts=num_restarts,
        num_queries=num_queries,
        num_samples=num_samples if chosen.is_random else 0,
        num_votes=num_votes if chosen.is_random else 0,
    )


def select(names: Sequence[str], *, is_random: bool = False) -> list[EnsembleAttack]:
    """Returns the attacks of these names.

    Raises:
      ValueError: an unknown name, a name given twice, no name, or an attack that is of no use against random models.
    """
    usable = [name for name, attack in ATTACKS.items() if attack.for_random or not is_random]
    for name in names:
        if name not in usable:
            raise ValueError(
                f"attack is {name!r}; choose of {', '.join(usable)}{' for random models' if is_random else ''}"
            )
    if not names or len(set(names)) < len(names):
        raise ValueError(f"attacks are {names}; name at least one, and each once, of {', '.join(usable)}")
    return [ATTACKS[name] for name in names]


def check_classes(attacks: Sequence[EnsembleAttack], num_classes: int) -> None:
    """Raises ValueError if an attack needs more classes than there are."""
    for attack in attacks:
        if num_classes < attack.min_classes:
            raise ValueError(
                f"attack {attack.name!r} needs at least {attack.min_classes} classes, and the model has "
                f"{num_classes}; leave it out"
            )
