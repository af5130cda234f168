"""Figures 2, 3 and 4 of the paper for one model, and its logit margins."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxrw.figures import style
from jaxrw.figures.measurement import Arrays, Facts, rate_and_similarity
from jaxrw.methods import margins

_KINDS = {"clean": "clean images", "adversarial": "under PGD-20"}

_BINS = 40
# Percentiles between which a histogram is drawn, so that a few examples do not flatten it.
_SHOWN = (0.5, 99.5)


def draw_margins(facts: Facts, arrays: Arrays) -> Figure:
    """Draws Figure 2: true class probability against margin, correct and incorrect examples in two colors."""

    def points(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rates, _ = rate_and_similarity(logits, labels)
        margin = jax.vmap(margins.probability_margin)(jnp.asarray(logits), jnp.asarray(labels))
        return 1 - rates, np.asarray(margin)

    figure, axes = _draw_both_kinds(facts, arrays, points, "Margin against true class probability")
    for axis in axes:
        axis.axhline(0, color=style.GREY, linewidth=0.8)
        axis.set(xlabel="true class probability $p_y$", ylim=(-1.05, 1.05))
    axes[0].set_ylabel("margin $m = p_y - \\max_{j \\neq y}\\, p_j$")
    return figure


def draw_similarity(facts: Facts, arrays: Arrays) -> Figure:
    """Draws Figure 4: similarity against incorrect rate, with Pearson's r (Eq. 23)."""
    figure, axes = _draw_both_kinds(facts, arrays, rate_and_similarity, "Similarity against incorrect rate")
    for axis, kind in zip(axes, _KINDS, strict=True):
        r = facts["r"][kind]
        words = "not defined" if r is None else f"{r:.3f}"
        axis.set(xlabel="incorrect rate $1 - p_y$", title=f"{_KINDS[kind]}: r = {words}", ylim=(-0.02, 1.04))
    axes[0].set_ylabel("cosine similarity $c$")
    return figure


def draw_logit_margins(facts: Facts, arrays: Arrays) -> Figure:
    """Draws histograms of the margins of the logits, of clean and of adversarial examples.

    Margins that are all close to 0 are a sign of masking: the gradients that PGD follows are then small.
    """
    labels = arrays["labels"]
    values = {
        kind: np.asarray(jax.vmap(margins.logit_margin)(jnp.asarray(arrays[kind]), jnp.asarray(labels)))
        for kind in _KINDS
    }
    finite = np.concatenate([margin[np.isfinite(margin)] for margin in values.values()])
    low, high = np.percentile(finite, _SHOWN) if len(finite) else (-1.0, 1.0)
    edges = np.linspace(min(low, -0.1), max(high, 0.1), _BINS + 1)
    figure, axes = style.create_figure(3.0)
    for (kind, words), color in zip(_KINDS.items(), (style.BLUE, style.ORANGE), strict=True):
        correct = 100 * float((values[kind] > 0).mean())
        known = values[kind][~np.isnan(values[kind])]
        median = f", median {np.median(known):.2f}" if len(known) else ""
        label = f"{words}: {correct:.1f} % correct{median}"
        # Values beyond the edges count in the outermost bins.
        axes.hist(np.clip(values[kind], edges[0], edges[-1]), edges, alpha=0.55, color=color, label=label)
    axes.axvline(0, color=style.GREY, linewidth=0.8)
    axes.set(
        xlabel="logit margin $z_y - \\max_{j \\neq y}\\, z_j$, positive iff correct", ylabel=facts["images"]
    )
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
    axes.legend(loc="upper right")
    figure.suptitle(f"Logit margins ({_describe_model(facts)})", fontsize=10.5)
    return figure


def _draw_both_kinds(
    facts: Facts,
    arrays: Arrays,
    points: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    title: str,
) -> tuple[Figure, Sequence[Axes]]:
    """Draws the points (x, y) of clean and of adversarial examples, from logits and labels, side by side.

    Correct examples are circles, incorrect ones crosses; they are pixels even in an SVG, to keep it small.
    """
    figure, axes = style.create_figure(3.2, columns=2, sharex=True, sharey=True)
    labels = arrays["labels"]
    common: dict[str, Any] = {"rasterized": True, "s": 12, "linewidths": 0.8}
    for axis, kind in zip(axes, _KINDS, strict=True):
        logits = arrays[kind]
        correct = logits.argmax(1) == labels
        x, y = points(logits, labels)
        circles: dict[str, Any] = {"marker": "o", "facecolors": "none", "edgecolors": style.BLUE}
        axis.scatter(x[correct], y[correct], label="correct", **circles, **common)
        axis.scatter(x[~correct], y[~correct], marker="x", color=style.ORANGE, label="incorrect", **common)
        axis.set(title=_KINDS[kind], xlim=(-0.02, 1.02))
    axes[1].legend(loc="lower right", markerscale=1.5)
    figure.suptitle(f"{title} ({_describe_model(facts)})", fontsize=10.5)
    return figure, axes


def draw_distributions(facts: Facts, arrays: Arrays) -> Figure:
    """Draws Figure 3: predicted distributions of the correct examples with the lowest and the highest confidence.

    If no example is correct, it shows incorrect ones; if there is only one, it shows it twice.
    """
    logits, labels = arrays["clean"], arrays["labels"]
    rates, similarities = rate_and_similarity(logits, labels)
    correct = np.flatnonzero(logits.argmax(1) == labels)
    shown = correct if len(correct) else np.arange(len(labels))
    chosen = shown[rates[shown].argmax()], shown[rates[shown].argmin()]
    two = chosen[0] != chosen[1]
    # The p_y of an incorrect example is no confidence: it may be sure of another class.
    words = ("low confidence: ", "high confidence: ") if two and len(correct) else ("", "")
    figure, axes = style.create_figure(2.9, columns=2, sharey=True)
    for axis, example, which in zip(axes, chosen, words, strict=True):
        p = np.asarray(jax.nn.softmax(logits[example]))
        bars = axis.bar(np.arange(len(p)), p, color=style.SKY, width=0.8)
        bars[labels[example]].set_color(style.ORANGE)
        axis.set_title(f"{which}$p_y$ = {p[labels[example]]:.3f}, $c$ = {similarities[example]:.3f}")
        _name_classes(axis, facts["class_names"])
        axis.grid(visible=False, axis="x")
    axes[0].set(ylabel="predicted probability", ylim=(0, 1.03))
    axes[0].legend([bars[labels[chosen[1]]]], ["true class"], loc="upper right")
    kind = "correct" if len(correct) else "incorrect"
    title = f"Two {kind} examples" if two else f"One {kind} example, twice"
    figure.suptitle(f"{title} ({_describe_model(facts)})", fontsize=10.5)
    return figure


def _name_classes(axis: Axes, names: Sequence[str]) -> None:
    """Writes the class names below the bars if they fit."""
    if len(names) > 12:
        axis.set_xlabel("class")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        return
    slanted = max(map(len, names)) > 2
    axis.set_xticks(
        np.arange(len(names)), names, rotation=40 if slanted else 0, ha="right" if slanted else "center"
    )
    axis.set_xlabel("" if slanted else "class")


def _describe_model(facts: Facts) -> str:
    return f"{facts['name']} model, epoch {facts['epoch'] + 1}, {facts['num_examples']:,} {facts['images']}"
