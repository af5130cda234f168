"""The weight of every method over the probability simplex, which the paper's Figure 1 only sketches."""

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxrw.figures import style
from jaxrw.methods import METHODS, Method, Weighting
from jaxrw.runs.checks import is_number

# Constants as in formulas; those of a method of one's own have their names.
_SYMBOLS = {
    "lam": r"$\Lambda$",
    "tau": r"$\tau$",
    "alpha": r"$\alpha$",
    "beta": r"$\beta$",
    "gamma": r"$\gamma$",
    "temperature": "$r$",
}


def draw_weighting(
    settings: Mapping[str, Any], *, num_classes: int, num_steps: int, resolution: int = 240
) -> Figure:
    """Draws the weights of the paper's methods and of the run's as color over (p_y, p_2), GAIRAT's over kappa.

    M is included, and nothing is normalized over a batch. The rest of the probability is shared evenly by the other
    classes.

    Args:
      settings: section `method` of a config.
      num_classes: K, at least 3.
      num_steps: steps of the training attack.
      resolution: points along each axis.
    """
    columns = _columns(settings)
    figure, axes = style.create_figure(4.7, rows=2, columns=len(columns), squeeze=False)
    for place, method in np.ndenumerate(np.array(columns, object).T):
        axis = axes[place]
        if method is None:
            axis.set_axis_off()
            continue
        weighting = method.weighting(settings, num_steps=num_steps)
        if _depends_on_logits(weighting, num_classes):
            _draw_simplex(figure, axis, weighting, num_classes, resolution)
        else:
            _draw_steps(axis, weighting, num_classes, num_steps)
        axis.set_title(f"{method.title}\n{_constants(method, settings)}")
    figure.suptitle(f"Weight of an example with K = {num_classes} classes", fontsize=10.5)
    return figure


def _columns(settings: Mapping[str, Any]) -> list[tuple[Method, Method | None]]:
    """Returns the panels by column: a method above the one that reweights its margin, and the others in pairs.

    Without methods that the paper does not have, but for the run's own.
    """
    drawn = [
        method
        for method in reversed(METHODS.values())
        if method.weight is not None
        and method.reweighted
        and (method.name == settings["name"] or not (method.beyond_paper or method.source))
    ]
    pairs: list[tuple[Method, Method | None]] = [
        (METHODS[method.base], method) for method in drawn if method.base
    ]
    paired = {method.name for pair in pairs for method in pair if method}
    rest = [method for method in drawn if method.name not in paired]
    return pairs + list(itertools.zip_longest(rest[::2], rest[1::2]))


def _depends_on_logits(weighting: Weighting, num_classes: int) -> bool:
    """Returns whether two different predictions get different weights."""
    label = kappa = jnp.int32(0)
    first, second = (weighting(logits, label, kappa) for logits in jnp.eye(num_classes)[:2])
    uniform = weighting(jnp.zeros(num_classes), label, kappa)
    return not bool(first == second == uniform)


def weights_on_simplex(weighting: Weighting, *, num_classes: int, resolution: int) -> np.ndarray:
    """Computes weights [R, R] over p_2 (rows) and p_y (columns) in (0, 1); NaN where no distribution has both."""
    grid = (np.arange(resolution) + 0.5) / resolution
    p_y, p_2 = np.meshgrid(grid, grid)
    rest = (1 - p_y - p_2) / (num_classes - 2)
    possible = (rest > -1e-9) & (rest < p_2 + 1e-9)
    # Impossible points get any distribution; their weights are dropped below.
    others = np.broadcast_to(np.where(possible, rest, 1)[..., None], (*rest.shape, num_classes - 2))
    logits = jnp.log(jnp.concatenate([np.stack([p_y, p_2], -1), np.maximum(others, 1e-12)], -1))
    weights = jax.vmap(weighting, (0, None, None))(
        logits.reshape(-1, num_classes), jnp.int32(0), jnp.int32(0)
    )
    return np.where(possible, np.asarray(weights).reshape(rest.shape), np.nan)


def _draw_simplex(
    figure: Figure, axis: Axes, weighting: Weighting, num_classes: int, resolution: int
) -> None:
    """Draws one map with the decision boundary."""
    weights = weights_on_simplex(weighting, num_classes=num_classes, resolution=resolution)
    low, high = np.nanmin(weights), np.nanmax(weights)
    norm = LogNorm(max(low, high / 1e4), high)
    image = axis.imshow(
        weights, origin="lower", extent=(0, 1, 0, 1), cmap=style.COLORMAP, norm=norm, interpolation="nearest"
    )
    outlined = [patheffects.withStroke(linewidth=2, foreground="white")]
    axis.plot([0, 0.5], [0, 0.5], "--", color="black", linewidth=1, path_effects=outlined)
    for words, where in (("correct", (0.5, 0.2)), ("wrong", (0.22, 0.55))):
        axis.text(*where, words, ha="center", fontsize=7.5, path_effects=outlined)
    axis.set(xlabel="$p_y$", ylabel="$p_2$", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axis.grid(visible=False)
    bar = figure.colorbar(image, ax=axis, fraction=0.046, extend="min" if low < high / 1e4 else "neither")
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if high < 10 * low else "")


def _draw_steps(axis: Axes, weighting: Weighting, num_classes: int, num_steps: int) -> None:
    """Draws weights that depend on kappa and not on the prediction, as GAIRAT's do."""
    kappa = jnp.arange(num_steps + 1)
    logits = jnp.zeros(num_classes)
    weights = jax.vmap(weighting, (None, None, 0))(logits, jnp.int32(0), kappa)
    axis.bar(np.asarray(kappa), np.asarray(weights), color=style.BLUE)
    axis.set(xlabel="attack steps withstood, $\\kappa$", ylabel="weight")
    axis.set_box_aspect(1)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _format(value: object) -> str:
    """Returns a number in few digits; anything else, as a method of one's own may have it, as it is."""
    return f"{value:g}" if is_number(value) else str(value)


def _constants(method: Method, settings: Mapping[str, Any]) -> str:
    """Returns the constants that a method's weight depends on, without M."""
    numbers = [name for name in method.constants if name not in ("multiplier", "similarity")]
    words = [f"{_SYMBOLS.get(name, name)} = {_format(settings[name])}" for name in numbers]
    words += ["no $c$"] if "similarity" in method.constants and not settings["similarity"] else []
    return ", ".join(words) or method.formula
