"""Results of runs as tables and pages: beside the paper's, over seeds, with everything that is missing named."""

from jaxrw.report.terminal import table
from jaxrw.report.write import run

__all__ = ["run", "table"]
