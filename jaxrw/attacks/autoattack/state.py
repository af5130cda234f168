"""What an evaluation has found so far, as the state file holds it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from jaxrw.attacks.autoattack.problem import Problem
from jaxrw.system import hosts

# Values of `fooled_by` that are not the number of an attack.
WRONG, ROBUST = -2, -1


@dataclasses.dataclass
class State:
    """What an evaluation of N examples with A attacks has found so far.

    Attributes:
      fooled_by: [N] int8, number of the first attack that fooled the example, ROBUST, or WRONG without any attack.
      fooled: [A, N] bool, whether each attack fooled the example.
      adversarial: [N, H, W, C] float32, the image that fooled, or the original.
      tried: [A, N] int16, number of targets that failed.
      seconds: [A] float64, time spent on each attack, compilation included.
      attacked: [A] int64, number of examples that each attack began with; -1 before that.
      unconfirmed: [N] bool, whether an attack's image did not fool the model when it was evaluated again.
      nan: number of adversarial images whose logits are NaN.
      slots: arrays of an interrupted attack's slots by name.
    """

    fooled_by: np.ndarray
    fooled: np.ndarray
    adversarial: np.ndarray
    tried: np.ndarray
    seconds: np.ndarray
    attacked: np.ndarray
    unconfirmed: np.ndarray
    nan: int = 0
    slots: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def create(cls, problem: Problem, num_attacks: int) -> Self:
        """Returns the state before the first attack."""
        size = len(problem.labels)
        return cls(
            fooled_by=np.where(problem.correct, ROBUST, WRONG).astype(np.int8),
            fooled=np.zeros((num_attacks, size), bool),
            adversarial=problem.images.copy(),
            tried=np.zeros((num_attacks, size), np.int16),
            seconds=np.zeros(num_attacks),
            attacked=np.full(num_attacks, -1),
            unconfirmed=np.zeros(size, bool),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], problem: Problem) -> Self:
        """Inverts `arrays`."""
        state = cls.create(problem, len(arrays["attacked"]))
        for name in ("fooled_by", "fooled", "tried", "seconds", "attacked"):
            setattr(state, name, arrays[name])
        state.adversarial[state.fooled_by >= 0] = arrays["adversarial"]
        state.unconfirmed[arrays["unconfirmed"]] = True
        state.nan = int(arrays["nan"])
        state.slots = {name: array for name, array in arrays.items() if name.startswith("slot_")}
        return state

    def arrays(self) -> dict[str, Any]:
        """Returns the state as the state file holds it: without original images."""
        return {
            "fooled_by": self.fooled_by,
            "fooled": self.fooled,
            "adversarial": self.adversarial[self.fooled_by >= 0],
            "tried": self.tried,
            "seconds": self.seconds,
            "attacked": self.attacked,
            "unconfirmed": np.flatnonzero(self.unconfirmed).astype(np.int32),
            "nan": np.int32(self.nan),
            **self.slots,
        }

    def num_fooled(self, number: int) -> int:
        """Returns how many examples the attack of that number has fooled."""
        return int(np.count_nonzero(self.fooled[number]))

    def merge_hosts(self, nan_before: int) -> None:
        """Collects what each host has found about its own examples since there were `nan_before` NaN images."""
        self.fooled_by, self.adversarial = hosts.gather(self.fooled_by), hosts.gather(self.adversarial)
        self.tried, self.fooled = hosts.gather(self.tried.T).T, hosts.gather(self.fooled.T).T
        self.unconfirmed = hosts.gather(self.unconfirmed)
        self.nan = nan_before + hosts.total(self.nan - nan_before)
