"""Results of runs as tables."""

import pathlib

from jaxrw import runs
from jaxrw.attacks.suite import ATTACKS
from jaxrw.errors import UserError

_TITLES = {
    "clean": "Clean",
    "fgsm": "FGSM",
    "pgd20": "PGD-20",
    "pgd100": "PGD-100",
    "cw_pgd": "CW-PGD",
    "apgd_ce": "APGD-CE",
    "aa": "AA",
}


def run(workdir):
    """Table in Markdown of every results.json below `workdir`, a row a checkpoint, accuracies in percent.

    Raises:
      UserError: there is none.
    """
    found = sorted(pathlib.Path(workdir).glob("**/results.json"))
    results = {path.parent: runs.read_results(path.parent) for path in found}
    readable = {str(path.relative_to(workdir)): content for path, content in results.items() if content}
    if not readable:
        raise UserError(f"--workdir {workdir} has no results.json below it; train or evaluate first")
    return table(readable)


def table(results):
    """Markdown table of results by run; "not run" stands where an attack was not run.

    Args:
      results: dict from a run's name to the content of its results.json.
    """
    rows = [("run", "method", "checkpoint", "epoch", "images", *(_TITLES[name] for name in ATTACKS))]
    for run_name, content in results.items():
        for name, checkpoint in content["checkpoints"].items():
            if checkpoint:
                cells = [
                    "not run" if checkpoint["accuracy"].get(attack) is None else f"{checkpoint['accuracy'][attack]:.2f}"
                    for attack in ATTACKS
                ]
                method = content["config"]["method"]["name"]
                counts = (str(checkpoint["epoch"] + 1), f"{checkpoint['num_examples']:,}")
                rows.append((run_name, method, name, *counts, *cells))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(_align(cell, width, i) for i, (cell, width) in enumerate(zip(row, widths, strict=True))) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 1) + (":" if i > 2 else "-") for i, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _align(cell, width, column):
    """Names to the left, numbers to the right."""
    return cell.ljust(width) if column <= 2 else cell.rjust(width)
