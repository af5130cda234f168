"""Accuracies, loss, weights and margins of a training run, by epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxrw import methods
from jaxrw.figures import style
from jaxrw.training import histograms, step

# Lines of metrics.jsonl, and the content of config.json.
Lines = Sequence[Mapping[str, Any]]
Config = Mapping[str, Any]


def draw_curves(lines: Lines, config: Config, best_epoch: int | None) -> Figure:
    """Draws learning curves with the warm-up shaded and every drop of the learning rate marked.

    Args:
      lines: dicts of metrics.jsonl.
      config: the run's config as dicts.
      best_epoch: 0-based, of the best checkpoint; None: there is none.
    """
    train, validation = _of_kind(lines, "train"), _of_kind(lines, "validation")
    figure, axes = style.create_figure(5.6, rows=3, sharex=True, height_ratios=(2.2, 1.2, 1.2))
    series = [("training, under attack", train, "accuracy")]
    series += [
        (
            f"validation, {'clean' if name == 'clean' else name.upper().replace('PGD', 'PGD-')}",
            validation,
            name,
        )
        for name in (validation[0] if validation else {})
        if name not in ("kind", "epoch", "step")
    ]
    for number, (label, found, name) in enumerate(series):
        _line(axes[0], found, name, number, label)
    if best_epoch is not None:
        _mark_best(axes[0], validation, best_epoch)
    axes[0].set(ylabel="accuracy (%)", ylim=(0, 100))
    _line(axes[1], train, "loss", 0, None)
    axes[1].set(ylabel="weighted loss\n(nats)", ylim=(0, None))
    _line(axes[2], train, "mean_weight", 0, "mean weight")
    _line(axes[2], train, "light_share", 1, f"share of weights below {step.LIGHT}")
    axes[2].set(xlabel="epoch", ylabel="weight", ylim=(0, None))
    axes[2].xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in axes:
        _mark_schedule(axis, config, label=axis is axes[0])
    style.legend_beside(axes[0])
    style.legend_beside(axes[2])
    figure.suptitle(f"{_title(config)}, seed {config['seed']}", fontsize=10.5)
    return figure


def draw_weights(lines: Lines, config: Config) -> Figure | None:
    """Draws the distributions of weights and margins by epoch; returns None if the run has no histograms."""
    train = [line for line in _of_kind(lines, "train") if all(name in line for name in histograms.EDGES)]
    if not train:
        return None
    figure, axes = style.create_figure(3.4, columns=2)
    for axis, (name, edges) in zip(axes, reversed(histograms.EDGES.items()), strict=True):
        shares = np.array([line[name] for line in train]).T
        shares = np.where(shares > 0, shares / np.maximum(shares.sum(0), 1), np.nan)
        epochs = np.arange(len(train) + 1) + train[0]["epoch"] + 0.5
        image = axis.pcolormesh(epochs, edges, shares, cmap=style.COLORMAP, norm=LogNorm(1e-3, 1))
        axis.set(xlabel="epoch", title=name)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(visible=False)
        axis.set_facecolor("#F2F2F2")
        _mark_schedule(axis, config, label=False, shade=False)
    axes[0].set(yscale="log", ylabel="weight $\\omega$")
    axes[1].set_ylabel("margin $m$, positive iff correct")
    figure.colorbar(image, ax=axes, label="share of the training examples", extend="min", aspect=30)
    figure.suptitle(f"Weights and margins in training: {_title(config)}", fontsize=10.5)
    return figure


def _title(config: Config) -> str:
    """Returns the method and what it weighs, such as "MAIL-TRADES"."""
    return methods.title(
        methods.METHODS[config["method"]["name"]],
        methods.OBJECTIVES[config["objective"]["name"]],
        perturbs_weights=config["awp"]["gamma"] is not None,
    )


def _of_kind(lines: Lines, kind: str) -> Lines:
    return [line for line in lines if line["kind"] == kind]


def _line(axis: Axes, lines: Lines, name: str, number: int, label: str | None) -> None:
    """Draws one curve; epochs are counted from 1, as on the screen."""
    x = [line["epoch"] + 1 for line in lines if line.get(name) is not None]
    y = [line[name] for line in lines if line.get(name) is not None]
    look: dict[str, Any] = {
        "color": style.CYCLE[number],
        "marker": style.MARKERS[number],
        "linestyle": ("-", "--", "-.")[number % 3],
    }
    axis.plot(x, y, label=label, markersize=3.2, linewidth=1.2, markevery=max(1, len(x) // 20), **look)


def _mark_best(axis: Axes, validation: Lines, best_epoch: int) -> None:
    """Marks the best checkpoint at the accuracy that chose it."""
    found = [line for line in validation if line["epoch"] == best_epoch]
    names = [name for name in (found[0] if found else {}) if name.startswith("pgd")]
    if names:
        where = (best_epoch + 1, found[0][names[0]])
        axis.plot(*where, "*", markersize=12, color="black", fillstyle="none", label="best checkpoint")


def _mark_schedule(axis: Axes, config: Config, *, label: bool, shade: bool = True) -> None:
    """Marks the warm-up and the drops of the learning rate; an epoch's values are measured at its end."""
    warmup, reweighted = (
        config["method"]["warmup_epochs"],
        methods.METHODS[config["method"]["name"]].reweighted,
    )
    num_epochs = config["optim"]["num_epochs"]
    if reweighted and shade and warmup:
        axis.axvspan(
            0.5, min(warmup, num_epochs) + 0.5, color="#EFEFEF", zorder=0, label="warm-up" if label else None
        )
    elif reweighted and warmup:
        axis.axvline(warmup + 0.5, color="white", linewidth=1.4, linestyle="-")
    has_drops = config["optim"]["schedule"] == "milestones"
    drops = [milestone for milestone in config["optim"]["milestones"] if has_drops and milestone < num_epochs]
    for number, milestone in enumerate(drops):
        name = f"learning rate x {config['optim']['decay']:g}" if label and not number else None
        axis.axvline(
            milestone + 0.5, color=style.GREY if shade else "white", linewidth=0.9, linestyle=":", label=name
        )
