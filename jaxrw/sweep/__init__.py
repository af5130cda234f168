"""Sweeps: many runs from one file. Each run is a process; finished runs are skipped."""

from jaxrw.sweep.plan import Run, create_runs, finished
from jaxrw.sweep.runner import run

__all__ = ["Run", "create_runs", "finished", "run"]
