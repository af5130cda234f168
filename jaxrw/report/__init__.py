"""Reports of many runs: tables beside the paper's, over seeds, with what is missing named."""

from jaxrw.report.terminal import doubts, table
from jaxrw.report.write import run

__all__ = ["doubts", "run", "table"]
