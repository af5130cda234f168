"""Every weighting function over the probability simplex, which the paper's Figure 1 only sketches."""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import patheffects
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from jaxrw import reweighting
from jaxrw.figures import style

_TITLES = {
    "mail": "MAIL",
    "wmmr": "WMMR",
    "ewat": "EWAT",
    "ours_mail": "Ours+MAIL",
    "ours_wmmr": "Ours+WMMR",
    "gairat": "GAIRAT",
}


def draw(method, *, num_classes, num_steps, resolution=240):
    """Weights before normalising, M included, as colour over (p_y, p_2); GAIRAT's over kappa.

    What p_y and p_2 leave is shared evenly by the other classes.

    Args:
      method: dict of the section `method` of a config.
      num_classes: K, at least 3.
      num_steps: steps of the training attack.
      resolution: points along each axis.
    """
    fields = {
        name: method[name] for name in ("tau", "similarity", "beta", "gamma", "alpha", "multiplier", "lam")
    }
    figure, axes = style.create(4.7, rows=2, columns=3)
    for axis, name in zip(axes.flat, _TITLES, strict=True):
        weighting = reweighting.create(name, num_steps=num_steps, **fields)
        if name == "gairat":
            _draw_steps(axis, weighting, num_classes, num_steps)
        else:
            _draw_simplex(figure, axis, weighting, num_classes, resolution)
        axis.set_title(f"{_TITLES[name]}{_constants(name, method)}")
    figure.suptitle(f"Weight of an example with K = {num_classes} classes", fontsize=10.5)
    return figure


def weights_on_simplex(weighting, *, num_classes, resolution):
    """Weights [R, R] over p_2 (rows) and p_y (columns), both in (0, 1); NaN where no distribution has the two."""
    grid = (np.arange(resolution) + 0.5) / resolution
    p_y, p_2 = np.meshgrid(grid, grid)
    rest = (1 - p_y - p_2) / (num_classes - 2)
    possible = (rest > -1e-9) & (rest < p_2 + 1e-9)
    # What is not possible is computed all the same, from anything, and thrown away.
    others = np.broadcast_to(np.where(possible, rest, 1)[..., None], (*rest.shape, num_classes - 2))
    logits = jnp.log(jnp.concatenate([np.stack([p_y, p_2], -1), np.maximum(others, 1e-12)], -1))
    weights = jax.vmap(weighting.weight, (0, None, None))(
        logits.reshape(-1, num_classes), jnp.int32(0), jnp.int32(0)
    )
    return np.where(possible, np.asarray(weights).reshape(rest.shape), np.nan)


def _draw_simplex(figure, axis, weighting, num_classes, resolution):
    """One map with its contours and the decision boundary."""
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


def _draw_steps(axis, weighting, num_classes, num_steps):
    """GAIRAT's weights, which know the attack's steps and not the prediction."""
    kappa = jnp.arange(num_steps + 1)
    logits = jnp.zeros(num_classes)
    weights = jax.vmap(weighting.weight, (None, None, 0))(logits, jnp.int32(0), kappa)
    axis.bar(np.asarray(kappa), np.asarray(weights), color=style.BLUE)
    axis.set(xlabel="attack steps withstood, $\\kappa$", ylabel="weight")
    axis.set_box_aspect(1)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _constants(name, method):
    """The constants that a method's weights depend on."""
    shown = {"mail": ("beta", "gamma"), "wmmr": ("alpha",), "gairat": ("lam",)}
    shown |= {"ours_mail": ("tau", "beta"), "ours_wmmr": ("tau",)}
    signs = {"lam": "\\Lambda"}
    words = [f"${signs.get(field, chr(92) + field)}$ = {method[field]:g}" for field in shown.get(name, ())]
    words += ["no $c$"] if name.startswith("ours") and not method["similarity"] else []
    return f"\n{', '.join(words)}" if words else "\nentropy in nats" if name == "ewat" else ""
