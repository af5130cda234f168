"""The warm-up of a run, kept for other runs: all of its weights are 1, so it is the same for every method."""

import json
import pathlib
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxrw import settings
from jaxrw.data import Fingerprint
from jaxrw.runs import provenance
from jaxrw.runs.json_files import UnusableFileError, as_run_errors, read_object
from jaxrw.runs.metrics import Line, read_metrics
from jaxrw.system import files
from jaxrw.system.errors import UserError

# Subdirectory of a run with its files as they were when the warm-up ended.
_KEPT = "warmup"

# Prefixes of fields that only AutoAttack reads, which no training runs.
_OF_AUTOATTACK = ("evaluation.version", "evaluation.surrogate")

# TensorBoard takes any file whose name holds the first for a run's events, so the kept ones are renamed.
_EVENTS, _KEPT_EVENTS = "events.out.tfevents", "events.kept"


def keep(workdir: pathlib.Path) -> None:
    """Copies checkpoints and metrics to `warmup` atomically, unless that exists.

    Raises:
      RunError: they cannot be written.
    """
    kept = workdir / _KEPT
    if kept.exists():
        return
    scratch = workdir / files.scratch_name(_KEPT)
    with as_run_errors(kept):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        for path in (workdir / "metrics.jsonl", *workdir.glob(f"{_EVENTS}*")):
            shutil.copyfile(path, scratch / path.name.replace(_EVENTS, _KEPT_EVENTS))
        for path in (workdir / "checkpoints").iterdir():
            if path.name.isdecimal():
                shutil.copytree(path, scratch / "checkpoints" / path.name)
        scratch.rename(kept)


def is_kept(workdir: pathlib.Path) -> bool:
    """Returns whether a run keeps its warm-up."""
    return (workdir / _KEPT).is_dir()


def check(
    source: str | pathlib.Path, config: ConfigDict, data: Fingerprint, extra: str | None = None
) -> None:
    """Checks that a run keeps the warm-up of a config on the same images.

    Args:
      source: directory of a run that was trained with `checkpoint.keep_warmup`.
      config: resolved config of the run that is to begin with it.
      data: fingerprint of its images.
      extra: fingerprint of its extra images; None: it has none.

    Raises:
      UserError: no warm-up is kept there, or that of another config or other images.
    """
    source = pathlib.Path(source)
    if not is_kept(source):
        raise UserError(
            f"--warmup_from {source} keeps no warm-up; give a run that was trained beyond its warm-up with "
            "--config.checkpoint.keep_warmup=True"
        )
    try:
        kept = settings.completed(settings.flatten(read_object(source / "config.json")))
        provenance.check(source, data, flag="--warmup_from")
        if extra is not None:
            provenance.check_extra(source, extra, flag="--warmup_from")
    except UnusableFileError as error:
        raise UserError(
            f"--warmup_from {source} has no usable config.json or dataset.json: {error}"
        ) from error
    wanted = provenance.with_moved_extra(source, kept, settings.flatten(settings.as_json(config)))
    if differing := settings.differences(shared_fields(kept), shared_fields(wanted)):
        raise UserError(f"--warmup_from {source} is another warm-up: {'; '.join(differing)}")


def adopt(source: str | pathlib.Path, workdir: pathlib.Path) -> None:
    """Copies the kept warm-up of a run, after `check`, into a run that has not begun.

    Args:
      source: directory of the run that keeps it.
      workdir: directory of the run that begins with it, from `open_workdir`.

    Raises:
      UserError: it cannot be copied.
    """
    kept = pathlib.Path(source) / _KEPT
    scratch = workdir / files.scratch_name("checkpoints")
    try:
        for path in kept.glob(f"{_KEPT_EVENTS}*"):
            shutil.copyfile(path, workdir / path.name.replace(_KEPT_EVENTS, _EVENTS))
        lines = read_metrics(kept)
        last = lines[-1]
        lines.append(
            {"kind": "warmup", "epoch": last["epoch"], "step": last["step"], "from": str(kept.parent)}
        )
        with files.replacing(workdir / "metrics.jsonl") as file:
            file.write("".join(f"{json.dumps(line)}\n" for line in lines).encode())
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(kept / "checkpoints", scratch)
        shutil.rmtree(
            workdir / "checkpoints", ignore_errors=True
        )  # empty, of a run that was stopped before any step
        scratch.rename(workdir / "checkpoints")  # last, because a run with checkpoints has begun
    except (OSError, shutil.Error, IndexError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--warmup_from {source} cannot be copied to {workdir}: {reason}") from error


def source_of(lines: Iterable[Line]) -> str | None:
    """Returns the run whose warm-up a run began with, by its metrics.jsonl; None: it began with its own."""
    return next((line.get("from") for line in lines if line["kind"] == "warmup"), None)


def shared_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a flat config on which the state after the warm-up depends."""
    return {
        name: value
        for name, value in settings.with_effect(config).items()
        # The constants of a method have no effect in the warm-up, but its length has.
        if name == "method.warmup_epochs" or not name.startswith(("method.", *_OF_AUTOATTACK))
    }
