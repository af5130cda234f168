"""Best checkpoints beside last ones: how much of a method's gain is overfitting that did not happen."""

import dataclasses

from jaxrw.report.evidence.groups import Setting
from jaxrw.report.evidence.tables import Accuracy, was_attacked
from jaxrw.runs.results import CHECKPOINTS

# Columns.
ATTACKS = ("clean", "pgd100", "aa")


@dataclasses.dataclass(frozen=True)
class Line:
    """A method with both of its checkpoints.

    Attributes:
      label: of the method.
      epochs: of the best checkpoints, counted from 1, as "38" or "38-41".
      cells: for each of `ATTACKS` the accuracies of the last and the best checkpoint.
    """

    label: str
    epochs: str
    cells: list[list[Accuracy]]


def best_beside_last(setting: Setting) -> list[Line]:
    """Returns a line for each method that has both checkpoints; none if no best checkpoint was attacked.

    Best checkpoints of the warm-up are here too: of Standard's training they are what stopping early gives.
    """
    if not all(was_attacked(setting, name) for name in CHECKPOINTS):
        return []
    lines = []
    for group in setting.groups:
        cells = [[Accuracy.of(group, name, attack) for name in CHECKPOINTS] for attack in ATTACKS]
        epochs = sorted(epoch + 1 for epoch in group.epochs("best").values())
        # Both were attacked, not one of them on clean images alone.
        if epochs and all(any(pair[place].values for pair in cells[1:]) for place in range(2)):
            words = f"{epochs[0]}" if epochs[0] == epochs[-1] else f"{epochs[0]}-{epochs[-1]}"
            lines.append(Line(setting.label(group), words, cells))
    return lines
