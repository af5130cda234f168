"""Sweeps: many runs from one file, each a process of its own; what is missing is run, what is done is skipped."""

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

from tqdm import tqdm

from jaxrw import command_line, runs, settings
from jaxrw.attacks import suite
from jaxrw.runs.checks import is_seconds
from jaxrw.system import preemption
from jaxrw.system.errors import RunError, Stopped, UserError

# A run that was told to stop saves first; after so many seconds it is ended.
_PATIENCE = 60

# Statuses of a run that was asked to stop: its own, Ctrl-C's, and those of a process that had no time to answer.
_STOPPED = (preemption.STATUS, 130, -signal.SIGINT, -signal.SIGTERM)

# What a run has yet to do before it is evaluated: all epochs, those after the warm-up of another run, or none.
_ALL, _REST, _NONE = "all", "rest", "none"


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep: its name, where it goes, and the flags that make it."""

    name: str
    workdir: pathlib.Path
    own_flags: tuple[str, ...]
    config: object = dataclasses.field(compare=False)  # the resolved ConfigDict
    # Directory of the run whose warm-up it begins with; its own: it keeps it for others; None: it shares none.
    first: pathlib.Path | None = dataclasses.field(default=None, compare=False)

    @property
    def flags(self):
        """Its whole command line behind launch.py."""
        keeping = ("--config.checkpoint.keep_warmup=True",)
        beginning = () if self.first is None else (f"--warmup_from={self.first}",)
        shared = keeping if self.first == self.workdir else beginning
        return (*self.own_flags, *shared, f"--workdir={self.workdir}")

    def command(self, launcher):
        """What to type for this run alone."""
        return shlex.join(["python", str(_relative(launcher)), *self.flags])


def run(config, path, workdir, *, launcher, overrides=(), flags=(), only_list=False):
    """Run what is missing of a sweep, one after the other, and go on after a failure.

    A run is a process of its own: memory, compiled programs and a crash stay in it, and it is exactly the command
    that `only_list` prints for a queue.

    Args:
      config: the sweep's ConfigDict, see configs/sweeps/base.py.
      path: its file; the config files it names lie relative to it.
      workdir: directory below which every run gets its own.
      launcher: path of launch.py.
      overrides: flags of fields that every run gets.
      flags: further flags of every run, as "--mode=evaluate".
      only_list: print the missing runs' commands and run none.

    Raises:
      UserError: the sweep or one of its configs is not usable; nothing is run then.
      RunError: runs failed; all others were run.
      Stopped: asked to stop; the run at work has been told so too, and waited for.
    """
    everything = create(config, path, workdir, overrides=overrides, flags=flags)
    found = {item: finished(item) for item in everything}
    done = {item: results for item, results in found.items() if results}
    missing = [item for item in everything if item not in done]
    if only_list:
        for item in missing:
            print(item.command(launcher))
        return
    print(f"{len(everything)} runs below {workdir}, {len(done)} of them done")
    failed = _run_all(everything, missing, _guess(done), launcher)
    told = f"{len(everything) - len(failed)} of {len(everything)} runs are done"
    if failed:
        names = "; ".join(f"{item.name} (status {status})" for item, status in failed.items())
        raise RunError(f"{told}; {len(failed)} failed: {names}; the same command tries them again")
    print(f"{told}; tables and figures: --mode report --workdir {workdir}")


def create(config, path, workdir, *, overrides=(), flags=()):
    """Runs of a sweep in their order: config files within variants within seeds; arguments as `run`.

    A run's directory is named after its config file, its method, what else differs from the file, and its seed, so
    that two sweeps share the runs that they have in common.

    Raises:
      UserError: no runs, a field that no config has, or a value that no run could use.
    """
    fields = config.sweep
    for name in ("configs", "variants", "seeds"):
        if not fields[name]:
            raise UserError(f"sweep.{name} is empty in {path}; see configs/sweeps/base.py")
    created = {}
    for seed, variant, file in itertools.product(fields.seeds, fields.variants, fields.configs):
        item = _create_run(
            _relative(pathlib.Path(path).parent / file), variant, seed, workdir, overrides, flags
        )
        if item.workdir in created:
            raise UserError(f"sweep.variants in {path} has {item.name} twice")
        created[item.workdir] = item
    made = list(created.values())
    return _sharing(made) if fields.get("share_warmup") and not flags else made


def _sharing(made, failed=()):
    """The same runs, each but the first of those with the same warm-up beginning where that one's ends.

    A run that failed is no such first one, unless it has kept its warm-up before.
    """
    groups = {}
    for item in made:
        # One that is longer than the run never ends, so nobody could begin with it.
        if 0 < item.config.method.warmup_epochs <= item.config.optim.num_epochs:
            shared = runs.warmup.shared_fields(settings.flatten(settings.as_json(item.config)))
            groups.setdefault(json.dumps(shared, sort_keys=True), []).append(item)
    firsts = {}
    for group in groups.values():
        kept = [item for item in group if (item.workdir / "warmup").is_dir()]
        missing = [item for item in group if not (item.workdir / "results.json").exists()]
        able = kept + [item for item in missing if item not in failed]
        for first in able[:1] if len(group) > 1 else ():
            firsts |= dict.fromkeys([*missing, first], first.workdir)
    return [dataclasses.replace(item, first=firsts.get(item)) for item in made]


def _relative(path):
    """Path as a person here would type it."""
    path = pathlib.Path(os.path.relpath(path))
    return path.resolve() if path.parts[:2] == ("..", "..") else path


def _create_run(file, variant, seed, workdir, overrides, flags):
    """One run, its config resolved and checked as launch.py would."""
    plain = _parse([f"--config={file}"])
    changed = {
        field: value
        for field, value in settings.flatten(variant).items()
        if field == "method.name" or not settings.has(plain, field) or settings.get(plain, field) != value
    }
    arguments = [f"--config={file}", *(f"--config.{field}={value}" for field, value in changed.items())]
    arguments += [f"--config.seed={seed}", *overrides]
    resolved = _parse(arguments)
    settings.check(resolved, num_devices=1)
    method = resolved.method.name
    others = [f"{field.split('.')[-1]}_{value}" for field, value in changed.items() if field != "method.name"]
    name = f"{file.stem}/{re.sub(r'[^A-Za-z0-9_.-]+', '_', '-'.join([method, *others]))}-{seed}"
    directory = pathlib.Path(workdir) / name
    return Run(name, directory, (*arguments, *flags), resolved)


def _parse(arguments):
    """The ConfigDict of a command line."""
    return command_line.parse(["launch.py", *arguments]).config


def finished(item):
    """Content of results.json if it holds all that the run is to measure, of this very config trained to its end.

    None if not.
    """
    results = runs.read_results(item.workdir)
    try:
        wanted, found = (
            settings.with_effect(settings.flatten(config))
            for config in (settings.as_json(item.config), results["config"])
        )
        attacks = item.config.evaluation.attacks
        checkpoints = results["checkpoints"]
        asked = [c for name, c in checkpoints.items() if f"--checkpoint={name}" in item.flags]
        asked = [c for c in asked or checkpoints.values() if c]
        whole = (
            wanted == found
            and checkpoints["last"]["epoch"] + 1 == item.config.optim.num_epochs
            and all(c["accuracy"][attack] is not None for c in asked for attack in attacks)
        )
    except (KeyError, TypeError, AttributeError):  # not written by a run, or by an older one
        return None
    return results if whole else None


def _run_all(everything, missing, guessed, launcher):
    """Run the missing ones; the statuses of those that failed, by run. `guessed` are seconds by kind, see `_guess`."""
    failed, measured, waiting = {}, {}, missing
    while waiting:
        left = _seconds_left(waiting, guessed | measured)
        item, *waiting = waiting
        kind = _kind(item)
        about = f", about {tqdm.format_interval(left)} left" if left is not None else ""
        print(
            f"\nrun {len(missing) - len(waiting)} of {len(missing)}: {item.name}  ({len(failed)} failed{about})\n"
            f"  {item.command(launcher)}",
            flush=True,
        )
        began = time.monotonic()
        status = _status([sys.executable, launcher, *item.flags])
        if status in _STOPPED:
            raise Stopped(f"stopped in {item.name}; the same command goes on from what has been saved")
        if status:
            failed[item] = status
            print(f"{item.name} failed with status {status}", file=sys.stderr, flush=True)
            if item.first:  # others wait for its warm-up, which it may not have kept
                waiting = [other for other in _sharing(everything, failed) if other in waiting]
        else:
            measured.setdefault(kind, []).append(time.monotonic() - began)
    return failed


def _status(command):
    """Status of a process; it is told to stop, and waited for, when this one is."""
    child = subprocess.Popen(command)
    try:
        return child.wait()
    except BaseException:  # Ctrl-C or SIGTERM: nothing is left behind
        child.terminate()
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
        raise


def _kind(item):
    """Config file of a run and what it has yet to train: those of one kind take about the same time."""
    trained = (item.workdir / "results.json").exists()  # it is written when the training is over
    if trained or any(flag.startswith("--mode=") for flag in item.flags):
        return item.flags[0], _NONE
    return item.flags[0], _ALL if item.first in (None, item.workdir) else _REST


def _guess(done):
    """Seconds, 0 or more, that runs have taken by their results: a list for each kind that was trained.

    Of the evaluation they tell AutoAttack's alone, by far the longest, and not how much of it was there before: of
    runs that are only evaluated nothing is guessed.
    """
    guessed = {}
    for item, results in done.items():
        seconds, work, config = results.get("train_seconds"), _ALL, item.config
        if not is_seconds(seconds):
            continue
        if results.get("warmup_from"):  # train_seconds counts its epochs too
            seconds, work = seconds * (1 - config.method.warmup_epochs / config.optim.num_epochs), _REST
        if suite.AUTOATTACK in config.evaluation.attacks:
            seconds += _autoattack_seconds(results)
        guessed.setdefault((item.flags[0], work), []).append(seconds)
    return guessed


def _autoattack_seconds(results):
    """Seconds, 0 or more, that AutoAttack took; the best checkpoint may be the last, which is attacked once."""
    by_step = {each.get("step"): each for each in results["checkpoints"].values() if each}
    seconds = 0
    for checkpoint in by_step.values():
        with contextlib.suppress(KeyError, TypeError, AttributeError):  # not attacked, or damaged
            seconds += sum(filter(is_seconds, checkpoint["autoattack"]["seconds"].values()))
    return seconds


def _seconds_left(waiting, known):
    """Time that the waiting runs will take; None: nobody knows.

    `known` are seconds by kind. A kind of which there are none takes as long as that of other config files.
    """
    means = {kind: statistics.mean(seconds) for kind, seconds in known.items()}
    left = 0
    for file, work in map(_kind, waiting):
        alike = [mean for (_, other), mean in means.items() if other == work]
        if not alike:
            return None
        left += means.get((file, work), statistics.mean(alike))
    return left
