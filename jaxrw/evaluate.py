"""Accuracy of a run's checkpoints on every test image, under every attack asked for: results.json."""

import contextlib
import importlib.metadata
import pathlib

import jax

from jaxrw import accuracy, checkpoints, experiment, runs, step
from jaxrw.attacks import suite
from jaxrw.errors import UserError
from jaxrw.progress import evaluation_bar

CHECKPOINTS = ("last", "best")

_PACKAGES = ("jaxrw", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")

# Fields of `evaluation` that change no measured number.
_NUMBER_FREE = ("attacks", "batch_size", "selection_steps")


def run(config, workdir, *, checkpoint=None):
    """Evaluate checkpoints of a run and write results.json; returns its content, accuracies in percent.

    What results.json already holds for the same checkpoint and settings is not measured again.

    Args:
      config: resolved ConfigDict; only its `evaluation` section may differ from the run's own.
      workdir: directory of a run.
      checkpoint: "last" or "best"; None: both.

    Raises:
      UserError: no run or no such checkpoint there, or a config that is not the run's.
    """
    workdir = pathlib.Path(workdir)
    if checkpoint not in (None, *CHECKPOINTS):
        raise UserError(f"--checkpoint is {checkpoint!r}; choose of {', '.join(CHECKPOINTS)}")
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"--workdir {workdir} holds no checkpoints; train there first, with --mode train")
    parts = experiment.create(config)
    runs.open_workdir(workdir, config, may_differ=("evaluation.",))
    with checkpoints.open_checkpoints(workdir / "checkpoints") as manager:
        steps = {"last": manager.latest_step(), "best": manager.best_step()}
        if steps["last"] is None:
            raise UserError(f"--workdir {workdir} holds no checkpoint yet; train there first")
        if checkpoint and steps[checkpoint] is None:
            raise UserError(
                f"--checkpoint is {checkpoint!r}, but dataset.validation_size is 0: there is only 'last'"
            )
        results = _begin_results(config, workdir, parts, steps)
        measure = _create_measure(config, parts)
        for name in (checkpoint,) if checkpoint else CHECKPOINTS:
            if steps[name] is None:
                continue
            state = checkpoints.restore(manager, steps[name], step.replicate(parts.create_state()))
            measured = results["checkpoints"][name]["accuracy"]
            for attack in config.evaluation.attacks:
                if measured[attack] is None:
                    same = _already_measured(results, steps[name], attack)
                    measured[attack] = measure(attack, state.variables, name) if same is None else same
                    runs.write_json(workdir / "results.json", results)
    runs.write_json(workdir / "results.json", results)
    _log(workdir, results)
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
            "accuracy": dict.fromkeys(suite.ATTACKS) | _kept_accuracy(kept, results["config"], name, number),
        }
    return results


def _kept_accuracy(kept, config, name, number):
    """Accuracies of earlier results for the same checkpoint, if they were measured with the same settings."""

    def numbers(section):
        return {field: value for field, value in section.items() if field not in _NUMBER_FREE}

    checkpoint = kept and kept["checkpoints"][name]
    if not checkpoint or checkpoint["step"] != number:
        return {}
    return (
        checkpoint["accuracy"]
        if numbers(kept["config"]["evaluation"]) == numbers(config["evaluation"])
        else {}
    )


def _already_measured(results, number, attack):
    """Accuracy of the same step under the other name: the best checkpoint may be the last."""
    for checkpoint in results["checkpoints"].values():
        if checkpoint and checkpoint["step"] == number and checkpoint["accuracy"][attack] is not None:
            return checkpoint["accuracy"][attack]
    return None


def _create_measure(config, parts):
    """Function (attack, variables, checkpoint's name) -> accuracy in percent; each attack is compiled once."""
    images, labels = accuracy.replicated(parts.dataset.test)
    key = step.replicate(parts.evaluation_key)
    evaluation = config.evaluation
    counters = {
        name: accuracy.create(
            parts.model, suite.create(name, eps=evaluation.eps, step_size=evaluation.step_size)
        )
        for name in evaluation.attacks
    }

    def measure(attack, variables, name):
        with evaluation_bar(f"{name}: {attack}", len(labels)) as bar:
            return accuracy.measure(
                counters[attack],
                variables,
                key,
                images,
                labels,
                batch_size=evaluation.batch_size,
                progress=bar.update,
            )

    return measure


def _log(workdir, results):
    """One line a checkpoint in metrics.jsonl, in place of those of an earlier evaluation."""
    last = results["checkpoints"]["last"]["step"]
    with contextlib.closing(runs.MetricsLog(workdir, step=last)) as log:
        for name, checkpoint in results["checkpoints"].items():
            if checkpoint:
                where = {"epoch": checkpoint["epoch"], "step": checkpoint["step"]}
                log.write("evaluation", checkpoint=name, **where, **checkpoint["accuracy"])
