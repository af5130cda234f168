"""The report's cells as CSV, for a spreadsheet or a program."""

import csv
import io

_COLUMNS = [
    "dataset",
    "model",
    "table",
    "title",
    "checkpoint",
    "row",
    "attack",
    "mean",
    "deviation",
    "num_seeds",
    "seeds",
    "missing_seeds",
    "num_examples",
    "best",
    "improved",
    "paper_mean",
    "paper_deviation",
    "difference",
]


def render(sections):
    """A line a cell, numbers in full; empty where there is none."""
    file = io.StringIO()
    writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for section in sections:
        config = section.setting.config
        for made in section.tables:
            for row in made.rows:
                for cell in row.cells:
                    mean, deviation = cell.published or ("", "")
                    values = {
                        "dataset": config["dataset.name"],
                        "model": config["model.name"],
                        "table": made.number or "",
                        "title": made.title,
                        "checkpoint": made.checkpoint,
                        "row": row.label,
                        "attack": cell.attack,
                        "mean": cell.mean,
                        "deviation": cell.deviation,
                        "num_seeds": len(cell.values),
                        "seeds": " ".join(map(str, sorted(cell.values))),
                        "missing_seeds": " ".join(map(str, cell.missing)),
                        "num_examples": made.setting.num_examples,
                        "best": int(cell.best),
                        "improved": int(cell.improved),
                        "paper_mean": mean,
                        "paper_deviation": deviation,
                        "difference": cell.difference,
                    }
                    writer.writerow({name: _safe(value) for name, value in values.items()})
    return file.getvalue()


def _safe(value):
    """A text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
