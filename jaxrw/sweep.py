"""Sweeps: many runs from one file. Each run is a process; finished runs are skipped."""

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from typing import Any

from ml_collections import ConfigDict
from tqdm import tqdm

from jaxrw import command_line, runs, settings
from jaxrw.attacks import suite
from jaxrw.runs.checks import is_seconds
from jaxrw.runs.results import Results
from jaxrw.system import preemption
from jaxrw.system.errors import RunError, Stopped, UserError

# Sections whose names tell their fields from those of `method`.
_OWN_NAMES = ("objective", "awp", "average", "extra")

# Seconds that a run has to save its state after SIGTERM, before it is killed.
_PATIENCE = 60

# Statuses of a run that stopped on request, with its state saved or without.
_STOPPED = (preemption.STATUS, 130, -signal.SIGINT, -signal.SIGTERM)

# Runs of one kind take about the same time: their config file, and which of their epochs they train.
_Kind = tuple[pathlib.Path, str]
_ALL_EPOCHS, _AFTER_WARMUP, _NO_EPOCHS = "all", "after the warm-up", "none"


@dataclasses.dataclass(eq=False)
class Run:
    """One run of a sweep.

    Attributes:
      name: CONFIG/METHOD-SEED, with other changed fields before the seed.
      workdir: its directory.
      file: its config file.
      config: resolved.
      own_flags: the flags that set its config and mode.
      warmup_from: directory of the run whose warm-up it reuses. If that is its own `workdir`, it keeps its warm-up for
        others. None: it does neither.
    """

    name: str
    workdir: pathlib.Path
    file: pathlib.Path
    config: ConfigDict
    own_flags: list[str]
    warmup_from: pathlib.Path | None = None

    @property
    def flags(self) -> list[str]:
        """The command line after `launch.py`."""
        keeping, reusing = "--config.checkpoint.keep_warmup=True", f"--warmup_from={self.warmup_from}"
        warmup = [keeping if self.warmup_from == self.workdir else reusing] if self.warmup_from else []
        return [*self.own_flags, *warmup, f"--workdir={self.workdir}"]

    @property
    def kind(self) -> _Kind:
        """Which runs take about as long as this one."""
        is_trained = (self.workdir / "results.json").exists()  # It is written after the training.
        if is_trained or any(flag.startswith("--mode=") for flag in self.own_flags):
            return self.file, _NO_EPOCHS
        return self.file, _ALL_EPOCHS if self.warmup_from in (None, self.workdir) else _AFTER_WARMUP

    def command(self, launcher: pathlib.Path | None) -> str:
        """Returns the shell command that runs it."""
        program = ["jaxrw"] if launcher is None else ["python", str(_relative(launcher))]
        return shlex.join([*program, *self.flags])


def run(
    config: ConfigDict,
    path: pathlib.Path,
    workdir: str,
    *,
    launcher: pathlib.Path | None,
    overrides: Sequence[str] = (),
    flags: Sequence[str] = (),
    only_list: bool = False,
) -> None:
    """Runs the unfinished runs of a sweep one after the other; a failure does not stop it.

    Each run is a process of its own, so that its memory, compiled programs and crashes do not reach the others.

    Args:
      config: the sweep's, see configs/sweeps/base.py.
      path: the sweep's file; the config files that it names are relative to it.
      workdir: directory of the sweep; each run gets a directory below it.
      launcher: path of launch.py; None: the installed package.
      overrides: flags that set fields of every run.
      flags: further flags of every run, as "--mode=evaluate".
      only_list: print the commands of the unfinished runs instead.

    Raises:
      UserError: the sweep or the config of a run cannot be used; nothing has been run.
      RunError: some runs failed; all others were run.
      Stopped: SIGTERM; the active run has received it too and has ended.
    """
    sweep = create_runs(config, path, workdir, overrides=overrides, flags=flags)
    done = {item: results for item in sweep if (results := finished(item))}
    unfinished = [item for item in sweep if item not in done]
    if only_list:
        for item in unfinished:
            print(item.command(launcher))
        return
    print(f"{len(sweep)} runs below {workdir}, {len(done)} of them done")
    failed = _run_all(sweep, unfinished, _estimate_seconds(done), launcher)
    summary = f"{len(sweep) - len(failed)} of {len(sweep)} runs are done"
    if failed:
        names = "; ".join(f"{item.name} (status {status})" for item, status in failed.items())
        raise RunError(f"{summary}; {len(failed)} failed: {names}; the same command tries them again")
    print(f"{summary}; tables and figures: --mode report --workdir {workdir}")


