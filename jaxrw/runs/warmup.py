"""The warm-up of a run, kept and handed on: all weights are 1 in it, so it is the same for every method."""

import json
import pathlib
import shutil

from jaxrw import settings
from jaxrw.runs.metrics import read_metrics
from jaxrw.runs.writing import told
from jaxrw.system import files
from jaxrw.system.errors import UserError

# Below the directory of a run: its files as they were when the warm-up ended.
_KEPT = "warmup"

# TensorBoard takes every file whose name holds the first for a run of its own, so kept ones have the second.
_EVENTS, _KEPT_EVENTS = "events.out.tfevents", "events.kept"

# A method's own constants do nothing in the warm-up; its length is not one of them.
_LENGTH = "method.warmup_epochs"


def keep(workdir):
    """Copy checkpoints and metrics as they are now to `warmup`, whole or not at all; once.

    Raises:
      RunError: they cannot be written.
    """
    kept = workdir / _KEPT
    if kept.exists():
        return
    scratch = workdir / files.scratch_name(_KEPT)
    with told(kept):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        for path in (workdir / "metrics.jsonl", *workdir.glob(f"{_EVENTS}*")):
            shutil.copyfile(path, scratch / path.name.replace(_EVENTS, _KEPT_EVENTS))
        for path in (workdir / "checkpoints").iterdir():
            if path.name.isdecimal():
                shutil.copytree(path, scratch / "checkpoints" / path.name)
        scratch.rename(kept)


def check(source, config):
    """Make sure that a directory keeps the warm-up of a config.

    Args:
      source: directory of a run that was trained with `checkpoint.keep_warmup`.
      config: resolved ConfigDict of the run that is to begin with it.

    Raises:
      UserError: no warm-up is kept there, or it is another one than this config's.
    """
    source = pathlib.Path(source)
    if not (source / _KEPT).is_dir():
        raise UserError(
            f"--warmup_from {source} keeps no warm-up; give a run that was trained to its end with "
            "--config.checkpoint.keep_warmup=True"
        )
    _check_same(source, config)


def adopt(source, workdir):
    """Let a run that has not begun begin where another one, that was checked, stood when its warm-up ended.

    Args:
      source: directory of that run.
      workdir: directory of the run that begins, which is held.

    Raises:
      UserError: it cannot be copied.
    """
    source = pathlib.Path(source)
    scratch = workdir / files.scratch_name("checkpoints")
    try:
        for path in (source / _KEPT).glob(f"{_KEPT_EVENTS}*"):
            shutil.copyfile(path, workdir / path.name.replace(_KEPT_EVENTS, _EVENTS))
        lines = read_metrics(source / _KEPT)
        told_from = {
            "kind": "warmup",
            **{name: lines[-1][name] for name in ("epoch", "step")},
            "from": str(source),
        }
        with files.replacing(workdir / "metrics.jsonl") as file:
            file.write("".join(f"{json.dumps(line)}\n" for line in (*lines, told_from)).encode())
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(source / _KEPT / "checkpoints", scratch)
        scratch.rename(workdir / "checkpoints")  # last: a run with checkpoints has begun
    except (OSError, shutil.Error, IndexError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--warmup_from {source} cannot be copied to {workdir}: {reason}") from error


def source_of(lines):
    """The run whose warm-up a run began with, as the lines of its metrics.jsonl tell; None: its own."""
    return next((line.get("from") for line in lines if line["kind"] == "warmup"), None)


def shared_fields(config):
    """Fields of a flat config that decide what a warm-up ends with."""
    return {
        name: value
        for name, value in settings.with_effect(config).items()
        if name == _LENGTH or not name.startswith("method.")
    }


def _check_same(source, config):
    """Refuse a warm-up of another config, naming every field that differs."""
    try:
        found = json.loads((source / "config.json").read_text())
        found = shared_fields(settings.flatten(found))
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"--warmup_from {source} has no usable config.json: {error}") from error
    wanted = shared_fields(settings.flatten(settings.as_json(config)))
    if differing := settings.differences(found, wanted):
        raise UserError(f"--warmup_from {source} is another warm-up: {'; '.join(differing)}")
