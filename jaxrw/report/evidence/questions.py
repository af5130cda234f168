"""Comparisons that the owner of the runs asked for: comparisons.json or comparisons-NAME.json beside the runs.

    [{"rows": ["MAIL", "Standard"], "checkpoints": ["last", "best"], "attacks": ["pgd100", "aa"]}]

Rows are labels of the table of all runs, the first minus the second. Without them, checkpoints are last and attacks are
PGD-100 and AutoAttack. "seeds": [3, 4] compares those alone; without it, all count. Each file is a family of its own: a
table, corrected for the number of its own comparisons.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxrw.attacks.suite import ATTACKS
from jaxrw.report.evidence.comparisons import Comparison, compare, correct_for_number
from jaxrw.report.evidence.groups import Setting
from jaxrw.report.evidence.tables import Accuracy
from jaxrw.runs.results import CHECKPOINTS
from jaxrw.system.errors import UserError

# Title of the table of comparisons.json; that of comparisons-NAME.json has the name too.
_TITLE = "What was asked"


@dataclasses.dataclass(frozen=True)
class Question:
    """Two rows to compare.

    Attributes:
      rows: their labels, minuend first.
      checkpoints: of each row.
      attacks: columns.
      seeds: those that count; None: all that both rows have.
    """

    rows: tuple[str, str]
    checkpoints: tuple[str, str] = ("last", "last")
    attacks: tuple[str, ...] = ("pgd100", "aa")
    seeds: tuple[int, ...] | None = None

    @property
    def words(self) -> str:
        """The rows, with their checkpoints if one of them is not the last."""
        if self.checkpoints == ("last", "last"):
            first, second = self.rows
            return f"{first}{',' if ',' in first else ''} against {second}"
        pairs = zip(self.rows, self.checkpoints, strict=True)
        return " against ".join(f"{row} ({checkpoint})" for row, checkpoint in pairs)


def read_questions(workdir: pathlib.Path) -> dict[str, list[Question]]:
    """Returns the questions of a directory of runs by the titles of their tables, none if it has no such file.

    Raises:
      UserError: a file is not as this module says.
    """
    paths = [*workdir.glob("comparisons.json"), *sorted(workdir.glob("comparisons-*.json"))]
    names = [path.stem.partition("-")[2] for path in paths]
    return {
        f"{_TITLE}: {name}" if name else _TITLE: _read_file(path)
        for name, path in zip(names, paths, strict=True)
    }


def _read_file(path: pathlib.Path) -> list[Question]:
    try:
        entries = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(entries, list):
        raise UserError(f"{path} must be a list of objects")
    return [_read_question(path, entry) for entry in entries]


def _read_question(path: pathlib.Path, entry: Any) -> Question:
    names = [field.name for field in dataclasses.fields(Question)]
    if not (isinstance(entry, dict) and "rows" in entry and set(entry) <= set(names)):
        raise UserError(f"{path} has {entry!r:.60}; must be an object with rows, and of {', '.join(names)}")
    for name, values in entry.items():
        kind, words = (int, "integers") if name == "seeds" else (str, "texts")
        if not (isinstance(values, list) and all(type(value) is kind for value in values)):
            raise UserError(f"{path} has {entry!r:.60}; {name} must be a list of {words}")
    question = Question(**{name: tuple(value) for name, value in entry.items()})
    if len(question.rows) != 2 or len(question.checkpoints) != 2:
        raise UserError(f"{path} has {entry!r:.60}; must have two rows and two checkpoints")
    for values, choices in ((question.checkpoints, CHECKPOINTS), (question.attacks, tuple(ATTACKS))):
        for value in values:
            if value not in choices:
                raise UserError(f"{path} has {value!r:.40}; choose of {', '.join(choices)}")
    return question


def answer(setting: Setting, questions: Sequence[Question]) -> list[Comparison]:
    """Returns the comparisons that were asked for, corrected for the number of all of them; none if no row is here."""
    groups = {setting.label(group): group for group in setting.groups}
    if not any(all(row in groups for row in question.rows) for question in questions):
        return []
    found = []
    for question in questions:
        for attack in question.attacks:
            cells = [
                Accuracy.of(groups.get(row), checkpoint, attack).of_seeds(question.seeds)
                for row, checkpoint in zip(question.rows, question.checkpoints, strict=True)
            ]
            difference = compare(*cells, num_examples=setting.num_examples)
            was_run = all(cell.values for cell in cells)
            found.append(Comparison(question.words, attack, difference, was_run))
    return correct_for_number(found)
