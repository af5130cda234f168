"""results.json: the accuracies of a run's checkpoints, in percent.

    {"schema": 1,
     "config": {...},                       the resolved config
     "data": {...} or null,                 dataset.json; null: a version that kept none began the run
     "versions": {package: version}, "device": "...", "machine": {...},
     "train_seconds": s, "finished": bool,  null for weights that were trained elsewhere
     "checkpoints": {name: null or {"epoch": e, "step": s, "num_examples": n, "chance": percent,
                                    "accuracy": {attack: percent or null},
                                    "correct": {attack: text},
                                    "autoattack": {...}, "apgd_t": {...},
                                    "corruptions": {name: percent}}},
     "warmup_from": directory or null}

A null accuracy was not measured; `chance` is that of always answering one class. `correct` tells which test images the
accuracy counts, see `packed`; accuracies that an earlier version measured lack it. `load` and `check` are the only
readers, `write_results` the only writer.
"""

import contextlib
import importlib.metadata
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxrw import settings
from jaxrw.attacks import suite
from jaxrw.data import Fingerprint
from jaxrw.methods import METHODS, OBJECTIVES
from jaxrw.runs.checks import is_count, is_number
from jaxrw.runs.json_files import UnusableFileError, as_run_errors, read_object, write_json
from jaxrw.runs.machine import machine
from jaxrw.runs.packed import unpack
from jaxrw.system import files

# Increase it when an older reader would misunderstand the file.
SCHEMA = 1

# Names of checkpoints: those of a run, or a file of weights that were trained elsewhere.
CHECKPOINTS = ("last", "best")
FILE = "file"

_NAME = "results.json"

