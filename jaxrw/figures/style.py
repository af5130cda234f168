"""One style for all figures, legible in print, with the colors of Okabe and Ito for color-blind readers."""

import contextlib
import io
import pathlib
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from jaxrw.system import files

BLUE, ORANGE, GREEN, PURPLE, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#56B4E9", "#5A5A5A"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, "#E69F00", SKY, GREY)
MARKERS = "osD^vPX"

# Lightness alone tells its values apart, on paper too.
COLORMAP = "cividis"

# Width of a page's text in inches.
WIDTH = 7.0

_STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "jaxrw",  # the same data give the same file
    "svg.fonttype": "path",
    "figure.constrained_layout.use": True,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Applies this style within a `with` block, and restores matplotlib's settings after it."""
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # matplotlib lists every key by name
        yield


def create_figure(height: float, *, rows: int = 1, columns: int = 1, **settings: Any) -> tuple[Figure, Any]:
    """Returns a figure of the page's width, `height` inches high, and its axes: one, or an array of them."""
    figure = Figure(figsize=(WIDTH, height))
    return figure, figure.subplots(rows, columns, **settings)


def save(figure: Figure, path: pathlib.Path, *, few_colors: bool = False) -> None:
    """Writes PATH.png and PATH.svg, each atomically.

    Args:
      figure: what is drawn.
      path: without a suffix.
      few_colors: whether 256 colors are enough for the PNG, which then has a third of the size.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150, metadata={"Software": None})
    with files.replacing(path.with_suffix(".png")) as file:
        if few_colors:
            image = Image.open(content).convert("RGB").quantize(256, dither=Image.Dither.NONE)
            image.save(file, "png", optimize=True)
        else:
            file.write(content.getvalue())
    with files.replacing(path.with_suffix(".svg")) as file:
        figure.savefig(file, format="svg", dpi=200, metadata={"Date": None})


def format_eps(eps: float) -> str:
    """Returns a radius as "8/255", or as "0.1" if it is not a multiple of 1/255."""
    whole = round(255 * eps)
    return f"{whole}/255" if abs(255 * eps - whole) < 1e-6 else f"{eps:g}"


def unit_of(eps: float) -> tuple[float, str]:
    """Returns the unit that `format_eps` writes a radius in, in pixel units of [0, 1], and its words for an axis."""
    if format_eps(eps).endswith("/255"):
        return 1 / 255, "1/255 of the pixel range"
    return 1.0, "share of the pixel range"


def legend_beside(axis: Axes) -> None:
    """Puts the legend to the right of the axis, where it hides no curve."""
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
