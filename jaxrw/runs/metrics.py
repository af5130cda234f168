"""What is measured while a run trains and is evaluated: metrics.jsonl, and the same for TensorBoard."""

import contextlib
import json
import os
import time

import numpy as np
import tensorboardX
from PIL import Image

from jaxrw.attacks import suite
from jaxrw.runs.checks import is_count, is_number
from jaxrw.runs.writing import told
from jaxrw.system import files, hosts
from jaxrw.training import histograms


class MetricsLog:
    """Writes metrics.jsonl, line by line, and the same values for TensorBoard; raises RunError where it cannot."""

    def __init__(self, workdir, *, resume_at=None):
        """Append to what there is of whole lines; with `resume_at`, only to those up to that step.

        What a run wrote after its last checkpoint is dropped: it will be written again.
        """
        self._path = workdir / "metrics.jsonl"
        self.lines = hosts.agree(
            [line for line in read_metrics(workdir) if resume_at is None or line["step"] <= resume_at]
        )
        if not hosts.is_first():
            return
        if self._path.exists():
            with told(self._path), files.replacing(self._path) as file:
                file.write("".join(f"{json.dumps(line)}\n" for line in self.lines).encode())
        with told(self._path):
            self._file = self._path.open("ab", buffering=0)  # a buffer would be written later, after an error
        # A file of its own for each process, in their order: tensorboardX names files by the second.
        self._events = tensorboardX.SummaryWriter(
            str(workdir),
            purge_step=None if resume_at is None else resume_at + 1,
            filename_suffix=f".{time.time_ns()}",
        )

    def write(self, kind, *, epoch, step, **values):
        """One line of a kind (train, validation, evaluation); numbers and histograms also go to TensorBoard."""
        line = {"kind": kind, "epoch": epoch, "step": step, **values}
        self.lines.append(line)
        if not hosts.is_first():
            return
        with told(self._path):
            self._file.write(f"{json.dumps(line)}\n".encode())
            os.fsync(self._file.fileno())
        prefix = f"{kind}/{values['checkpoint']}" if "checkpoint" in values else kind
        for name, value in values.items():
            if isinstance(value, int | float):
                self._events.add_scalar(f"{prefix}/{name}", value, step)
            elif name in histograms.EDGES:
                self._write_histogram(f"{prefix}/{name}", value, histograms.EDGES[name], step)
        self._events.flush()

    def _write_histogram(self, tag, counts, edges, step):
        """Counts of fixed bins as TensorBoard's histogram, whose buckets are named by their upper edges."""
        counts, middles = np.asarray(counts), (edges[:-1] + edges[1:]) / 2
        # TensorBoard leaves out the empty bins at both ends and stretches those next to them to min and max.
        occupied = np.flatnonzero(counts)
        sums = {"sum": float(counts @ middles), "sum_squares": float(counts @ middles**2)}
        self._events.add_histogram_raw(
            tag,
            min=edges[occupied[0]],
            max=edges[occupied[-1] + 1],
            num=int(counts.sum()),
            bucket_limits=edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=step,
            **sums,
        )

    def write_image(self, name, path, *, step):
        """A PNG file among TensorBoard's images."""
        if not hosts.is_first():
            return
        with Image.open(path) as image:
            self._events.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self):
        """Close both files."""
        if not hosts.is_first():
            return
        with contextlib.suppress(OSError):  # what could not be written has been said
            self._file.close()
        self._events.close()


def read_metrics(workdir):
    """Lines of metrics.jsonl as dicts; a line that a kill cut short, or that is none of a run, is left out."""
    path = workdir / "metrics.jsonl"
    found = map(_parse, _lines(path)) if path.exists() else ()
    return [values for values in found if values is not None]


def _lines(path):
    """Lines of a text file; what is no text in them stays recognisable as such."""
    return path.read_text(errors="replace").splitlines()


def _parse(line):
    """A line of metrics.jsonl as a dict, or None."""
    try:
        values = json.loads(line)
        places = isinstance(values["kind"], str), is_count(values["epoch"]), is_count(values["step"])
        times = is_number(values.get("seconds", 0)), is_number(values.get("images_per_second", 0))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return values if all(places + times) else None


def count_foreign_lines(path):
    """Lines that no run has written; the last one may have been cut short by a kill."""
    *lines, last = path.read_text(errors="replace").split("\n")
    del last
    return sum(_parse(line) is None for line in lines)


def log_evaluation(workdir, measured, evaluation):
    """A line in metrics.jsonl for each checkpoint of which results.json has what the log has not.

    Compared, because a kill may have come between the two.
    """
    settings = {"eps": evaluation.eps, "step_size": evaluation.step_size}
    with contextlib.closing(MetricsLog(workdir)) as log:
        for name, checkpoint in measured.items():
            place = {"checkpoint": name, "epoch": checkpoint["epoch"], "step": checkpoint["step"]}
            found = [line for line in log.lines if line.items() >= place.items()]
            new = {
                attack: value
                for attack, value in checkpoint["accuracy"].items()
                if value is not None and not any(_is_logged(attack, value, settings, line) for line in found)
            }
            if new:
                log.write("evaluation", **place, **settings, **new)


def _is_logged(attack, value, settings, line):
    """Whether a line of the log holds an accuracy, measured with the same settings."""
    return line.get(attack) == value and all(
        line.get(field) == settings[field] for field in suite.ATTACKS[attack].settings
    )
