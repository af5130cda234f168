"""Accuracies of single runs as a table for the terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxrw import settings
from jaxrw.attacks.suite import ATTACKS
from jaxrw.runs.results import Results

# Number of columns on the left that hold names; the others hold numbers.
_NUM_NAMES = 3


def table(results: Mapping[str, Results]) -> str:
    """Returns a Markdown table of accuracies in percent.

    Args:
      results: contents of results.json by the names of runs.
    """
    measured = {
        attack
        for content in results.values()
        for checkpoint in content["checkpoints"].values()
        for attack, value in (checkpoint["accuracy"].items() if checkpoint else ())
        if value is not None
    }
    attacks = [name for name, attack in ATTACKS.items() if not attack.extra or name in measured]
    titles = (ATTACKS[attack].title for attack in attacks)
    rows = [("run", "method", "checkpoint", "epoch", "images", *titles)]
    for run_name, content in results.items():
        for name, checkpoint in content["checkpoints"].items():
            if checkpoint:
                # Weights that were trained elsewhere have neither method nor epoch.
                method = _describe_method(settings.completed(settings.flatten(content["config"])))
                epoch = str(checkpoint["epoch"] + 1) if "epoch" in checkpoint else "-"
                accuracies = (checkpoint["accuracy"].get(attack) for attack in attacks)
                cells = ("not run" if value is None else f"{value:.2f}" for value in accuracies)
                rows.append((run_name, method, name, epoch, f"{checkpoint['num_examples']:,}", *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = [
        "-" * (width + 2) if column < _NUM_NAMES else "-" * (width + 1) + ":"
        for column, width in enumerate(widths)
    ]
    header, *lines = [_line(row, widths) for row in rows]
    return "\n".join([header, f"|{'|'.join(rule)}|", *lines])


def _describe_method(config: Mapping[str, Any]) -> str:
    """Returns method, objective and AWP by their names in configs, as mail-trades-awp."""
    names = [config.get("method.name", "-")]
    names += [config["objective.name"]] if config["objective.name"] != "standard" else []
    names += ["awp"] if config["awp.gamma"] is not None else []
    return "-".join([*names, config["average.name"]] if config["average.name"] != "none" else names)


def _line(row: Iterable[str], widths: Iterable[int]) -> str:
    cells = [
        cell.ljust(width) if column < _NUM_NAMES else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return f"| {' | '.join(cells)} |"
