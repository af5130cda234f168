"""One look for all figures: Okabe and Ito's colours, which the colour-blind can tell apart, legible in print."""

import contextlib

import matplotlib as mpl
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#56B4E9", "#5A5A5A"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, "#E69F00", SKY, GREY)
MARKERS = "osD^vPX"

# Lightness alone tells its values apart, on paper too.
COLORMAP = "cividis"

# Width of a page's text in inches.
WIDTH = 7.0

_STYLE = {
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
def style():
    """Within it, figures are drawn in this style; matplotlib's own settings come back after it."""
    with mpl.rc_context(_STYLE):
        yield


def create(height, *, rows=1, columns=1, **settings):
    """Figure of the page's width without a window, and its axes."""
    figure = Figure(figsize=(WIDTH, height))
    return figure, figure.subplots(rows, columns, **settings)


def save(figure, path):
    """Write PATH.png and PATH.svg."""
    figure.savefig(path.with_suffix(".png"), dpi=150, metadata={"Software": None})
    figure.savefig(path.with_suffix(".svg"), dpi=200, metadata={"Date": None})


def eps_words(eps):
    """A radius as the field writes it: 8/255, or 0.1 where it is no whole number of 255ths."""
    whole = round(255 * eps)
    return f"{whole}/255" if abs(255 * eps - whole) < 1e-6 else f"{eps:g}"


def legend_beside(axis):
    """The legend to the right of an axis, where no curve can come."""
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
