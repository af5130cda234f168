"""Results of single runs as a table for the terminal."""

from jaxrw.attacks.suite import ATTACKS

# Columns up to this one hold names, those after it numbers.
_TEXT = 2


def table(results):
    """Markdown table of results by run; "not run" stands where an attack was not run.

    Args:
      results: dict from a run's name to the content of its results.json.
    """
    rows = [
        ("run", "method", "checkpoint", "epoch", "images", *(attack.title for attack in ATTACKS.values()))
    ]
    for run_name, content in results.items():
        for name, checkpoint in content["checkpoints"].items():
            if checkpoint:
                cells = [
                    "not run"
                    if checkpoint["accuracy"].get(attack) is None
                    else f"{checkpoint['accuracy'][attack]:.2f}"
                    for attack in ATTACKS
                ]
                # A network that was trained elsewhere has neither method nor epoch here.
                method = content["config"].get("method", {}).get("name", "-")
                epoch = str(checkpoint["epoch"] + 1) if "epoch" in checkpoint else "-"
                counts = (epoch, f"{checkpoint['num_examples']:,}")
                rows.append((run_name, method, name, *counts, *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, *rest = [_line(row, widths) for row in rows]
    rule = "|" + "|".join("-" * (w + 1) + (":" if i > _TEXT else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([first, rule, *rest])


def _line(row, widths):
    """One row: names to the left, numbers to the right."""
    cells = [
        cell.ljust(width) if column <= _TEXT else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return f"| {' | '.join(cells)} |"
