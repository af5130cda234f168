"""Accuracy of a run's checkpoints on every test image, under every attack asked for: results.json."""

import contextlib
import importlib.metadata
import pathlib
import sys
import warnings

import jax
import numpy as np

from jaxrw import accuracy, checkpoints, experiment, preemption, runs, step
from jaxrw.attacks import RobustnessWarning, autoattack, suite
from jaxrw.attacks.resume import StateError
from jaxrw.augment import to_pixels
from jaxrw.errors import UserError
from jaxrw.progress import AutoAttackProgress, evaluation_bar, print_measured

CHECKPOINTS = ("last", "best")

_PACKAGES = ("jaxrw", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")

# Fields of `evaluation` that an attack's accuracy depends on, where these are not eps and step_size.
_DECIDING = {"clean": (), "fgsm": ("eps",), "apgd_ce": ("eps",), "aa": ("eps",)}


def run(config, workdir, *, checkpoint=None, parts=None):
    """Evaluate checkpoints of a run and write results.json; returns its content, accuracies in percent.

    What results.json already holds for the same checkpoint and settings is not measured again.

    Args:
      config: resolved ConfigDict; only its `evaluation` section may differ from the run's own.
      workdir: directory of a run.
      checkpoint: "last" or "best"; None: both.
      parts: the config's `Experiment` where it has been created already; None: it is created here.

    Raises:
      UserError: no run or no such checkpoint there, or a config that is not the run's.
      RunError: results.json cannot be written.
      Stopped: SIGTERM or Ctrl-C; attacks that are done are in results.json, and AutoAttack's state in its file.
    """
    workdir = pathlib.Path(workdir)
    if checkpoint not in (None, *CHECKPOINTS):
        raise UserError(f"--checkpoint is {checkpoint!r}; choose of {', '.join(CHECKPOINTS)}")
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"--workdir {workdir} holds no checkpoints; train there first, with --mode train")
    parts = parts or experiment.create(config)
    with (
        runs.open_workdir(workdir, config, may_differ=("evaluation.",)),
        checkpoints.open_checkpoints(workdir / "checkpoints") as manager,
        preemption.listen() as check,
    ):
        steps = {"last": manager.latest_step(), "best": manager.best_step()}
        if steps["last"] is None:
            raise UserError(f"--workdir {workdir} holds no checkpoint yet; train there first")
        if checkpoint and steps[checkpoint] is None:
            raise UserError(
                f"--checkpoint is {checkpoint!r}, but nothing has been validated (dataset.validation_size is "
                f"{config.dataset.validation_size}): there is only 'last'"
            )
        results = _begin_results(config, workdir, parts, steps)
        measure = _create_measure(config, parts, workdir, check)
        names = [name for name in ((checkpoint,) if checkpoint else CHECKPOINTS) if steps[name] is not None]
        for name in names:
            state = checkpoints.restore(manager, steps[name], step.replicate(parts.create_state()))
            for attack in config.evaluation.attacks:
                if results["checkpoints"][name]["accuracy"][attack] is None:
                    same = _already_measured(results, steps[name], attack)
                    values = measure(attack, state.variables, name) if same is None else same
                    print_measured(name, attack, values[0])
                    _enter(results["checkpoints"][name], attack, values)
                    runs.write_json(workdir / "results.json", results)
                    if attack == suite.AUTOATTACK:
                        _state_path(workdir, name).unlink(missing_ok=True)
        runs.write_json(workdir / "results.json", results)
        _log(workdir, {name: results["checkpoints"][name] for name in names}, config.evaluation)
    return results


def _begin_results(config, workdir, parts, steps):
    """Results with what is known before anything is measured; null stands for what is not."""
    results = {
        "schema": 1,
        "config": runs.as_json(config),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}",
        "train_seconds": round(sum(line.get("seconds", 0) for line in runs.read_metrics(workdir)), 1),
        "checkpoints": {},
    }
    kept = runs.read_results(workdir)
    for name, number in steps.items():
        results["checkpoints"][name] = number and {
            "epoch": (number - 1) // parts.steps_per_epoch,
            "step": number,
            "num_examples": len(parts.dataset.test.labels),
            **_kept_measurements(kept, results["config"], name, number),
        }
    return results


