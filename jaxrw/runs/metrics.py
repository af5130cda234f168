"""metrics.jsonl, one line per measurement of training and evaluation, and the same values for TensorBoard."""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorboardX
from ml_collections import ConfigDict
from PIL import Image

from jaxrw.attacks import suite
from jaxrw.runs.checks import is_count, is_number
from jaxrw.runs.json_files import as_run_errors
from jaxrw.system import files, hosts
from jaxrw.training import histograms

# A line of metrics.jsonl.
Line = dict[str, Any]


class MetricsLog:
    """Writes metrics.jsonl and TensorBoard events, on the first process alone.

    Attributes:
      lines: all lines of the run, on every process.

    Raises:
      RunError: from the constructor and `write`; metrics.jsonl cannot be written.
    """

    def __init__(self, workdir: pathlib.Path, *, resume_at: int | None = None) -> None:
        """Opens the files of a run to append to them.

        Args:
          workdir: directory of the run.
          resume_at: step of the checkpoint from which training resumes. Later lines are dropped, since they will be
            written again. None: all lines stay.
        """
        self._path = workdir / "metrics.jsonl"
        self.lines: list[Line] = hosts.broadcast(
            [line for line in read_metrics(workdir) if resume_at is None or line["step"] <= resume_at]
        )
        if not hosts.is_first():
            return
        if self._path.exists():
            with as_run_errors(self._path), files.replacing(self._path) as file:
                file.write("".join(f"{json.dumps(line)}\n" for line in self.lines).encode())
        with as_run_errors(self._path):
            self._file = self._path.open("ab", buffering=0)  # a buffer would be written later, after an error
        # tensorboardX names files by the second; the suffix keeps those of two processes apart, and in order.
        self._events = tensorboardX.SummaryWriter(
            str(workdir),
            purge_step=None if resume_at is None else resume_at + 1,
            filename_suffix=f".{time.time_ns()}",
        )

    def write(self, kind: str, *, epoch: int, step: int, **values: Any) -> None:
        """Writes a line.

        Args:
          kind: "train", "validation" or "evaluation".
          epoch: 0-based.
          step: steps done.
          **values: what was measured, and "checkpoint", the name of the one that was evaluated. Numbers and histograms
            also go to TensorBoard.
        """
        line = {"kind": kind, "epoch": epoch, "step": step, **values}
        self.lines.append(line)
        if not hosts.is_first():
            return
        with as_run_errors(self._path):
            self._file.write(f"{json.dumps(line)}\n".encode())
            os.fsync(self._file.fileno())
        prefix = f"{kind}/{values['checkpoint']}" if "checkpoint" in values else kind
        for name, value in values.items():
            if isinstance(value, int | float):
                self._events.add_scalar(f"{prefix}/{name}", value, step)
            elif name in histograms.EDGES:
                self._write_histogram(f"{prefix}/{name}", np.asarray(value), histograms.EDGES[name], step)
        self._events.flush()

    def _write_histogram(self, tag: str, counts: np.ndarray, edges: np.ndarray, step: int) -> None:
        """Writes counts of fixed bins; TensorBoard names a bin by its upper edge."""
        middles = (edges[:-1] + edges[1:]) / 2
        # TensorBoard omits the empty bins at both ends, and stretches their neighbors to min and max.
        occupied = np.flatnonzero(counts)
        self._events.add_histogram_raw(
            tag,
            min=edges[occupied[0]],
            max=edges[occupied[-1] + 1],
            num=int(counts.sum()),
            sum=float(counts @ middles),
            sum_squares=float(counts @ middles**2),
            bucket_limits=edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=step,
        )

    def write_image(self, name: str, path: pathlib.Path, *, step: int) -> None:
        """Adds a PNG file to TensorBoard's images."""
        if hosts.is_first():
            with Image.open(path) as image:
                self._events.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Closes both files."""
        if hosts.is_first():
            with contextlib.suppress(OSError):  # `write` has raised it
                self._file.close()
            self._events.close()


def read_metrics(workdir: pathlib.Path) -> list[Line]:
    """Returns the lines of metrics.jsonl, without foreign lines and one that a kill cut short."""
    path = workdir / "metrics.jsonl"
    parsed = _parse_lines(path) if path.exists() else ()
    return [line for line in parsed if line is not None]


def count_foreign_lines(path: pathlib.Path) -> int:
    """Returns the number of lines that no run has written; the last may have been cut short by a kill."""
    *parsed, _ = _parse_lines(path)
    return parsed.count(None)


def _parse_lines(path: pathlib.Path) -> list[Line | None]:
    return [_parse(line) for line in path.read_text(encoding="utf-8", errors="replace").split("\n")]


def _parse(text: str) -> Line | None:
    """Returns a line as a dict, or None if no run has written it."""
    try:
        line = json.loads(text)
        counts = is_count(line["epoch"]) and is_count(line["step"])
        numbers = is_number(line.get("seconds", 0)) and is_number(line.get("images_per_second", 0))
        return line if isinstance(line["kind"], str) and counts and numbers else None
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def log_evaluation(
    workdir: pathlib.Path, checkpoints: Mapping[str, Mapping[str, Any]], evaluation: ConfigDict
) -> None:
    """Writes a line for each checkpoint with accuracies that metrics.jsonl does not hold yet.

    The log is compared with the results because a kill may have come between the writing of the two.

    Args:
      workdir: directory of the run.
      checkpoints: those of results.json that were evaluated, by name.
      evaluation: section of the config.
    """
    settings = {field: evaluation[field] for field in ("norm", "eps", "step_size", "version")}
    with contextlib.closing(MetricsLog(workdir)) as log:
        for name, checkpoint in checkpoints.items():
            place = {"checkpoint": name, "epoch": checkpoint["epoch"], "step": checkpoint["step"]}
            logged = [line for line in log.lines if line.items() >= place.items()]
            new = {
                attack: value
                for attack, value in checkpoint["accuracy"].items()
                if value is not None and not any(_is_logged(attack, value, settings, line) for line in logged)
            }
            if new:
                log.write("evaluation", **place, **settings, **new)


def _is_logged(attack: str, value: float, settings: Mapping[str, Any], line: Line) -> bool:
    """Whether a line holds an accuracy that was measured with the same settings."""
    line = {"norm": "linf", "version": "standard"} | line  # Lines of earlier versions lack them.
    return line.get(attack) == value and all(
        line.get(field) == settings[field] for field in suite.ATTACKS[attack].settings
    )
