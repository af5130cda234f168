"""results.json: the accuracies of a run's checkpoints, in percent; null stands for what was not measured."""

import importlib.metadata
import json
import sys

import jax

from jaxrw import settings
from jaxrw.attacks import suite
from jaxrw.runs.checks import is_count, is_number
from jaxrw.runs.machine import machine

# Raise it whenever a reader of the file would understand it wrongly.
SCHEMA = 1

# Names of what is measured: the two checkpoints of a run, or a file of weights that is of none.
CHECKPOINTS = ("last", "best")
FILE = "file"

_PACKAGES = ("jaxrw", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def read_results(workdir):
    """Content of results.json, every number in it checked; None where there is none, or one that cannot be used.

    The latter is said on standard error.
    """
    path = workdir / "results.json"
    if not path.exists():
        return None
    if words := complaint(path):
        print(f"warning: {path}: {words}; it is left out", file=sys.stderr)
        return None
    return json.loads(path.read_text())


def complaint(path):
    """Why a results.json cannot be used, in a few words, or None: nobody shall read a number that is none."""
    try:
        content = json.loads(path.read_text())
        if content["schema"] != SCHEMA:
            return f"its schema is {content['schema']!r}, not {SCHEMA}"
        evaluation = content["config"]["evaluation"]
        if not all(is_number(evaluation[name]) for name in ("eps", "step_size")):
            return "the eps or step_size of its config is no number"
        for name, checkpoint in content["checkpoints"].items():
            if checkpoint is None:
                continue
            # Weights that were trained elsewhere have neither epoch nor step.
            if not all(is_count(checkpoint.get(field, 0)) for field in ("epoch", "step", "num_examples")):
                return f"epoch, step or num_examples of {name!r} is no count"
            for attack, value in checkpoint["accuracy"].items():
                if value is not None and not (is_number(value) and 0 <= value <= 100):
                    return f"the accuracy {attack!r} of {name!r} is {str(value)[:50]}, not in 0..100"
    except (KeyError, IndexError) as error:
        return f"it has no {error}"
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        return f"it is no results of a run ({' '.join(str(error).split())[:100]})"
    return None


def begin_results(config, *, num_examples, kept, about):
    """Results with what is known before anything is measured; null stands for what is not.

    `kept` are earlier results or None; `about` says of each checkpoint which it is, or None where there is none.
    """
    results = {
        "schema": SCHEMA,
        "config": settings.as_json(config),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": f"{jax.device_count()} x {jax.local_devices()[0].device_kind}",
        "machine": machine(),
        "train_seconds": None,
        "checkpoints": {},
    }
    for name, identity in about.items():
        results["checkpoints"][name] = identity and {
            **identity,
            "num_examples": num_examples,
            **_kept_measurements(kept, results["config"], name, identity),
        }
    return results


def _kept_measurements(kept, config, name, about):
    """What earlier results hold for the same checkpoint, of the attacks that were measured with the same settings."""
    measurements = {"accuracy": dict.fromkeys(suite.ATTACKS)}
    checkpoint = kept and kept["checkpoints"].get(name)
    if not checkpoint or any(checkpoint.get(field) != about.get(field) for field in ("step", "sha256")):
        return measurements
    before, now = kept["config"]["evaluation"], config["evaluation"]
    for attack in suite.ATTACKS:
        if all(before[field] == now[field] for field in suite.ATTACKS[attack].settings):
            measurements["accuracy"][attack] = checkpoint["accuracy"][attack]
    if measurements["accuracy"][suite.AUTOATTACK] is not None:
        measurements["autoattack"] = checkpoint["autoattack"]
    return measurements


def already_measured(results, asking, attack):
    """What was measured of the same step under the other name: the best checkpoint may be the last."""
    for checkpoint in results["checkpoints"].values():
        if not checkpoint or checkpoint.get("step") != asking.get("step"):
            continue
        if checkpoint["accuracy"][attack] is not None:
            details = checkpoint.get("autoattack") if attack == suite.AUTOATTACK else None
            return checkpoint["accuracy"][attack], details
    return None


def enter(checkpoint, attack, values):
    """Enter an accuracy, and AutoAttack's details where there are some."""
    checkpoint["accuracy"][attack], details = values
    if details:
        checkpoint["autoattack"] = details
