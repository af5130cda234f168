"""Reports of many runs: tables beside the paper's, over seeds, with what is missing named."""

from jaxrw.report.terminal import table
from jaxrw.report.write import run

__all__ = ["run", "table"]
