"""Reads every results.json below a directory; those that cannot be used are left out with a reason."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from jaxrw import settings
from jaxrw.attacks.suite import ATTACKS
from jaxrw.methods import METHODS
from jaxrw.runs import results
from jaxrw.runs.json_files import UnusableFileError, read_object
from jaxrw.runs.results import CHECKPOINTS, FILE, Checkpoint, Results


@dataclasses.dataclass(frozen=True)
class Problem:
    """What a reader has to know about a run, in one line."""

    path: str
    words: str


@dataclasses.dataclass(frozen=True)
class Run:
    """What a report needs of one run.

    Attributes:
      path: relative to the directory of all runs.
      config: flat, with dotted names.
      checkpoints: epoch, num_examples and accuracy of "last" and "best", if they were evaluated.
      content: of results.json.
    """

    path: str
    config: dict[str, Any]
    checkpoints: dict[str, Checkpoint]
    content: Results

    @property
    def setting(self) -> dict[str, Any]:
        """Fields on which accuracies depend, without the method and the seed."""
        fields = settings.with_effect(self.config)
        return {name: v for name, v in fields.items() if name != "seed" and not name.startswith("method.")}

    @property
    def constants(self) -> dict[str, Any]:
        """Fields of `config.method`, without their prefix, on which this run's method depends."""
        method = METHODS[self.config["method.name"]]
        always = ("warmup_epochs", "grad_through_weights") if method.reweighted else ()
        return {name: self.config.get(f"method.{name}") for name in (*method.constants, *always)}

    @property
    def identity(self) -> str:
        """All on which its accuracies depend."""
        parts = [self.setting, self.config["method.name"], self.constants, self.config["seed"]]
        return json.dumps(parts, sort_keys=True)


def collect(workdir: str | os.PathLike[str]) -> tuple[list[Run], list[Problem]]:
    """Returns the usable runs below `workdir`, in the order of their paths, and problems."""
    runs, problems = [], []
    for directory, files in sorted(_directories(workdir)):
        path = os.path.relpath(directory, workdir)
        try:
            if "results.json" in files:
                runs.append(_read(pathlib.Path(directory), path, "config.json" in files))
            elif "config.json" in files:
                problems.append(Problem(path, "has no results.json: not finished, or not evaluated yet"))
        except UnusableFileError as error:
            problems.append(Problem(path, f"left out: {error}"))
    return _without_duplicates(runs, problems), problems


def _directories(workdir: str | os.PathLike[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields every directory once, with the names of its files; follows links."""
    seen = set()
    for directory, below, files in os.walk(workdir, followlinks=True):
        real = os.path.realpath(directory)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        # Links last, so that a directory is found by its own path if that is below `workdir` too.
        below.sort(key=lambda name: (os.path.islink(os.path.join(directory, name)), name))
        yield os.fspath(directory), files


def _read(directory: pathlib.Path, path: str, has_config: bool) -> Run:
    """Reads a run that has been trained to its end; raises UnusableFileError for others."""
    content = results.load(directory / "results.json")
    if FILE in content["checkpoints"]:
        raise UnusableFileError(
            "of weights that were trained elsewhere, by no method and with no seed known here"
        )
    results.check(content)
    config = settings.with_added(settings.flatten(content["config"]))
    checkpoints = {
        name: _select(content["checkpoints"][name])
        for name in CHECKPOINTS
        if content["checkpoints"].get(name)
    }
    if not checkpoints:
        raise UnusableFileError("checkpoints are all null: nothing was evaluated")
    if "last" in checkpoints and checkpoints["last"]["epoch"] + 1 < config["optim.num_epochs"]:
        epochs = f"{checkpoints['last']['epoch'] + 1} of {config['optim.num_epochs']} epochs"
        raise UnusableFileError(f"its training is not finished: {epochs}")
    if has_config:
        other = settings.with_added(settings.flatten(read_object(directory / "config.json")))
        _check_same(config, other)
    return Run(path, config, checkpoints, content)


def _select(checkpoint: Checkpoint) -> Checkpoint:
    """Returns what a report needs of a checkpoint; the accuracy of an attack that was not run is None."""
    return {
        "epoch": checkpoint["epoch"],
        "num_examples": checkpoint["num_examples"],
        "accuracy": {attack: checkpoint["accuracy"].get(attack) for attack in ATTACKS},
    }


def _check_same(config: dict[str, Any], other: dict[str, Any]) -> None:
    """Raises UnusableFileError if the flat configs of results.json and config.json differ."""
    for field in sorted(config.keys() | other.keys()):
        same = config.get(field) == other.get(field)
        if not same and not field.startswith(("evaluation.", *settings.WITHOUT_EFFECT)):
            raise UnusableFileError(
                f"results.json and config.json contradict each other: {field} is {config.get(field)!r:.40} and "
                f"{other.get(field)!r:.40}"
            )


def _without_duplicates(runs: Iterable[Run], problems: list[Problem]) -> list[Run]:
    """Returns one run of each config and seed, the one with more accuracies; appends the others to `problems`."""
    kept: dict[str, Run] = {}
    for run in runs:
        first = kept.setdefault(run.identity, run)
        if first is run:
            continue
        better, other = (run, first) if _num_accuracies(run) > _num_accuracies(first) else (first, run)
        kept[run.identity] = better
        words = f"left out: same config and seed as {better.path}{_difference(better, other)}"
        problems.append(Problem(other.path, words))
    return sorted(kept.values(), key=lambda run: run.path)


def _num_accuracies(run: Run) -> int:
    return sum(value is not None for c in run.checkpoints.values() for value in c["accuracy"].values())


def _difference(run: Run, other: Run) -> str:
    """Describes the first accuracy in which two runs of the same config and seed differ."""
    for name in (name for name in CHECKPOINTS if name in run.checkpoints and name in other.checkpoints):
        for attack in ATTACKS:
            values = [r.checkpoints[name]["accuracy"][attack] for r in (run, other)]
            if None not in values and values[0] != values[1]:
                return f", but {attack} of {name} is {values[0]:.2f} there and {values[1]:.2f} here"
    return ""
