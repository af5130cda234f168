"""Examples with their perturbations, and robust accuracy against eps."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxrw.attacks import norms
from jaxrw.figures import style
from jaxrw.figures.measurement import Arrays, Facts


def draw_examples(facts: Facts, arrays: Arrays) -> Figure:
    """Draws clean images, their adversarial images, and the perturbation magnified, each with its prediction."""
    clean, adversarial = arrays["images"] / np.float32(255), arrays["adversarial_images"]
    eps, chosen = facts["settings"]["eps"] or 1 / 255, arrays["chosen"]
    norm = norms.get(facts["settings"]["norm"])
    # From -eps..eps to 0..1: grey is no change. In another norm, from the largest change of a pixel.
    largest = eps if norm.name == "linf" else float(np.abs(adversarial - clean).max()) or 1 / 255
    perturbations = 0.5 + (adversarial - clean) / (2 * largest)
    predictions = {row: arrays[row][chosen].argmax(1) for row in ("clean", "adversarial")}
    figure, axes = style.create_figure(3.35, rows=3, columns=len(chosen), squeeze=False)
    for column, label in enumerate(arrays["labels"][chosen]):
        for row, images in enumerate((clean, adversarial, np.clip(perturbations, 0, 1))):
            _show(axes[row, column], images[column])
        for row, name in enumerate(predictions):
            _set_title(axes[row, column], predictions[name][column], label, facts["class_names"])
    rows = ("clean", f"PGD-{facts['num_steps']}", f"change\nx {1 / (2 * largest):.3g}")
    for axis, name in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(name)
    radius = style.format_eps(eps) if norm.name == "linf" else f"{eps:.4g} ({norm.title})"
    title = f"Predictions at eps = {radius}; orange where wrong"
    figure.suptitle(f"{title}\n{_describe_choice(facts, arrays)}", fontsize=9)
    return figure


def _describe_choice(facts: Facts, arrays: Arrays) -> str:
    """Says how `measurement` chose the examples, and how many of all images withstand the attack."""
    images, labels, chosen = facts["images"], arrays["labels"], arrays["chosen"]
    withstand = arrays["adversarial"].argmax(1) == labels
    if not (arrays["clean"].argmax(1) == labels).any():
        return f"The first {len(chosen)} {images}, since none is classified correctly"
    number = int(withstand[chosen].sum())
    kinds = [
        (number, "withstand the attack"),
        (len(chosen) - number, "it fools" if number else "the attack fools"),
    ]
    first = " and ".join(f"the first {count} that {what}" for count, what in kinds if count)
    return f"{first[0].upper()}{first[1:]}; {100 * withstand.mean():.1f} % of {len(labels):,} {images} withstand it"


def draw_curve(facts: Facts, autoattack: float | None, *, chance: float | None) -> Figure | None:
    """Draws robust accuracy under PGD-20 against eps with 95 % intervals; returns None if there is no curve.

    Args:
      facts: as `measure` saved them, and `images`, as "test images".
      autoattack: accuracy in percent under AutoAttack at the evaluation's eps; None: not run.
      chance: accuracy in percent of always answering one class; None: not known.
    """
    if not facts["curve"]:
        return None
    eps, accuracy = np.array(sorted(facts["curve"])).T
    norm = norms.get(facts["settings"]["norm"])
    low, high = wilson(accuracy / 100, facts["num_examples"])
    figure, axis = style.create_figure(3.3)
    unit, words = (
        style.unit_of(facts["settings"]["eps"]) if norm.name == "linf" else (1.0, f"{norm.title} norm")
    )
    axis.fill_between(eps / unit, 100 * low, 100 * high, color=style.BLUE, alpha=0.18, linewidth=0)
    axis.plot(eps / unit, accuracy, "o-", color=style.BLUE, label=f"PGD-{facts['num_steps']}, 95 % interval")
    at = facts["settings"]["eps"] / unit
    axis.axvline(at, color=style.GREY, linestyle=":", linewidth=1, label="eps of the evaluation")
    if autoattack is not None:
        axis.plot(
            at, autoattack, "*", markersize=11, color=style.ORANGE, label=f"AutoAttack, all {facts['images']}"
        )
    else:
        axis.plot([], [], " ", label="AutoAttack: not run")
    if chance is not None:
        axis.axhline(chance, color=style.GREY, linewidth=0.8, linestyle="--", label="always one class")
    axis.set(xlabel=f"radius eps ({words})", ylabel="robust accuracy (%)", ylim=(0, 100))
    axis.set_xlim(0, None)
    style.legend_beside(axis)
    examples = f"{facts['name']} model, {facts['num_examples']:,} {facts['images']}"
    axis.set_title(f"Robust accuracy against the radius of the attack ({examples})")
    return figure


def wilson(share: np.ndarray, size: int, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """Computes the bounds of Wilson's interval, in [0, 1], for a share of `size` draws; both shaped as `share`."""
    middle = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


def _show(axis: Axes, image: np.ndarray) -> None:
    """Shows one image without axes."""
    axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=(), yticks=())
    axis.grid(visible=False)
    for side in axis.spines.values():
        side.set_visible(False)


def _set_title(axis: Axes, prediction: int, label: int, names: Sequence[str]) -> None:
    """Writes the predicted class above an image; if it is wrong, in orange and with the true one."""
    wrong = prediction != label
    words = f"{names[prediction]}\nnot {names[label]}" if wrong else names[prediction]
    axis.set_title(words, fontsize=7.5, color=style.ORANGE if wrong else "black", pad=3)
