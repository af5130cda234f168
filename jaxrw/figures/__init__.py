"""Figures of a run. Their data is measured once and saved, so that they can be drawn again without the model."""

from jaxrw.figures.draw import FIGURES, are_drawn, draw_again, of_run
from jaxrw.figures.measurement import is_measured, measure, read

__all__ = ["FIGURES", "are_drawn", "draw_again", "is_measured", "measure", "of_run", "read"]
