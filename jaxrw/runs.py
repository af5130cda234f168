"""The files of a run: config.json, metrics.jsonl, TensorBoard events, results.json."""

import contextlib
import errno
import fcntl
import json
import math
import os
import pathlib
import socket
import sys
import time

import numpy as np
import tensorboardX
from PIL import Image

from jaxrw import files, histograms, hosts, integrity
from jaxrw.errors import RunError, UserError

# Where data lies may change between machines, and how a run is evaluated may change after it; the rest is the run.
_MAY_DIFFER = ("dataset.data_dir", "evaluation.save_adversarial")


# Who writes into a run: a lock of the operating system, gone with its process, however that ends.
_LOCK = ".lock"


@contextlib.contextmanager
def open_workdir(workdir, config, *, may_differ=()):
    """Hold the directory of a run against other processes: create it, or make sure that it is this config's.

    Args:
      workdir: str or path.
      config: the resolved ConfigDict.
      may_differ: prefixes of dotted fields that need not agree with the config of the directory.

    Yields:
      Its path.

    Raises:
      UserError: the directory cannot be written, belongs to another config, or another process is at work in it.
    """
    workdir = pathlib.Path(workdir)
    with contextlib.ExitStack() as stack:
        # Of several processes that are one run, the first writes.
        hosts.first_does(_take, workdir, stack, as_json(config), (*_MAY_DIFFER, *may_differ))
        yield workdir


def _take(workdir, stack, wanted, may_differ):
    """Create, lock and check the directory of a run."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not os.access(workdir, os.W_OK):
            raise PermissionError("it is read-only")
        stack.enter_context(_locked(workdir))
        _check_links(workdir)
        _check_config(workdir, wanted, may_differ)
        _set_damaged_aside(workdir)
    except (OSError, RunError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--workdir {workdir} cannot be written: {reason}; choose another place") from error


@contextlib.contextmanager
def _locked(workdir):
    """Refuse a directory that another process holds."""
    lock = os.open(workdir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        _lock(workdir, lock)
        yield
    finally:
        os.close(lock)


def _lock(workdir, lock):
    """Lock an open file and leave in it who has done so."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(lock, 200).decode(errors="replace") or "another process"
        raise UserError(
            f"--workdir {workdir} is in use by {holder}; wait until it ends, or choose another place"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        print(f"warning: {workdir} cannot be locked: take care that nobody else works in it", file=sys.stderr)
        return
    os.truncate(lock, 0)
    os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())


def _check_links(workdir):
    """Refuse links by which the files of a run would be written outside of it."""
    for path in workdir.iterdir():
        if path.is_symlink():
            raise UserError(
                f"{path} is a symbolic link; a run keeps its files in its own directory: put {path.name} itself "
                "there, or choose another --workdir"
            )


def _check_config(workdir, wanted, may_differ):
    """Write config.json, or make sure that what it says is wanted."""
    if (workdir / "config.json").exists():
        _check_same(workdir, _read_config(workdir), wanted, may_differ)
    elif (workdir / "checkpoints").exists():
        raise UserError(
            f"--workdir {workdir} has checkpoints but no config.json, so nobody knows what they are of; "
            "put it back, or choose another place"
        )
    else:
        write_json(workdir / "config.json", wanted)


def _set_damaged_aside(workdir):
    """Keep results and metrics that cannot be used out of the way of those that will be written."""
    results = workdir / "results.json"
    if results.exists() and (complaint := _complaint_about_results(results)):
        aside = integrity.set_aside(results, workdir / "damaged")
        print(f"warning: {results}: {complaint}; it is kept as {aside}", file=sys.stderr)
    metrics = workdir / "metrics.jsonl"
    if metrics.exists() and (number := _count_foreign_lines(metrics)):
        aside = integrity.set_aside(metrics, workdir / "damaged")
        metrics.write_bytes(aside.read_bytes())
        print(
            f"warning: {metrics}: {number} lines are none of a run and are left out; all are kept in {aside}",
            file=sys.stderr,
        )


def as_json(config):
    """A ConfigDict as the nested dicts and lists that config.json holds."""
    return json.loads(config.to_json())


def _read_config(workdir):
    """Content of config.json."""
    path = workdir / "config.json"
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not the fields of a config")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}; choose another --workdir") from error
    return content


