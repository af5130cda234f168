"""The report's accuracies and comparisons as CSV, for a spreadsheet or a program."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxrw.report.evidence.comparisons import Comparison
from jaxrw.report.evidence.groups import Setting
from jaxrw.report.evidence.tables import Accuracy, AccuracyTable, Row
from jaxrw.report.sections import describe_differences


class _Entry(NamedTuple):
    """An accuracy and where it stands; settings count from 1."""

    number: int
    setting: Setting
    differences: str
    table: AccuracyTable
    row: Row
    cell: Accuracy


_COLUMNS: dict[str, Callable[[_Entry], object]] = {
    "setting": lambda entry: entry.number,
    "dataset": lambda entry: entry.setting.config["dataset.name"],
    "data": lambda entry: entry.setting.data,
    "model": lambda entry: entry.setting.config["model.name"],
    "network": lambda entry: entry.setting.network,
    "norm": lambda entry: entry.setting.config.get("evaluation.norm"),
    "eps": lambda entry: entry.setting.config.get("evaluation.eps"),
    "num_epochs": lambda entry: entry.setting.config["optim.num_epochs"],
    "differences": lambda entry: entry.differences,
    "table": lambda entry: entry.table.number,
    "title": lambda entry: entry.table.title,
    "checkpoint": lambda entry: entry.table.checkpoint,
    "row": lambda entry: entry.row.label,
    "attack": lambda entry: entry.cell.attack,
    "mean": lambda entry: entry.cell.mean,
    "deviation": lambda entry: entry.cell.deviation,
    "num_seeds": lambda entry: len(entry.cell.values),
    "seeds": lambda entry: " ".join(map(str, sorted(entry.cell.values))),
    "missing_seeds": lambda entry: " ".join(map(str, entry.cell.missing)),
    "num_examples": lambda entry: entry.setting.num_examples,
    "best": lambda entry: int(entry.cell.best),
    "improved": lambda entry: int(entry.cell.improved),
    "paper_mean": lambda entry: entry.cell.published and entry.cell.published[0],
    "paper_deviation": lambda entry: entry.cell.published and entry.cell.published[1],
    "difference": lambda entry: entry.cell.difference,
}

_COMPARISON_COLUMNS: dict[str, Callable[[Comparison], object]] = {
    "rows": lambda comparison: comparison.words,
    "table": lambda comparison: comparison.table,
    "attack": lambda comparison: comparison.attack,
    "paper": lambda comparison: comparison.published,
    "mean": lambda comparison: comparison.difference.mean,
    "half_interval": lambda comparison: comparison.difference.half_interval,
    "over_images": lambda comparison: int(comparison.difference.over_images),
    "p_value": lambda comparison: comparison.difference.p_value,
    "corrected": lambda comparison: comparison.corrected,
    "verdict": lambda comparison: comparison.verdict,
    "by_seed": lambda comparison: " ".join(
        f"{seed}:{value:.6g}" for seed, value in comparison.difference.by_seed.items()
    ),
}


def render_csv(settings: Iterable[tuple[Setting, list[AccuracyTable]]]) -> str:
    """Returns a line for each accuracy, with numbers in full; empty for what is missing."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for number, (setting, tables) in enumerate(settings, start=1):
        differences = describe_differences(setting)
        for table in tables:
            for row in table.rows:
                for cell in row.cells:
                    entry = _Entry(number, setting, differences, table, row, cell)
                    writer.writerow(_without_formula(value(entry)) for value in _COLUMNS.values())
    return file.getvalue()


def render_comparisons(settings: Iterable[Mapping[str, Sequence[Comparison]]]) -> str:
    """Returns a line for each comparison, with numbers in full and every seed; empty for what is missing.

    Args:
      settings: comparisons of each setting by the titles of their tables.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("setting", "title", *_COMPARISON_COLUMNS))
    for number, tables in enumerate(settings, start=1):
        for title, comparisons in tables.items():
            for comparison in comparisons:
                values = (value(comparison) for value in _COMPARISON_COLUMNS.values())
                writer.writerow((number, title, *map(_without_formula, values)))
    return file.getvalue()


def _without_formula(value: object) -> object:
    """Quotes text that a spreadsheet would take for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
