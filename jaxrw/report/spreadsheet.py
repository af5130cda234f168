"""The report's cells as CSV, for a spreadsheet or a program."""

import csv
import io

from jaxrw.report import words

_COLUMNS = [
    "setting",
    "dataset",
    "model",
    "network",
    "eps",
    "num_epochs",
    "differences",
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
    for number, section in enumerate(sections, start=1):
        config = section.setting.config
        of_setting = {
            "setting": number,
            "dataset": config["dataset.name"],
            "model": config["model.name"],
            "network": section.setting.network,
            "eps": config.get("evaluation.eps", ""),
            "num_epochs": config["optim.num_epochs"],
            "differences": words.differences(section),
        }
        for made in section.tables:
            for row in made.rows:
                for cell in row.cells:
                    mean, deviation = cell.published or ("", "")
                    values = of_setting | {
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