def _check_same(workdir, found, wanted, may_differ):
    """Refuse a directory whose config differs, naming every field that does."""
    found, wanted = flatten(found), flatten(wanted)
    differing = [
        f"{field} is {found.get(field)!r} there and {wanted.get(field)!r} here"
        for field in sorted(found.keys() | wanted.keys())
        if found.get(field) != wanted.get(field) and not field.startswith(may_differ)
    ]
    if differing:
        raise UserError(f"--workdir {workdir} belongs to another config: {'; '.join(differing)}")


def flatten(config, prefix=""):
    """Nested dicts as one dict with dotted names."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def write_json(path, value):
    """Write JSON so that a kill leaves the old file or the new one, never a half; the first process alone does.

    Raises:
      RunError: it cannot be written.
    """
    if hosts.is_first():
        with _writing(path), files.replacing(path) as file:
            file.write(f"{json.dumps(value, indent=2)}\n".encode())


def read_metrics(workdir):
    """Lines of metrics.jsonl as dicts; a line that a kill cut short, or that is none of a run, is left out."""
    path = workdir / "metrics.jsonl"
    found = map(_parse, _lines(path)) if path.exists() else ()
    return [values for values in found if values is not None]


def read_results(workdir):
    """Content of results.json, every number in it checked; None where there is none, or one that cannot be used.

    The latter is said on standard error.
    """
    path = workdir / "results.json"
    if not path.exists():
        return None
    if complaint := _complaint_about_results(path):
        print(f"warning: {path}: {complaint}; it is left out", file=sys.stderr)
        return None
    return json.loads(path.read_text())


def _lines(path):
    """Lines of a text file; what is no text in them stays recognisable as such."""
    return path.read_text(errors="replace").splitlines()


def _parse(line):
    """A line of metrics.jsonl as a dict, or None."""
    try:
        values = json.loads(line)
        places = isinstance(values["kind"], str), _is_count(values["epoch"]), _is_count(values["step"])
        times = _is_number(values.get("seconds", 0)), _is_number(values.get("images_per_second", 0))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return values if all(places + times) else None


def _count_foreign_lines(path):
    """Lines that no run has written; the last one may have been cut short by a kill."""
    *lines, last = path.read_text(errors="replace").split("\n")
    del last
    return sum(_parse(line) is None for line in lines)


def _complaint_about_results(path):
    """Why a results.json cannot be used, in a few words, or None: nobody shall read a number that is none."""
    try:
        content = json.loads(path.read_text())
        if content["schema"] != 1:
            return f"its schema is {content['schema']!r}, not 1"
        evaluation = content["config"]["evaluation"]
        if not all(_is_number(evaluation[name]) for name in ("eps", "step_size")):
            return "the eps or step_size of its config is no number"
        for name, checkpoint in content["checkpoints"].items():
            if checkpoint is None:
                continue
            # Weights that were trained elsewhere have neither epoch nor step.
            if not all(_is_count(checkpoint.get(field, 0)) for field in ("epoch", "step", "num_examples")):
                return f"epoch, step or num_examples of {name!r} is no count"
            for attack, value in checkpoint["accuracy"].items():
                if value is not None and not (_is_number(value) and 0 <= value <= 100):
                    return f"the accuracy {attack!r} of {name!r} is {str(value)[:50]}, not in 0..100"
    except (KeyError, IndexError) as error:
        return f"it has no {error}"
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        return f"it is no results of a run ({' '.join(str(error).split())[:100]})"
    return None


def _is_count(value):
    """Whether a value from a file is an integer, 0 or more, that any program can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_number(value):
    """Whether a value from a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
            with _writing(self._path), files.replacing(self._path) as file:
                file.write("".join(f"{json.dumps(line)}\n" for line in self.lines).encode())
        with _writing(self._path):
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
        with _writing(self._path):
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
        sums = {"sum": float(counts @ middles), "sum_squares": float(counts @ middles**2)}
        self._events.add_histogram_raw(
            tag,
            min=edges[0],
            max=edges[-1],
            num=int(counts.sum()),
            bucket_limits=edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=step,
            **sums,
        )

    def write_image(self, name, path, *, step):
        """A PNG file among TensorBoard's images."""
        with Image.open(path) as image:
            self._events.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self):
        """Close both files."""
        if not hosts.is_first():
            return
        with contextlib.suppress(OSError):  # what could not be written has been said
            self._file.close()
        self._events.close()


@contextlib.contextmanager
def _writing(path):
    """Tell what goes wrong as a run's end: the disk is full, or the directory gone."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror or error}; what was saved before is kept: make room, and "
            "the same command goes on"
        ) from error
