"""What `autoattack` returns, and what it reports while it runs."""

import dataclasses
import importlib.metadata
from typing import Any

import numpy as np

from jaxrw.attacks.autoattack.state import WRONG


@dataclasses.dataclass(frozen=True, repr=False)
class AutoAttackResult:
    """Result of AutoAttack; accuracies are in percent of all N examples. It prints as a table.

    Attributes:
      adversarial: [N, H, W, C] float32, the image that fooled; the original if none did or had to.
      robust: [N] bool, correct and fooled by no attack: the worst case.
      fooled_by: [N] int8, number of the first attack in `accuracy`, ROBUST, or WRONG without any attack.
      clean_accuracy: without any attack.
      accuracy: by attack, after it and all before it; if individual, under it alone.
      robust_under: by attack, [N] bool, which examples `accuracy` counts.
      attacked: by attack, number of examples that it ran on: those robust until then.
      fooled: by attack, number of examples that it fooled.
      seconds: by attack, its time, compilation included.
      num_targets: wrong classes that a targeted attack tries at most, no more than K - 1.
      labels: [N] int32, in 0..K-1.
      norm: of eps.
      eps: radius in pixel units of [0, 1].
      version: whose settings were used.
      individual: whether each attack ran on all examples.
      surrogate: whether the attacks asked a surrogate.
      unconfirmed: numbers of the examples of which an attack's image did not count, because it left the ball or the
        model, asked again, predicted it right.
      warnings: texts of all `RobustnessWarning`.
    """

    adversarial: np.ndarray
    robust: np.ndarray
    fooled_by: np.ndarray
    clean_accuracy: float
    accuracy: dict[str, float]
    robust_under: dict[str, np.ndarray]
    attacked: dict[str, int]
    fooled: dict[str, int]
    seconds: dict[str, float]
    num_targets: int
    labels: np.ndarray
    norm: str
    eps: float
    version: str
    individual: bool
    surrogate: bool
    unconfirmed: np.ndarray
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        """Returns a table of the attacks, and the warnings."""
        rows = [
            ("", "attacked", "fooled", "accuracy", "seconds"),
            ("clean", "", "", f"{self.clean_accuracy:.2f}", ""),
        ]
        rows += [
            (
                name,
                f"{self.attacked[name]:,}",
                f"{self.fooled[name]:,}",
                f"{accuracy:.2f}",
                f"{self.seconds[name]:.1f}",
            )
            for name, accuracy in self.accuracy.items()
        ]
        lines = [(f"{name:10}" + "".join(f"{cell:>10}" for cell in cells)).rstrip() for name, *cells in rows]
        head = f"AutoAttack leaves {self.robust.sum():,} of {len(self.robust):,} examples robust; accuracy in percent"
        if self.surrogate:
            lines.append(
                f"the attacks asked a surrogate; it alone was fooled by images of {len(self.unconfirmed):,} examples, "
                "which were then attacked with the model"
            )
        return "\n".join([head, *lines, *(f"warning: {text}" for text in self.warnings)])

    def by_class(self) -> dict[int, tuple[int, float, float]]:
        """Returns for each class that has examples their number, and their clean and robust accuracy in percent."""
        correct, table = self.fooled_by != WRONG, {}
        for label in np.unique(self.labels):
            here = self.labels == label
            size = int(here.sum())
            clean, robust = (100 * int(flags[here].sum()) / size for flags in (correct, self.robust))
            table[int(label)] = (size, clean, robust)
        return table

    def record(self) -> dict[str, Any]:
        """Returns what a leaderboard needs, as `json.dumps` takes it.

        `clean_acc`, `autoattack_acc` and `eps` have the names of RobustBench's model cards; accuracies are in percent.
        The rest tells how they were measured.
        """
        attacks = [
            {
                "name": name,
                "attacked": self.attacked[name],
                "fooled": self.fooled[name],
                "accuracy": accuracy,
                "seconds": round(self.seconds[name], 1),
            }
            for name, accuracy in self.accuracy.items()
        ]
        return {
            "clean_acc": self.clean_accuracy,
            "autoattack_acc": 100 * int(self.robust.sum()) / len(self.robust),
            "eps": self.eps,
            "norm": self.norm,
            "version": self.version,
            "individual": self.individual,
            "surrogate": self.surrogate,
            "num_examples": len(self.robust),
            "num_targets": self.num_targets,
            "attacks": attacks,
            "warnings": list(self.warnings),
            "packages": {name: importlib.metadata.version(name) for name in ("jaxrw", "jax")},
        }


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of an evaluation at one look at its slots.

    Attributes:
      attack: its name.
      size: number of examples.
      robust: number of examples not fooled so far.
      fraction: share of this attack's work that is done, in [0, 1].
      seconds: spent on this attack.
      seconds_left: for this attack, at its average speed so far.
      together: whether all hosts get this report: True at an attack's end, and always on a single host.
    """

    attack: str
    size: int
    robust: int
    fraction: float
    seconds: float
    seconds_left: float
    together: bool
