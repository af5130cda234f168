"""All figures of a run, drawn from its files: figures/data.npz and data.json, metrics.jsonl, results.json."""

import pathlib

from jaxrw import runs, settings
from jaxrw.attacks.suite import AUTOATTACK
from jaxrw.figures import learning_curves, margins, measurement, robustness, style, weighting
from jaxrw.system.errors import UserError

# Captions by the names of the files, without suffix, in the order of the report.
FIGURES = {
    "learning_curves": "Learning curves: warm-up shaded, drops of the learning rate dotted, best checkpoint starred",
    "weights": "Weights and margins of the training examples by epoch",
    "robustness": "Robust accuracy under PGD-20 against eps",
    "examples": "Clean images, adversarial images, and what the attack changed",
    "figure2_margins": "Figure 2: true class probability against margin",
    "figure3_distributions": "Figure 3: two predicted distributions and their cosine similarity",
    "figure4_similarity": "Figure 4: similarity against incorrect rate, with Pearson's r",
    "logit_margins": "Margins of the logits, clean and under PGD-20",
    "weighting": "Weights of the paper's methods and of the run's over the probability simplex",
}


# The figure that is drawn last; every run has it.
_LAST = "learning_curves"


def draw_again(workdir: pathlib.Path) -> None:
    """Draws every figure of a run as PNG and SVG from its files, without its model.

    Raises:
      UserError: the run has no usable results.json, or no data of figures.
    """
    directory, results = workdir / "figures", runs.read_results(workdir)
    if results is None:
        raise UserError(f"{workdir} has no usable results.json; evaluate the run first, with --mode evaluate")
    config, lines = results["config"], runs.read_metrics(workdir)
    settings.add_fields(config)
    try:
        facts, arrays = measurement.read(directory)
    except OSError as error:
        raise UserError(
            f"{workdir} has no data of figures; evaluate the run with evaluation.figure_examples above 0"
        ) from error
    facts["settings"] = settings.earlier("evaluation") | facts["settings"]
    facts["images"] = f"{config['dataset']['test_split']} images"
    best, shown = results["checkpoints"].get("best"), results["checkpoints"][facts["name"]]
    autoattack = shown["accuracy"][AUTOATTACK]
    num_classes, num_steps = len(facts["class_names"]), max(1, config["attack"]["num_steps"])
    with style.style():
        figures = {
            "learning_curves": learning_curves.draw_curves(lines, config, best and best["epoch"]),
            "weights": learning_curves.draw_weights(lines, config),
            "robustness": robustness.draw_curve(facts, autoattack, chance=shown.get("chance")),
            "examples": robustness.draw_examples(facts, arrays),
            "figure2_margins": margins.draw_margins(facts, arrays),
            "figure3_distributions": margins.draw_distributions(facts, arrays),
            "figure4_similarity": margins.draw_similarity(facts, arrays),
            "logit_margins": margins.draw_logit_margins(facts, arrays),
            # With two classes, the simplex of (p_y, p_2) is a line.
            "weighting": weighting.draw_weighting(
                config["method"], num_classes=num_classes, num_steps=num_steps
            )
            if num_classes > 2
            else None,
        }
        for name, figure in sorted(figures.items(), key=lambda item: item[0] == _LAST):
            if figure is not None:
                style.save(figure, directory / name)
                continue
            for suffix in (".png", ".svg"):  # Of other settings.
                (directory / f"{name}{suffix}").unlink(missing_ok=True)


def are_drawn(directory: pathlib.Path) -> bool:
    """Returns whether the figures in `directory` have been drawn, to the last, since their data was measured."""
    last, data = directory / f"{_LAST}.png", directory / "data.json"
    return last.is_file() and last.stat().st_mtime >= data.stat().st_mtime


def of_run(workdir: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the existing PNG files of a run by name, in the order of `FIGURES`."""
    paths = {name: workdir / "figures" / f"{name}.png" for name in FIGURES}
    return {name: path for name, path in paths.items() if path.is_file()}