def create_runs(
    config: ConfigDict,
    path: pathlib.Path,
    workdir: str,
    *,
    overrides: Sequence[str] = (),
    flags: Sequence[str] = (),
) -> list[Run]:
    """Creates the runs of a sweep, seed by seed and within a seed variant by variant; arguments as of `run`.

    Equal runs of two sweeps get the same directory, so sweeps share them.

    Raises:
      UserError: there are no runs, a field does not exist, or no run could use its value.
    """
    fields = config.sweep
    for name in ("configs", "variants", "seeds"):
        if not fields[name]:
            raise UserError(f"sweep.{name} is empty in {path}; see configs/sweeps/base.py")
    created: dict[str, Run] = {}
    for seed, variant, file in itertools.product(fields.seeds, fields.variants, fields.configs):
        file = _relative(path.parent / file)
        item = _create_run(file, variant, seed, [*overrides, *flags], pathlib.Path(workdir))
        if item.name in created:
            raise UserError(f"sweep.variants in {path} has {item.name} twice")
        created[item.name] = item
    sweep = list(created.values())
    if fields.get("share_warmup") and not flags:
        _share_warmups(sweep)
    return sweep


def finished(item: Run) -> Results | None:
    """Returns the results of a run, or None if it has to be run.

    They count if they are of its very config, trained to its end, and have all accuracies that it measures.
    """
    results = runs.read_results(item.workdir)
    if results is None or not results["checkpoints"].get("last"):
        return None
    found, wanted = (
        settings.with_effect(settings.completed(settings.flatten(config)))
        for config in (results["config"], settings.as_json(item.config))
    )
    checkpoints, attacks = results["checkpoints"], item.config.evaluation.attacks
    named = [value for name, value in checkpoints.items() if f"--checkpoint={name}" in item.own_flags]
    accuracies = [value["accuracy"] for value in named or checkpoints.values() if value]
    places = [
        config["dataset"].get("data_dir") for config in (results["config"], settings.as_json(item.config))
    ]
    is_finished = (
        found == wanted
        # Only the run itself can tell whether images of a user that lie elsewhere are the same.
        and (item.config.dataset.name != "folder" or places[0] == places[1])
        and checkpoints["last"]["epoch"] + 1 == item.config.optim.num_epochs
        and all(values.get(attack) is not None for values in accuracies for attack in attacks)
    )
    return results if is_finished else None


def _create_run(
    file: pathlib.Path, variant: dict[str, Any], seed: int, more_flags: list[str], workdir: pathlib.Path
) -> Run:
    """Creates a run; resolves its config and checks it as launch.py would."""
    unchanged = settings.flatten(_resolve([f"--config={file}"]).to_dict())
    changes = {
        field: value
        for field, value in settings.flatten(variant).items()
        if field == "method.name" or field not in unchanged or unchanged[field] != value
    }
    changed_flags = [f"--config.{field}={value}" for field, value in changes.items()]
    own_flags = [f"--config={file}", *changed_flags, f"--config.seed={seed}", *more_flags]
    config = _resolve(own_flags)
    settings.check(config, num_devices=1)
    changes.pop("method.name", None)
    words = [config.method.name, *(_describe(field, value) for field, value in changes.items())]
    name = f"{file.stem}/{re.sub('[^A-Za-z0-9_.-]+', '_', '-'.join(words))}-{seed}"
    return Run(name, workdir / name, file, config, own_flags)


def _describe(field: str, value: object) -> str:
    """Returns a changed field as part of a run's name: trades, tau_3.0, awp_gamma_0.01."""
    section, _, name = field.rpartition(".")
    if name == "name" and section in ("objective", "average"):
        return str(value)
    return f"{section}_{name}_{value}" if section in _OWN_NAMES else f"{name}_{value}"


def _resolve(own_flags: list[str]) -> ConfigDict:
    return command_line.parse(["launch.py", *own_flags]).config


def _relative(path: pathlib.Path) -> pathlib.Path:
    """Returns the path from the current directory, or the absolute path if that is two levels up or more."""
    path = pathlib.Path(os.path.relpath(path))
    return path.resolve() if path.parts[:2] == ("..", "..") else path