_PACKAGES = ("jaxrw", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")

# The content of a results.json, and one of its checkpoints.
Results = dict[str, Any]
Checkpoint = dict[str, Any]

# A check of a value, and the words for its failure.
_Rule = tuple[Callable[[Any], bool], str]

_OBJECT: _Rule = (lambda v: isinstance(v, dict), "must be of type dict")
_TEXT: _Rule = (lambda v: isinstance(v, str), "must be of type str")
_INTEGER: _Rule = (lambda v: isinstance(v, int) and not isinstance(v, bool), "must be of type int")
_NUMBER: _Rule = (is_number, "must be a finite number")

# Required fields of the config.
_FIELDS: dict[str, _Rule] = {
    "dataset.name": _TEXT,
    "model.name": _TEXT,
    "seed": _INTEGER,
    "evaluation.eps": _NUMBER,
    "evaluation.step_size": _NUMBER,
}
# Further ones of a run, which weights that were trained elsewhere do not have.
_RUN_FIELDS: dict[str, _Rule] = {
    "method.name": (lambda v: isinstance(v, str) and v in METHODS, "no such method is known"),
    "method.warmup_epochs": (is_count, "must be an integer of at least 0"),
    "objective.name": (lambda v: isinstance(v, str) and v in OBJECTIVES, "no such objective is known"),
    "optim.num_epochs": (lambda v: is_count(v) and v >= 1, "must be at least 1, an integer"),
}


def read_results(workdir: pathlib.Path) -> Results | None:
    """Returns the content of a run's results.json, or None if there is none or, with a warning, an unusable one."""
    path = workdir / _NAME
    if not path.exists():
        return None
    try:
        return read(path)
    except UnusableFileError as error:
        print(f"warning: {path}: {error}; it is left out", file=sys.stderr)
        return None


def read(path: pathlib.Path) -> Results:
    """Reads and checks a results.json.

    Raises:
      UnusableFileError: see `load` and `check`.
    """
    results = load(path)
    check(results)
    return results


def load(path: pathlib.Path) -> Results:
    """Reads a results.json whose config and checkpoints are still to be checked; drops checkpoints of other names.

    Raises:
      UnusableFileError: it cannot be read, or is of another program or schema.
    """
    results = read_object(path)
    if "schema" not in results:
        raise UnusableFileError(f"{path.name} has no schema, so no run of jaxrw has written it")
    if results["schema"] != SCHEMA:
        raise UnusableFileError(
            f"{path.name} has schema {results['schema']!r:.40}; this version reads {SCHEMA}"
        )
    _check_field(results, "config", _OBJECT)
    _check_field(results, "checkpoints", _OBJECT)
    checkpoints = results["checkpoints"].items()
    results["checkpoints"] = {name: value for name, value in checkpoints if name in (*CHECKPOINTS, FILE)}
    return results


def check(results: Results, *, own_methods: bool = False) -> None:
    """Checks the config and all checkpoints.

    Args:
      results: from `load`.
      own_methods: whether a method that a config file has added passes although that file has not been read.

    Raises:
      UnusableFileError: a field is missing or wrong.
    """
    checkpoints, config = results["checkpoints"], settings.completed(settings.flatten(results["config"]))
    is_run = FILE not in checkpoints
    rules = _FIELDS | _RUN_FIELDS if is_run else _FIELDS
    if own_methods and "method.source" in config:
        rules = rules | {"method.name": _TEXT}
    for name, rule in rules.items():
        _check_field(config, name, rule, "config.")
    if not checkpoints:
        raise UnusableFileError("checkpoints has neither last nor best")
    for name, checkpoint in checkpoints.items():
        if checkpoint is not None:
            _check_checkpoint(name, checkpoint)


def _check_field(mapping: Mapping[str, Any], name: str, rule: _Rule, prefix: str = "") -> None:
    holds, words = rule
    if name not in mapping:
        raise UnusableFileError(f"{prefix}{name} is missing")
    if not holds(mapping[name]):
        raise UnusableFileError(f"{prefix}{name} is {mapping[name]!r:.40}; {words}")


def _check_checkpoint(name: str, checkpoint: object) -> None:
    where = f"checkpoints.{name}"
    if not isinstance(checkpoint, dict):
        raise UnusableFileError(f"{where} is {checkpoint!r:.40}; must be an object or null")
    _check_field(checkpoint, "accuracy", _OBJECT, f"{where}.")
    for attack in suite.ATTACKS:
        value = checkpoint["accuracy"].get(attack)
        if value is not None and not (is_number(value) and 0 <= value <= 100):
            raise UnusableFileError(
                f"{where}.accuracy.{attack} is {value!r:.40}; must be a percentage in 0..100 or null"
            )
    if "chance" in checkpoint and not is_number(checkpoint["chance"]):
        raise UnusableFileError(f"{where}.chance is {checkpoint['chance']!r:.40}; must be a finite number")
    # Weights that were trained elsewhere have neither epoch nor step.
    for field in ("num_examples",) if name == FILE else ("num_examples", "epoch", "step"):
        value, least = checkpoint.get(field), int(field == "num_examples")
        if not (is_count(value) and value >= least):
            raise UnusableFileError(
                f"{where} has {field} {value!r:.40}; must be an integer of at least {least}"
            )
    _check_correct(where, checkpoint)


def _check_correct(where: str, checkpoint: Checkpoint) -> None:
    """Checks that which images are classified correctly fits their number and the accuracy."""
    if "correct" not in checkpoint:
        return
    _check_field(checkpoint, "correct", _OBJECT, f"{where}.")
    for attack, text in checkpoint["correct"].items():
        if attack not in suite.ATTACKS:  # Of a later version.
            continue
        accuracy, size = checkpoint["accuracy"].get(attack), checkpoint["num_examples"]
        _check_field(checkpoint["correct"], attack, _TEXT, f"{where}.correct.")
        try:
            found = 100 * int(unpack(text, size).sum()) / size
        except ValueError as error:
            raise UnusableFileError(f"{where}.correct.{attack} is {error}") from error
        if accuracy is None or abs(found - accuracy) > 1e-6:
            raise UnusableFileError(
                f"{where}.correct.{attack} is of {found:.2f} percent, and the accuracy {accuracy!r:.40}"
            )


def begin_results(
    config: ConfigDict,
    *,
    num_examples: int,
    chance: float,
    earlier: Results | None,
    kept: Sequence[Results] = (),
    identities: Mapping[str, Checkpoint | None],
    data: Fingerprint | None = None,
) -> Results:
    """Returns results before anything is measured, with what earlier results hold of the same checkpoints.

    Args:
      config: resolved.
      num_examples: number of test images.
      chance: their accuracy in percent if one class is always answered, see `Split.chance`.
      earlier: results of an earlier evaluation; None: there are none.
      kept: those of evaluations with other settings before that, see `read_kept`.
      identities: fields by name that tell which checkpoint it is; None: there is no such checkpoint.
      data: fingerprint of the images; None: unknown.
    """
    content = settings.as_json(config)
    if earlier:  # Images that have moved are the same ones; where numbers were measured is not rewritten.
        content["dataset"]["data_dir"] = earlier["config"]["dataset"].get("data_dir")
        before = _evaluation_of(earlier)
        for field in suite.unasked_settings(config.evaluation.attacks):  # What was measured with them stays.
            content["evaluation"][field] = before[field]
    return {
        "schema": SCHEMA,
        "config": content,
        "data": data,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": f"{jax.device_count()} x {jax.local_devices()[0].device_kind}",
        "machine": machine(),
        "train_seconds": None,
        "finished": None,
        "checkpoints": {
            name: identity
            and {
                **identity,
                "num_examples": num_examples,
                "chance": chance,
                **_earlier_measurements(
                    [*([earlier] if earlier else []), *kept],
                    content["evaluation"],
                    name,
                    identity,
                    num_examples,
                ),
            }
            for name, identity in identities.items()
        },
    }


def _evaluation_of(results: Results) -> dict[str, Any]:
    """Returns the settings of the evaluation that results are of."""
    return settings.earlier("evaluation") | results["config"]["evaluation"]


def _earlier_measurements(
    earlier: Sequence[Results],
    evaluation: Mapping[str, Any],
    name: str,
    identity: Checkpoint,
    num_examples: int,
) -> Checkpoint:
    """Returns what earlier results, the first that have it, hold of the same checkpoint and settings."""
    measurements: Checkpoint = {"accuracy": dict.fromkeys(suite.ATTACKS)}
    wanted = {"step": identity.get("step"), "sha256": identity.get("sha256"), "num_examples": num_examples}
    for results in earlier:
        before, checkpoint = _evaluation_of(results), results["checkpoints"].get(name) or {}
        if wanted != {field: checkpoint.get(field) for field in wanted}:
            continue
        for attack, entry in suite.ATTACKS.items():
            accuracy = checkpoint["accuracy"].get(attack)
            is_same = all(before[field] == evaluation[field] for field in entry.settings)
            if accuracy is not None and is_same and measurements["accuracy"][attack] is None:
                details = checkpoint.get(entry.details) if entry.details else None
                record(measurements, attack, accuracy, details, checkpoint.get("correct", {}).get(attack))
    return measurements


def is_trained(results: Results, num_epochs: int) -> bool:
    """Returns whether the last checkpoint of a run is of the last step of its `num_epochs` epochs."""
    finished = results.get("finished")  # Earlier versions did not tell an epoch from a part of it.
    return bool(results["checkpoints"]["last"]["epoch"] + 1 >= num_epochs if finished is None else finished)


def lost(earlier: Results | None, results: Results) -> list[tuple[str, str]]:
    """Returns checkpoints and attacks whose accuracy in earlier results is not that of these, at the same step."""
    if earlier is None:
        return []
    before, now = _evaluation_of(earlier), _evaluation_of(results)
    dropped = []
    for name, old in earlier["checkpoints"].items():
        new = results["checkpoints"].get(name)
        if not (old and new and old.get("step") == new.get("step")):
            continue
        for attack, entry in suite.ATTACKS.items():
            is_same = all(before[field] == now[field] for field in entry.settings)
            if old["accuracy"].get(attack) is not None and not (
                is_same and new["accuracy"][attack] is not None
            ):
                dropped.append((name, attack))
    return dropped


def read_kept(workdir: pathlib.Path) -> list[Results]:
    """Returns the results of evaluations with other settings, results-N.json, the newest first."""
    paths = {
        int(path.stem.rpartition("-")[2]): path
        for path in workdir.glob("results-[0-9]*.json")
        if path.stem.rpartition("-")[2].isdecimal()
    }
    found = []
    for _, path in sorted(paths.items(), reverse=True):
        with contextlib.suppress(UnusableFileError):
            found.append(read(path))
    return found


def keep(workdir: pathlib.Path, results: Results, dropped: Sequence[tuple[str, str]]) -> pathlib.Path:
    """Writes results to results-N.json, and renames the adversarial images of what is dropped with the same number.

    Args:
      workdir: the run's.
      results: of an evaluation with other settings than the next one.
      dropped: checkpoints and attacks that the next one will lack.

    Raises:
      RunError: they cannot be written.
    """
    path = files.numbered(workdir / _NAME, first=1)
    number = path.stem.rpartition("-")[2]
    write_json(path, results)
    for name, attack in dropped:
        images = workdir / adversarial_file(name, attack)
        if images.exists():
            with as_run_errors(images):
                images.rename(images.with_stem(f"{images.stem}-{number}"))
    return path


def adversarial_file(checkpoint: str, attack: str) -> str:
    """Returns the name of the file that keeps the adversarial images of a checkpoint under an attack."""
    return f"adversarial-{checkpoint}-{attack}.npz"


def already_measured(
    results: Results, checkpoint: Checkpoint, attack: str
) -> tuple[float, dict[str, Any] | None, str | None] | None:
    """Returns what is known of an attack on the same step under another name, as `record` takes it.

    None if there are none. The best checkpoint may be the last.
    """
    for other in results["checkpoints"].values():
        if other and other.get("step") == checkpoint.get("step") and other["accuracy"][attack] is not None:
            field = suite.ATTACKS[attack].details
            details = other.get(field) if field else None
            return other["accuracy"][attack], details, other.get("correct", {}).get(attack)
    return None


def record(
    checkpoint: Checkpoint,
    attack: str,
    accuracy: float,
    details: dict[str, Any] | None,
    correct: str | None = None,
) -> None:
    """Enters the accuracy of an attack in percent, the details of its column, and which images are correct."""
    checkpoint["accuracy"][attack] = accuracy
    if correct is not None:
        checkpoint.setdefault("correct", {})[attack] = correct
    if details and (field := suite.ATTACKS[attack].details):
        checkpoint[field] = details


def doubt(checkpoint: Checkpoint) -> str | None:
    """Returns why the robust accuracies of a checkpoint say nothing, in a few words; None: they may say something."""
    clean, chance = checkpoint["accuracy"].get("clean"), checkpoint.get("chance")
    if clean is None or chance is None or clean > chance:
        return None
    return (
        f"a clean accuracy of {clean:.2f} is no better than always answering one class ({chance:.2f}), so its robust "
        "accuracies say nothing"
    )


def doubts(checkpoints: Mapping[str, Checkpoint | None]) -> list[str]:
    """Returns a line for each checkpoint, by name, whose robust accuracies say nothing."""
    found = {name: doubt(checkpoint) for name, checkpoint in checkpoints.items() if checkpoint}
    return [f"{name}: {words}" for name, words in found.items() if words]


def write_results(workdir: pathlib.Path, results: Results) -> None:
    """Writes results.json.

    Raises:
      RunError: it cannot be written.
    """
    write_json(workdir / _NAME, results)
