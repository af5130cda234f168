"""The files of a run: config.json, dataset.json, metrics.jsonl, TensorBoard events, checkpoints and results.json."""

from jaxrw.runs import provenance, warmup, writers
from jaxrw.runs.json_files import write_json
from jaxrw.runs.metrics import MetricsLog, read_metrics
from jaxrw.runs.results import read_results
from jaxrw.runs.workdir import has_begun, open_workdir

__all__ = [
    "MetricsLog",
    "has_begun",
    "open_workdir",
    "provenance",
    "read_metrics",
    "read_results",
    "warmup",
    "write_json",
    "writers",
]
