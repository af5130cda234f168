"""metrics.jsonl, one line per measurement of training and evaluation, and the same values for other writers."""

import contextlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrw import settings
from jaxrw.attacks import suite
from jaxrw.runs.checks import is_count, is_number
from jaxrw.runs.json_files import as_run_errors
from jaxrw.runs.writers import WRITERS, Line
from jaxrw.system import files, hosts


class MetricsLog:
    """Writes metrics.jsonl and what other writers write, on the first process alone.

    Attributes:
      lines: all lines of the run, on every process.

    Raises:
      RunError: from the constructor and `write`; metrics.jsonl cannot be written.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        resume_at: int | None = None,
        writers: Sequence[str] = (),
    ) -> None:
        """Opens the files of a run to append to them.

        Args:
          workdir: directory of the run.
          resume_at: step of the checkpoint from which training resumes. Later lines are dropped, since they will be
            written again. None: all lines stay.
          writers: keys of `writers.WRITERS`.
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
        self._writers = [WRITERS[name](workdir, resume_at) for name in writers]

    def write(self, kind: str, *, epoch: int, step: int, **values: Any) -> None:
        """Writes a line.

        Args:
          kind: "train", "validation" or "evaluation".
          epoch: 0-based.
          step: steps done.
          **values: what was measured, and "checkpoint", the name of the one that was evaluated.
        """
        line = {"kind": kind, "epoch": epoch, "step": step, **values}
        self.lines.append(line)
        if not hosts.is_first():
            return
        with as_run_errors(self._path):
            self._file.write(f"{json.dumps(line)}\n".encode())
            os.fsync(self._file.fileno())
        for writer in self._writers:
            writer.write(line)

    def write_image(self, name: str, path: pathlib.Path, *, step: int) -> None:
        """Adds a PNG file to what the other writers show."""
        for writer in self._writers if hosts.is_first() else ():
            writer.write_image(name, path, step)

    def close(self) -> None:
        """Closes all files."""
        if hosts.is_first():
            with contextlib.suppress(OSError):  # `write` has raised it
                self._file.close()
            for writer in self._writers:
                writer.close()


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


# Fields of `config.evaluation` that accuracies depend on.
_SETTINGS = tuple(dict.fromkeys(field for attack in suite.ATTACKS.values() for field in attack.settings))


def log_evaluation(
    workdir: pathlib.Path,
    checkpoints: Mapping[str, Mapping[str, Any]],
    evaluation: Mapping[str, Any],
    *,
    writers: Sequence[str],
) -> None:
    """Writes a line for each checkpoint with accuracies that metrics.jsonl does not hold yet.

    The log is compared with the results because a kill may have come between the writing of the two.

    Args:
      workdir: directory of the run.
      checkpoints: those of results.json that were evaluated, by name.
      evaluation: section of the config in results.json.
      writers: keys of `writers.WRITERS`.
    """
    wanted = {field: evaluation[field] for field in _SETTINGS}
    before = settings.earlier("evaluation")
    with contextlib.closing(MetricsLog(workdir, writers=writers)) as log:
        for name, checkpoint in checkpoints.items():
            place = {"checkpoint": name, "epoch": checkpoint["epoch"], "step": checkpoint["step"]}
            logged = [before | line for line in log.lines if line.items() >= place.items()]
            new = {
                attack: value
                for attack, value in checkpoint["accuracy"].items()
                if value is not None and not any(_is_logged(attack, value, wanted, line) for line in logged)
            }
            if new:
                log.write("evaluation", **place, **wanted, **new)


def _is_logged(attack: str, value: float, wanted: Mapping[str, Any], line: Line) -> bool:
    """Whether a line holds an accuracy that was measured with the same settings."""
    return line.get(attack) == value and all(
        line.get(field) == wanted[field] for field in suite.ATTACKS[attack].settings
    )
