"""Reading runs: every results.json below a directory, each either usable or left out with a reason."""

import dataclasses
import json
import os
import pathlib

from jaxrw import settings
from jaxrw.attacks.suite import ATTACKS
from jaxrw.methods import METHODS
from jaxrw.runs.checks import is_number
from jaxrw.runs.results import CHECKPOINTS, FILE, SCHEMA

# No results.json of a run comes near it; reading more would only fill the memory.
_MAX_BYTES = 20_000_000


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something about the runs that a reader has to know, in one line."""

    path: str
    words: str


@dataclasses.dataclass(frozen=True)
class Run:
    """What a report needs of one run."""

    path: str  # relative to the directory of all runs
    config: dict  # flat: dotted names
    checkpoints: dict  # "last", "best" -> {"epoch", "num_examples", "accuracy"}; those that were evaluated
    content: dict

    @property
    def setting(self):
        """Fields that decide a number, without the method and the seed."""
        fields = settings.with_effect(self.config)
        return {name: v for name, v in fields.items() if name != "seed" and not name.startswith("method.")}

    @property
    def constants(self):
        """Fields of `method` that this run's method depends on: Standard has no tau."""
        method = self.config["method.name"]
        given = {
            name.removeprefix("method."): v for name, v in self.config.items() if name.startswith("method.")
        }
        always = ("warmup_epochs", "grad_through_weights") if METHODS[method].reweighted else ()
        return {name: given.get(name) for name in (*METHODS[method].constants, *always)}

    @property
    def identity(self):
        """All that decides its numbers, as one string."""
        parts = [self.setting, self.config["method.name"], self.constants, self.config["seed"]]
        return json.dumps(parts, sort_keys=True)


def collect(workdir):
    """Usable runs below `workdir` in the order of their paths, and problems: (list of Run, list of Problem)."""
    found, problems = [], []
    for directory, files in sorted(_directories(workdir)):
        path = os.path.relpath(directory, workdir)
        try:
            if "results.json" in files:
                found.append(_read(pathlib.Path(directory), path, "config.json" in files))
            elif "config.json" in files:
                problems.append(Problem(path, "has no results.json: not finished, or not evaluated yet"))
        except _UnusableError as error:
            problems.append(Problem(path, f"left out: {error}"))
    return _without_duplicates(found, problems), problems


def _directories(workdir):
    """(directory, names of its files) of all below, links to directories followed, each directory once."""
    seen = set()
    for directory, below, files in os.walk(workdir, followlinks=True):
        real = os.path.realpath(directory)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        # Links last: a directory is found by its own path where it has one here.
        below.sort(key=lambda name: (os.path.islink(os.path.join(directory, name)), name))
        yield directory, files


class _UnusableError(Exception):
    """Why a file is left out."""


def _read(directory, path, has_config):
    """A run from its results.json, checked."""
    content = _load(directory / "results.json")
    if "schema" not in content:
        raise _UnusableError("results.json has no schema, so no run of jaxrw has written it")
    if content["schema"] != SCHEMA:
        raise _UnusableError(
            f"results.json has schema {content['schema']!r:.40}; this version reads {SCHEMA}"
        )
    config, checkpoints = settings.flatten(_get(content, "config", dict)), _get(content, "checkpoints", dict)
    if FILE in checkpoints:
        raise _UnusableError(
            "of weights that were trained elsewhere, by no method and with no seed known here"
        )
    _check_config(config)
    if not set(CHECKPOINTS) & set(checkpoints):
        raise _UnusableError("checkpoints has neither last nor best")
    checked = {
        name: _check(checkpoints[name], name) for name in CHECKPOINTS if checkpoints.get(name) is not None
    }
    if not checked:
        raise _UnusableError("checkpoints are all null: nothing was evaluated")
    if "last" in checked and checked["last"]["epoch"] + 1 < config["optim.num_epochs"]:
        epochs = f"{checked['last']['epoch'] + 1} of {config['optim.num_epochs']} epochs"
        raise _UnusableError(f"its training is not finished: {epochs}")
    if has_config:
        _check_same(config, _load(directory / "config.json"))
    return Run(path, config, checked, content)