def _kept_measurements(kept, config, name, number):
    """What earlier results hold for the same checkpoint, of the attacks that were measured with the same settings."""
    measurements = {"accuracy": dict.fromkeys(suite.ATTACKS)}
    checkpoint = kept and kept["checkpoints"][name]
    if not checkpoint or checkpoint["step"] != number:
        return measurements
    before, now = kept["config"]["evaluation"], config["evaluation"]
    for attack in suite.ATTACKS:
        if all(before[field] == now[field] for field in _DECIDING.get(attack, ("eps", "step_size"))):
            measurements["accuracy"][attack] = checkpoint["accuracy"][attack]
    if measurements["accuracy"][suite.AUTOATTACK] is not None:
        measurements["autoattack"] = checkpoint["autoattack"]
    return measurements


def _already_measured(results, number, attack):
    """What was measured of the same step under the other name: the best checkpoint may be the last."""
    for checkpoint in results["checkpoints"].values():
        if checkpoint and checkpoint["step"] == number and checkpoint["accuracy"][attack] is not None:
            details = checkpoint.get("autoattack") if attack == suite.AUTOATTACK else None
            return checkpoint["accuracy"][attack], details
    return None


def _enter(checkpoint, attack, values):
    """Enter an accuracy, and AutoAttack's details where there are some."""
    checkpoint["accuracy"][attack], details = values
    if details:
        checkpoint["autoattack"] = details


def _create_measure(config, parts, workdir, check):
    """Function (attack, variables, checkpoint's name) -> accuracy in percent and details; each is compiled once."""
    images, labels = accuracy.replicated(parts.dataset.test)
    key = step.replicate(parts.evaluation_key)
    evaluation = config.evaluation
    settings = {"eps": evaluation.eps, "step_size": evaluation.step_size}
    counters = {
        name: accuracy.create(parts.evaluation_model, suite.create(name, **settings))
        for name in evaluation.attacks
        if name != suite.AUTOATTACK
    }

    def measure(attack, variables, name):
        if attack == suite.AUTOATTACK:
            logits_fn = step.logits_function(parts.evaluation_model, variables)
            path = _state_path(workdir, name)
            return _autoattack(parts, logits_fn, name, evaluation=evaluation, state_path=path, check=check)
        with evaluation_bar(f"{name}: {attack}", len(labels)) as bar:
            options = {
                "batch_size": evaluation.batch_size,
                "progress": lambda number: (bar.update(number), check()),
            }
            return accuracy.measure(counters[attack], variables, key, images, labels, **options), None

    return measure


def _state_path(workdir, name):
    """Where an AutoAttack that is not finished keeps how far it is."""
    return workdir / f"autoattack-{name}.npz"


def _autoattack(parts, logits_fn, name, *, evaluation, state_path, check):
    """AutoAttack's accuracy in percent, and what each of its attacks did."""
    test = parts.dataset.test
    with contextlib.closing(AutoAttackProgress(name)) as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore", RobustnessWarning)  # they are in the result, and printed below
        try:
            result = autoattack(
                parts.evaluation_key,
                logits_fn,
                np.asarray(to_pixels(test.images)),
                test.labels,
                eps=evaluation.eps,
                batch_size=evaluation.batch_size,
                progress=lambda now: (progress(now), check()),
                state_path=state_path,
            )
        except StateError as error:
            raise UserError(f"AutoAttack of {name}: {error}") from error
    for warning in result.warnings:
        print(f"warning: AutoAttack of {name}: {warning}", file=sys.stderr)
    fields = ("clean_accuracy", "accuracy", "attacked", "fooled", "seconds", "num_targets", "warnings")
    return 100 * float(result.robust.mean()), {field: getattr(result, field) for field in fields}


def _log(workdir, measured, evaluation):
    """A line in metrics.jsonl for each checkpoint of which results.json has what the log has not.

    Compared, because a kill may have come between the two.
    """
    settings = {"eps": evaluation.eps, "step_size": evaluation.step_size}
    with contextlib.closing(runs.MetricsLog(workdir)) as log:
        for name, checkpoint in measured.items():
            place = {"checkpoint": name, "epoch": checkpoint["epoch"], "step": checkpoint["step"]}
            found = [line for line in log.lines if line.items() >= place.items()]
            new = {
                attack: value
                for attack, value in checkpoint["accuracy"].items()
                if value is not None and not any(_is_logged(attack, value, settings, line) for line in found)
            }
            if new:
                log.write("evaluation", **place, **settings, **new)


def _is_logged(attack, value, settings, line):
    """Whether a line of the log holds an accuracy, measured with the same settings."""
    return line.get(attack) == value and all(
        line.get(field) == settings[field] for field in _DECIDING.get(attack, ("eps", "step_size"))
    )
