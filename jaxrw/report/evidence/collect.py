"""Reads every results.json below a directory; those that cannot be used are left out with a reason."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from jaxrw import methods, settings
from jaxrw.attacks.suite import ATTACKS
from jaxrw.data import describe_fingerprint
from jaxrw.methods import METHODS, Method
from jaxrw.runs import results
from jaxrw.runs.json_files import UnusableFileError, read_object
from jaxrw.runs.results import CHECKPOINTS, FILE, Checkpoint, Results

# Sections of a config whose runs share a table.
_COMPARED = ("method.", "objective.", "awp.", "average.")


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
      checkpoints: epoch, num_examples, accuracy and correct of "last" and "best", if they were evaluated.
      content: of results.json.
      data: its images in words that tell them from others; None: a version that kept no fingerprint wrote it.
    """

    path: str
    config: dict[str, Any]
    checkpoints: dict[str, Checkpoint]
    content: Results
    data: str | None

    @property
    def setting(self) -> dict[str, Any]:
        """Fields on which accuracies depend, without the seed and what tables compare: method, objective, recipe."""
        fields = settings.with_effect(self.config) | {"data": self.data}
        return {name: v for name, v in fields.items() if name != "seed" and not name.startswith(_COMPARED)}

    @property
    def method(self) -> Method:
        """Its method; without a weight if only a config file that is not here knows it."""
        name = self.config["method.name"]
        if "method.source" in self.config:
            return Method(name, str(self.config.get("method.title", name)), formula="", weight=None)
        return METHODS[name]

    @property
    def title(self) -> str:
        """The method and what it weighs, such as "MAIL-TRADES"."""
        return methods.title(
            self.method,
            methods.OBJECTIVES[self.config["objective.name"]],
            perturbs_weights=self.config["awp.gamma"] is not None,
        )

    @property
    def recipe(self) -> dict[str, Any]:
        """Fields in which it goes beyond the paper, without their section where the name alone tells it."""
        config, recipe = self.config, {}
        objective = methods.OBJECTIVES[config["objective.name"]]
        if objective.needs_clean_logits:
            recipe = {"objective": objective.name, "lam": config["objective.lam"]}
            if not config["objective.clean_statistics"]:
                recipe["clean_statistics"] = False
        if config["method.normalize"] is not None:
            recipe["normalize"] = config["method.normalize"]
        if config["objective.smoothing"]:
            recipe["smoothing"] = config["objective.smoothing"]
        if config["awp.gamma"] is not None:
            recipe["AWP gamma"] = config["awp.gamma"]
            if config["awp.start_epoch"]:
                recipe["AWP start_epoch"] = config["awp.start_epoch"]
        if config["average.name"] != "none":
            decay = {"decay": config["average.decay"]} if config["average.name"] == "ema" else {}
            recipe |= {"average": config["average.name"], **decay}
            if config["average.start_epoch"]:
                recipe["average start_epoch"] = config["average.start_epoch"]
        return recipe

    @property
    def code(self) -> str | None:
        """Short digest of the code of a method of one's own, of which two may have one name; None: a shipped method."""
        source = self.config.get("method.source")
        return None if source is None else hashlib.sha256(str(source).encode()).hexdigest()[:8]

    @property
    def constants(self) -> dict[str, Any]:
        """Fields of `config.method`, without their prefix, on which this run's method depends."""
        method = self.method
        own = self.config.get("method.constants")
        names = [
            *(map(str, own) if isinstance(own, list) else method.constants),
            *(("warmup_epochs", "grad_through_weights") if method.reweighted else ()),
        ]
        return {name: self.config.get(f"method.{name}") for name in names}

    @property
    def identity(self) -> str:
        """All on which its accuracies depend."""
        method = [self.config["method.name"], self.code, self.constants]
        parts = [self.setting, *method, self.recipe, self.config["seed"]]
        return json.dumps(parts, sort_keys=True)


def collect(workdir: str | os.PathLike[str]) -> tuple[list[Run], list[Problem]]:
    """Returns the usable runs below `workdir`, in the order of their paths, and problems."""
    runs, problems = [], []
    for directory, files in sorted(_directories(workdir)):
        path = os.path.relpath(directory, workdir)
        try:
            if "results.json" in files:
                runs.append(_read(pathlib.Path(directory), path, "config.json" in files))
                problems += [
                    Problem(path, words) for words in results.doubts(runs[-1].content["checkpoints"])
                ]
            elif "config.json" in files:
                problems.append(Problem(path, "has no results.json: not finished, or not evaluated yet"))
        except UnusableFileError as error:
            problems.append(Problem(path, f"left out: {error}"))
    runs = _fill_in_data(runs)
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
    results.check(content, own_methods=True)
    config = settings.completed(settings.flatten(content["config"]))
    checkpoints = {
        name: _select(content["checkpoints"][name])
        for name in CHECKPOINTS
        if content["checkpoints"].get(name)
    }
    if not checkpoints:
        raise UnusableFileError("checkpoints are all null: nothing was evaluated")
    if "last" in checkpoints and not results.is_trained(content, config["optim.num_epochs"]):
        epochs = f"{checkpoints['last']['epoch'] + 1} of {config['optim.num_epochs']} epochs"
        raise UnusableFileError(f"its training is not finished: it was stopped in epoch {epochs}")
    if has_config:
        _check_same(config, settings.completed(settings.flatten(read_object(directory / "config.json"))))
    return Run(path, config, checkpoints, content, _describe_data(content))


def _describe_data(content: Results) -> str | None:
    """Returns the images of a run in words; raises UnusableFileError if its fingerprint is none."""
    try:
        if content.get("data") is not None:
            return describe_fingerprint(content["data"])
    except (LookupError, TypeError, ValueError) as error:
        raise UnusableFileError("data is no fingerprint of images") from error
    dataset = content["config"]["dataset"]
    return f"the folder {dataset.get('data_dir')}" if dataset["name"] == "folder" else None


def _fill_in_data(runs: list[Run]) -> list[Run]:
    """Returns the runs, those without a fingerprint with that of the others in their setting if these have one."""
    known: dict[str, set[str]] = {}
    for run in runs:
        if run.data is not None:
            known.setdefault(_setting_without_data(run), set()).add(run.data)
    filled = []
    for run in runs:
        found = known.get(_setting_without_data(run), set())
        filled.append(dataclasses.replace(run, data=run.data or (min(found) if len(found) == 1 else None)))
    return filled


def _setting_without_data(run: Run) -> str:
    return json.dumps(run.setting | {"data": None}, sort_keys=True)


def _select(checkpoint: Checkpoint) -> Checkpoint:
    """Returns what a report needs of a checkpoint; the accuracy of an attack that was not run is None."""
    return {
        "epoch": checkpoint["epoch"],
        "num_examples": checkpoint["num_examples"],
        "accuracy": {attack: checkpoint["accuracy"].get(attack) for attack in ATTACKS},
        "correct": checkpoint.get("correct", {}),
    }


def _check_same(config: dict[str, Any], other: dict[str, Any]) -> None:
    """Raises UnusableFileError if the flat configs of results.json and config.json differ."""
    for field in sorted(config.keys() | other.keys()):
        values = config.get(field), other.get(field)
        # The run itself has checked that extra images that lie elsewhere are the same.
        same = values[0] == values[1] or (field == "extra.path" and None not in values)
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
