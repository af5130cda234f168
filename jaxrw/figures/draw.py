"""All figures of a run, drawn from what it has kept: data.npz, data.json, metrics.jsonl."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrw import runs
from jaxrw.figures import learning_curves, margins, measurement, robustness, style, weighting
from jaxrw.system.errors import UserError

# Names of the files without their endings, in the order a page shows them, with what they show.
FIGURES = {
    "learning_curves": "Learning curves: warm-up shaded, drops of the learning rate dotted, best checkpoint starred",
    "weights": "Weights and margins of the training examples by epoch",
    "robustness": "Robust accuracy under PGD-20 against eps",
    "examples": "Clean images, adversarial images, and what the attack changed",
    "figure2_margins": "Figure 2: true class probability against margin",
    "figure3_distributions": "Figure 3: two predicted distributions and their cosine similarity",
    "figure4_similarity": "Figure 4: similarity against incorrect rate, with Pearson's r",
    "weighting": "Every method's weight over the probability simplex, with this run's constants",
}


def draw(
    directory: pathlib.Path,
    *,
    config: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    results: Mapping[str, Any],
) -> None:
    """Writes every figure as PNG and SVG into `directory`, which holds what `measure` saved.

    Args:
      directory: path.
      config: the run's config as dicts, as config.json holds it.
      lines: dicts of metrics.jsonl.
      results: content of results.json.
    """
    facts, arrays = measurement.read(directory)
    best = results["checkpoints"].get("best")
    num_classes = len(facts["class_names"])
    autoattack = results["checkpoints"][facts["name"]]["accuracy"]["aa"]
    with style.style():
        figures = {
            "learning_curves": learning_curves.draw_curves(lines, config, best and best["epoch"]),
            "weights": learning_curves.draw_weights(lines, config),
            "robustness": robustness.draw_curve(facts, autoattack),
            "examples": robustness.draw_examples(facts, arrays),
            "figure2_margins": margins.draw_margins(facts, arrays),
            "figure3_distributions": margins.draw_distributions(facts, arrays),
            "figure4_similarity": margins.draw_similarity(facts, arrays),
            "weighting": weighting.draw(
                config["method"], num_classes=num_classes, num_steps=max(1, config["attack"]["num_steps"])
            )
            if num_classes > 2
            else None,
        }
        for name in FIGURES:
            figure = figures[name]
            if figure is not None:
                style.save(figure, directory / name)


def of_run(workdir: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the existing PNG files of a run by name, in the order of `FIGURES`."""
    paths = {name: workdir / "figures" / f"{name}.png" for name in FIGURES}
    return {name: path for name, path in paths.items() if path.is_file()}


def draw_again(workdir: pathlib.Path) -> None:
    """Draws the figures of a run again from its files, without its model.

    Raises:
      UserError: the run has no usable results.json.
    """
    results = runs.read_results(workdir)
    if results is None:
        raise UserError(f"{workdir} has no usable results.json; evaluate the run first, with --mode evaluate")
    draw(workdir / "figures", config=results["config"], lines=runs.read_metrics(workdir), results=results)
