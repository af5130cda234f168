"""The pictures of a run: what they show is measured once and kept, so that they can be drawn again without a model."""

from jaxrw.figures.draw import FIGURES, draw, draw_again, of_run
from jaxrw.figures.measurement import is_measured, measure, read

__all__ = ["FIGURES", "draw", "draw_again", "is_measured", "measure", "of_run", "read"]
