"""The files of a run: config.json, metrics.jsonl, TensorBoard events, results.json."""

import contextlib
import json
import os
import pathlib

import tensorboardX

from jaxrw.errors import UserError

# Where data lies may change between machines, and how a run is evaluated may change after it; the rest is the run.
_MAY_DIFFER = ("dataset.data_dir",)


def open_workdir(workdir, config, *, may_differ=()):
    """Create the directory of a run, or make sure that it is this config's; returns its path.

    Args:
      workdir: str or path.
      config: the resolved ConfigDict.
      may_differ: prefixes of dotted fields that need not agree with the config of the directory.

    Raises:
      UserError: the directory cannot be written, or belongs to another config.
    """
    workdir = pathlib.Path(workdir)
    wanted = as_json(config)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if (workdir / "config.json").exists():
            _check_same(workdir, _read_config(workdir), wanted, (*_MAY_DIFFER, *may_differ))
        else:
            write_json(workdir / "config.json", wanted)
        if not os.access(workdir, os.W_OK):
            raise PermissionError("it is read-only")
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--workdir {workdir} cannot be written: {reason}; choose another place") from error
    return workdir


def as_json(config):
    """A ConfigDict as the nested dicts and lists that config.json holds."""
    return json.loads(config.to_json())


def _read_config(workdir):
    """Content of config.json."""
    try:
        return json.loads((workdir / "config.json").read_text())
    except ValueError as error:
        raise UserError(f"{workdir / 'config.json'} is damaged: {error}; choose another --workdir") from error


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
    """Write JSON so that a kill leaves the old file or the new one, never a half."""
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_text(json.dumps(value, indent=2) + "\n")
    scratch.replace(path)


def read_metrics(workdir):
    """Lines of metrics.jsonl as dicts; a line that a kill cut short is left out."""
    path = workdir / "metrics.jsonl"
    lines = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return lines


def read_results(workdir):
    """Content of results.json, or None where there is none that can be read."""
    path = workdir / "results.json"
    try:
        return json.loads(path.read_text()) if path.exists() else None
    except ValueError:
        return None


class MetricsLog:
    """Writes metrics.jsonl, flushed line by line, and the same values for TensorBoard."""

    def __init__(self, workdir, *, resume_at=None):
        """Append; with `resume_at`, drop what a run wrote after that step first: it will be written again."""
        path = workdir / "metrics.jsonl"
        if resume_at is not None:
            kept = [line for line in read_metrics(workdir) if line["step"] <= resume_at]
            scratch = path.with_name(path.name + ".tmp")
            scratch.write_text("".join(json.dumps(line) + "\n" for line in kept))
            scratch.replace(path)
        self._file = path.open("a")
        self._events = tensorboardX.SummaryWriter(
            str(workdir), purge_step=resume_at + 1 if resume_at else None
        )

    def write(self, kind, *, epoch, step, **values):
        """One line of a kind (train, validation, evaluation); numbers also go to TensorBoard."""
        line = {"kind": kind, "epoch": epoch, "step": step, **values}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                self._events.add_scalar(f"{kind}/{name}", value, step)
        self._events.flush()

    def close(self):
        """Close both files."""
        self._file.close()
        self._events.close()
