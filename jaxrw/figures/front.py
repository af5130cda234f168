"""Accuracy under the strongest attack against that under others: the front that a new method has to pass."""

import dataclasses
import itertools
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxrw.figures import style

# Height in inches of a line of a label, and of a panel with few of them; the latter's part above and below the axis.
_LINE_HEIGHT = 0.15
_PANEL_HEIGHT = 3.2
_EDGES = 0.7
# Characters in a line of a label.
_LINE_LENGTH = 34


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean accuracy in percent, and half of its 95 % interval over the seeds; None: too few seeds for one."""

    mean: float
    half_interval: float | None = None


@dataclasses.dataclass(frozen=True)
class Point:
    """A row of a table.

    Attributes:
      label: its name.
      across: accuracy under the attack of the horizontal axis.
      up: accuracy under the strongest attack.
    """

    label: str
    across: Estimate
    up: Estimate


def draw_front(panels: Mapping[str, Sequence[Point]], *, up: str, diagonal: str) -> Figure:
    """Draws a panel for each attack: points with 95 % intervals; a grey line joins those that no other one passes.

    Args:
      panels: points by the title of the horizontal axis' attack; a label has the same color in every panel.
      up: title of the vertical axis' attack.
      diagonal: title of the panel in which the line of equal accuracies is drawn.
    """
    # By height, so that neighbors have different colors.
    ordered = sorted(itertools.chain(*panels.values()), key=lambda point: -point.up.mean)
    labels = list(dict.fromkeys(point.label for point in ordered))
    looks = {
        label: (
            style.CYCLE[i % len(style.CYCLE)],
            style.MARKERS[(i + i // len(style.CYCLE)) % len(style.MARKERS)],
        )
        for i, label in enumerate(labels)
    }
    height = max(_PANEL_HEIGHT, *(sum(map(_label_height, points)) + _EDGES for points in panels.values()))
    figure, axes = style.create_figure(height * len(panels), rows=len(panels), squeeze=False)
    for axis, (title, points) in zip(axes[:, 0], panels.items(), strict=True):
        _draw_panel(axis, title, up, points, looks)
        _write_labels(axis, points, looks, height=height - _EDGES)
        if title == diagonal:
            _draw_diagonal(axis, title, up)
    words = "Grey: the front, which no method passes in both. Hollow: too few seeds for an interval"
    axes[0, 0].set_title(words, loc="left")
    return figure


def find_front(points: Sequence[Point]) -> list[Point]:
    """Returns the points that no other one passes in both accuracies, by the first of them.

    A point passes another if it is at least as high in both and higher in one.
    """

    def passes(other: Point, point: Point) -> bool:
        ahead = other.across.mean - point.across.mean, other.up.mean - point.up.mean
        return min(ahead) >= 0 and max(ahead) > 0

    front = [point for point in points if not any(passes(other, point) for other in points)]
    return sorted(front, key=lambda point: (point.across.mean, -point.up.mean))


def _draw_panel(
    axis: Axes, title: str, up: str, points: Sequence[Point], looks: Mapping[str, tuple[str, str]]
) -> None:
    front = find_front(points)
    axis.plot(
        [point.across.mean for point in front],
        [point.up.mean for point in front],
        "o-",
        color="#C4C4C4",
        linewidth=4,
        markersize=13,
        markeredgewidth=0,
        zorder=1.5,
    )
    for point in points:
        color, marker = looks[point.label]
        few = point.up.half_interval is None or point.across.half_interval is None
        axis.errorbar(
            point.across.mean,
            point.up.mean,
            xerr=point.across.half_interval,
            yerr=point.up.half_interval,
            fmt=marker,
            markersize=6,
            color=color,
            markerfacecolor="white" if few else color,
            elinewidth=0.8,
            capsize=2,
            zorder=3,
        )
    for reach in (axis.set_xlim, axis.set_ylim):
        estimates = [point.across if reach == axis.set_xlim else point.up for point in points]
        low = min(e.mean - (e.half_interval or 0) for e in estimates)
        high = max(e.mean + (e.half_interval or 0) for e in estimates)
        margin = 0.05 * (high - low) or 1.0
        reach(low - margin, high + margin)
    axis.set(xlabel=f"{title} accuracy (%)", ylabel=f"{up} accuracy (%)")


def _draw_diagonal(axis: Axes, title: str, up: str) -> None:
    limits = axis.get_xlim(), axis.get_ylim()
    axis.axline((0, 0), slope=1, color=style.GREY, linestyle="--", linewidth=0.9, zorder=1)
    axis.set(xlim=limits[0], ylim=limits[1])
    # The middle of what is seen of it.
    low, high = max(limits[0][0], limits[1][0]), min(limits[0][1], limits[1][1])
    if low < high:
        axis.annotate(
            f"{up} = {title}",
            ((low + high) / 2,) * 2,
            xytext=(-4, 4),
            textcoords="offset points",
            ha="right",
            fontsize=7.5,
            color=style.GREY,
        )


def _wrap(point: Point) -> str:
    """Returns the label in lines that end after a comma, if it has some."""
    whole = point.label.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
    return textwrap.fill(whole, _LINE_LENGTH)


def _label_height(point: Point) -> float:
    """Returns the height of a label in inches, with a little room."""
    return _LINE_HEIGHT * (_wrap(point).count("\n") + 1) + 0.015


def _write_labels(
    axis: Axes, points: Sequence[Point], looks: Mapping[str, tuple[str, str]], *, height: float
) -> None:
    """Writes the labels in a column beside the axis in the order of the points' heights, with a line to each.

    Args:
      axis: with its limits.
      points: at least one.
      looks: color and marker of each label.
      height: of the axis in inches.
    """
    ordered = sorted(points, key=lambda point: (point.up.mean, point.across.mean))
    low, high = axis.get_ylim()
    wanted = [(point.up.mean - low) / (high - low) for point in ordered]
    heights = [_label_height(point) / height for point in ordered]
    for point, place in zip(ordered, _spread(wanted, heights), strict=True):
        color = looks[point.label][0]
        axis.annotate(
            _wrap(point),
            (point.across.mean, point.up.mean),
            xytext=(1.03, place),
            textcoords="axes fraction",
            va="center",
            fontsize=7.5,
            color=color,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),
                "color": color,
                "linewidth": 0.5,
                "alpha": 0.45,
                "shrinkA": 1,
                "shrinkB": 4,
            },
        )


def _spread(places: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Moves the middles of labels, ascending in [0, 1], apart until none overlaps, first upwards, then down again."""
    moved = np.array(places, float)
    gaps = (np.array(heights)[1:] + np.array(heights)[:-1]) / 2
    for i, gap in enumerate(gaps):
        moved[i + 1] = max(moved[i + 1], moved[i] + gap)
    moved[-1] = min(moved[-1], 1 - heights[-1] / 2)
    for i, gap in reversed(list(enumerate(gaps))):
        moved[i] = min(moved[i], moved[i + 1] - gap)
    return moved.tolist()