def _load(path):
    """A JSON object, whatever may be in the file."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise _UnusableError(f"{path.name} is larger than {_MAX_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _UnusableError(f"{path.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _UnusableError(f"{path.name} is damaged: {str(error) or type(error).__name__:.80}") from error
    if not isinstance(content, dict):
        raise _UnusableError(f"{path.name} holds a {type(content).__name__}, not an object")
    return content


def _get(content, name, kind, where=""):
    """A value of a kind, its absence and any other kind told."""
    if name not in content:
        raise _UnusableError(f"{where}{name} is missing")
    value = content[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _UnusableError(f"{where}{name} is {value!r:.40}; must be of type {kind.__name__}")
    return value


def _check_config(config):
    """Refuse a config without the fields that runs are told apart by."""
    for name in ("dataset.name", "model.name", "method.name"):
        _get(config, name, str, "config.")
    for name in ("seed", "optim.num_epochs"):
        _get(config, name, int, "config.")
    if config["optim.num_epochs"] < 1:
        raise _UnusableError(f"config.optim.num_epochs is {config['optim.num_epochs']}; must be at least 1")
    if config["method.name"] not in METHODS:
        raise _UnusableError(f"config.method.name is {config['method.name']!r:.40}; no such method is known")


def _check(checkpoint, name):
    """Epoch, number of images and accuracies of a checkpoint; null where an attack was not run."""
    where = f"checkpoints.{name}"
    if not isinstance(checkpoint, dict):
        raise _UnusableError(f"{where} is {checkpoint!r:.40}; must be an object or null")
    accuracy = _get(checkpoint, "accuracy", dict, f"{where}.")
    for attack in ATTACKS:
        value = accuracy.get(attack)
        if value is not None and not (is_number(value) and 0 <= value <= 100):
            raise _UnusableError(
                f"{where}.accuracy.{attack} is {value!r:.40}; must be a percentage in 0..100 or null"
            )
    epoch, size = (_get(checkpoint, field, int, f"{where}.") for field in ("epoch", "num_examples"))
    if epoch < 0 or size < 1:
        raise _UnusableError(f"{where} has epoch {epoch} and num_examples {size}")
    return {
        "epoch": epoch,
        "num_examples": size,
        "accuracy": {attack: accuracy.get(attack) for attack in ATTACKS},
    }


def _check_same(config, other):
    """Refuse a run whose two files tell of two configs."""
    other = settings.flatten(other)
    for field in sorted(config.keys() | other.keys()):
        same = config.get(field) == other.get(field)
        if not same and not field.startswith(("evaluation.", *settings.WITHOUT_EFFECT)):
            raise _UnusableError(
                f"results.json and config.json contradict each other: {field} is {config.get(field)!r:.40} and "
                f"{other.get(field)!r:.40}"
            )


def _without_duplicates(found, problems):
    """Runs without those of the same config and seed as another; the one with more accuracies is kept."""
    kept = {}
    for run in found:
        first = kept.setdefault(run.identity, run)
        if first is run:
            continue
        better, other = (run, first) if _count(run) > _count(first) else (first, run)
        kept[run.identity] = better
        words = f"left out: same config and seed as {better.path}"
        problems.append(Problem(other.path, f"{words}{_difference(better, other)}"))
    return sorted(kept.values(), key=lambda run: run.path)


def _count(run):
    """How many accuracies a run has."""
    return sum(value is not None for c in run.checkpoints.values() for value in c["accuracy"].values())


def _difference(run, other):
    """The first accuracy in which two runs of the same config and seed differ."""
    for name in (name for name in CHECKPOINTS if name in run.checkpoints and name in other.checkpoints):
        for attack in ATTACKS:
            values = [r.checkpoints[name]["accuracy"][attack] for r in (run, other)]
            if None not in values and values[0] != values[1]:
                return f", but {attack} of {name} is {values[0]:.2f} there and {values[1]:.2f} here"
    return ""