def _share_warmups(sweep: list[Run], failed: Collection[Run] = ()) -> None:
    """Assigns to each run the run whose warm-up it reuses.

    That is the first run with the same warm-up that has kept it, or else the first that is unfinished and has not
    failed.
    """
    groups = collections.defaultdict(list)
    for item in sweep:
        item.warmup_from = None
        # A warm-up that is longer than its run never ends, so nothing can begin after it.
        if 0 < item.config.method.warmup_epochs <= item.config.optim.num_epochs:
            shared = runs.warmup.shared_fields(settings.flatten(settings.as_json(item.config)))
            groups[json.dumps(shared, sort_keys=True)].append(item)
    for group in groups.values():
        kept = [item for item in group if (item.workdir / "warmup").is_dir()]
        unfinished = [item for item in group if not (item.workdir / "results.json").exists()]
        sources = kept + [item for item in unfinished if item not in failed]
        if len(group) > 1 and sources:
            for item in (*unfinished, sources[0]):
                item.warmup_from = sources[0].workdir


def _run_all(
    sweep: list[Run],
    unfinished: list[Run],
    estimated: dict[_Kind, list[float]],
    launcher: pathlib.Path | None,
) -> dict[Run, int]:
    """Runs the unfinished runs of a sweep; returns the exit statuses of those that failed."""
    failed: dict[Run, int] = {}
    measured: dict[_Kind, list[float]] = {}
    for number, item in enumerate(unfinished):
        seconds = _seconds_left(unfinished[number:], estimated | measured)
        kind = item.kind  # Before it runs, which changes it.
        left = "" if seconds is None else f", about {tqdm.format_interval(seconds)} left"
        print(
            f"\nrun {number + 1} of {len(unfinished)}: {item.name}  ({len(failed)} failed{left})\n"
            f"  {item.command(launcher)}",
            flush=True,
        )
        began = time.monotonic()
        program = ["-m", "jaxrw"] if launcher is None else [str(launcher)]
        status = _run_process([sys.executable, *program, *item.flags])
        if status in _STOPPED:
            raise Stopped(f"stopped in {item.name}; the same command goes on from what has been saved")
        if status == 0:
            measured.setdefault(kind, []).append(time.monotonic() - began)
            continue
        failed[item] = status
        print(f"{item.name} failed with status {status}", file=sys.stderr, flush=True)
        if item.warmup_from:  # Its warm-up, which other runs wait for, may be missing.
            _share_warmups(sweep, failed)
    return failed


def _run_process(command: Sequence[str]) -> int:
    """Runs a process and returns its exit status. If this process is stopped, it stops the other one too."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except BaseException:  # Ctrl-C or SIGTERM.
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


def _estimate_seconds(done: dict[Run, Results]) -> dict[_Kind, list[float]]:
    """Returns the seconds that finished runs have taken, by kind of run.

    Of the evaluation only AutoAttack counts, which takes by far the longest. Runs that only evaluate get no estimate,
    because results do not say which of their attacks had been measured before.
    """
    estimated = collections.defaultdict(list)
    for item, results in done.items():
        seconds, epochs = results.get("train_seconds"), _ALL_EPOCHS
        if not is_seconds(seconds):
            continue
        if results.get("warmup_from"):  # `train_seconds` includes the warm-up that was reused.
            epochs = _AFTER_WARMUP
            seconds *= 1 - item.config.method.warmup_epochs / item.config.optim.num_epochs
        if suite.AUTOATTACK in item.config.evaluation.attacks:
            seconds += _autoattack_seconds(results)
        estimated[item.file, epochs].append(seconds)
    return estimated


def _autoattack_seconds(results: Results) -> float:
    """Returns the seconds, at least 0, of AutoAttack, which attacks a step once even if it is both last and best."""
    by_step = {
        checkpoint.get("step"): checkpoint for checkpoint in results["checkpoints"].values() if checkpoint
    }
    seconds = 0.0
    for checkpoint in by_step.values():
        with contextlib.suppress(KeyError, TypeError, AttributeError):  # It has not run, or is damaged.
            seconds += sum(filter(is_seconds, checkpoint["autoattack"]["seconds"].values()))
    return seconds


def _seconds_left(waiting: list[Run], known: dict[_Kind, list[float]]) -> float | None:
    """Returns how long the waiting runs will take, or None if that is unknown.

    Args:
      waiting: runs.
      known: seconds that runs of each kind take. A kind that is missing takes as long as runs of other config files
        that train the same epochs.
    """
    means = {kind: statistics.mean(seconds) for kind, seconds in known.items()}
    left = 0.0
    for file, epochs in (item.kind for item in waiting):
        similar = [mean for (_, other), mean in means.items() if other == epochs]
        if not similar:
            return None
        left += means.get((file, epochs), statistics.mean(similar))
    return left
