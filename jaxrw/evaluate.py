"""Accuracy of checkpoints on every test image, under every attack asked for: results.json."""

import contextlib
import hashlib
import pathlib
import sys
import warnings

import jax
import numpy as np

from jaxrw import figures, runs
from jaxrw.attacks import RobustnessWarning, autoattack, suite
from jaxrw.attacks.autoattack.resume import StateError
from jaxrw.networks import torch_weights
from jaxrw.runs import checkpoints
from jaxrw.runs.metrics import log_evaluation
from jaxrw.runs.progress import AutoAttackProgress, evaluation_bar, print_measured
from jaxrw.runs.results import CHECKPOINTS, FILE, already_measured, begin_results, enter
from jaxrw.system import files, hosts, preemption
from jaxrw.system.errors import UserError
from jaxrw.training import accuracy, experiment, step
from jaxrw.training.augment import to_pixels

# Sections of a config that say something about a network trained elsewhere.
_SECTIONS_OF_A_FILE = ("seed", "dataset", "model", "evaluation")


def run(config, workdir, *, checkpoint=None, parts=None):
    """Evaluate checkpoints and write results.json; returns its content, accuracies in percent.

    What results.json already holds for the same checkpoint and settings is not measured again.

    Args:
      config: resolved ConfigDict; only its `evaluation` section may differ from the run's own.
      workdir: directory of a run; for a file, a directory of its own.
      checkpoint: "last" or "best"; None: both; or a file of PyTorch weights, as `jaxrw.torch_weights` reads them.
      parts: the config's `Experiment` where it has been created already; None: it is created here.

    Raises:
      UserError: no run or no such checkpoint there, a config that is not the run's, weights that do not fit it.
      RunError: results.json cannot be written.
      Stopped: SIGTERM or Ctrl-C; attacks that are done are in results.json, and AutoAttack's state in its file.
    """
    workdir = pathlib.Path(workdir)
    if config.evaluation.save_adversarial and jax.process_count() > 1:
        raise UserError(
            f"evaluation.save_adversarial is True on {jax.process_count()} hosts; must be False there: "
            "evaluate the run again on one"
        )
    if checkpoint not in (None, *CHECKPOINTS):
        return _run_file(config, workdir, pathlib.Path(checkpoint))
    with (
        open_run(config, workdir, checkpoint=checkpoint, parts=parts) as (parts, steps, variables_of),
        preemption.listen(agree=hosts.largest()) as check,
    ):
        about = {
            name: number and {"epoch": (number - 1) // parts.steps_per_epoch, "step": number}
            for name, number in steps.items()
        }
        kept = hosts.agree(runs.read_results(workdir))
        results = begin_results(config, num_examples=len(parts.dataset.test.labels), kept=kept, about=about)
        lines = runs.read_metrics(workdir)
        results["train_seconds"] = round(sum(line.get("seconds", 0) for line in lines), 1)
        results["warmup_from"] = runs.warmup.source_of(lines)
        names = [name for name in ((checkpoint,) if checkpoint else CHECKPOINTS) if steps[name] is not None]
        _measure(config, parts, workdir, results, {name: variables_of(name) for name in names}, check)
        log_evaluation(workdir, {name: results["checkpoints"][name] for name in names}, config.evaluation)
        if config.evaluation.figure_examples:
            shown = names[0]  # the last, unless the best alone is asked for
            measured = _measure_figures(parts, workdir, results, shown, variables_of(shown))
            if measured or results != kept:
                _draw_figures(workdir, step=steps[shown])
    return results


@contextlib.contextmanager
def open_run(config, workdir, *, checkpoint=None, parts=None):
    """Checkpoints of a run: its parts, {"last", "best": step or None}, and a function (name) -> () -> variables.

    Arguments and errors as of `run`, but for files.
    """
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"--workdir {workdir} holds no checkpoints; train there first, with --mode train")
    parts = parts or experiment.create(config)
    with (
        runs.open_workdir(workdir, config, may_differ=("evaluation.",)),
        checkpoints.open_checkpoints(workdir / "checkpoints") as manager,
    ):
        steps = {"last": manager.latest_step(), "best": manager.best_step()}
        if steps["last"] is None:
            raise UserError(f"--workdir {workdir} holds no checkpoint yet; train there first")
        if checkpoint and steps[checkpoint] is None:
            raise UserError(
                f"--checkpoint is {checkpoint!r}, but nothing has been validated (dataset.validation_size is "
                f"{config.dataset.validation_size}): there is only 'last'"
            )

        template = step.replicated_shapes(parts.state_shapes())

        def variables_of(name):
            return lambda: checkpoints.restore(manager, steps[name], template).variables

        yield parts, steps, variables_of


def _run_file(config, workdir, path):
    """`run` for a file of PyTorch weights: only the sections that say something about it count."""
    if not path.is_file():
        raise UserError(
            f"--checkpoint is {str(path)!r}; choose of {', '.join(CHECKPOINTS)}, or a file of PyTorch weights, "
            "as model.pt or model.safetensors"
        )
    if (workdir / "checkpoints").is_dir():
        raise UserError(f"--workdir {workdir} holds a run; {path.name} needs a directory of its own")
    parts = experiment.create(config)
    variables = torch_weights.load(path, model=parts.model, num_classes=parts.dataset.num_classes)
    _check_normalization(config, variables, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    kept = hosts.agree(runs.read_results(workdir))
    if kept and kept["checkpoints"].get(FILE, {}).get("sha256") != digest:
        raise UserError(f"--workdir {workdir} holds results of other weights than {path}; choose another")
    sections = type(config)({name: config[name] for name in _SECTIONS_OF_A_FILE})
    about = {FILE: {"path": str(path), "sha256": digest}}
    with (
        runs.open_workdir(workdir, sections, may_differ=("evaluation.",)),
        preemption.listen(agree=hosts.largest()) as check,
    ):
        results = begin_results(sections, num_examples=len(parts.dataset.test.labels), kept=kept, about=about)
        _measure(config, parts, workdir, results, {FILE: lambda: step.replicate(variables)}, check)
    return results


def _check_normalization(config, variables, path):
    """Refuse a mean and std that contradict those of the file."""
    if "normalization" not in variables or config.model.mean is None:
        return
    for field, values in variables["normalization"].items():
        if not np.allclose(values, config.model[field], atol=1e-3):
            raise UserError(
                f"model.{field} is {tuple(config.model[field])}, but {path} normalises by "
                f"{tuple(round(float(value), 4) for value in values)} itself; leave it out"
            )


def _measure(config, parts, workdir, results, variables_of, check):
    """Measure what results do not hold yet, and write them after each attack."""
    measure = _create_measure(config, parts, workdir, check)
    for name, load in variables_of.items():
        variables, checkpoint = load(), results["checkpoints"][name]
        for attack in config.evaluation.attacks:
            images_path = workdir / f"adversarial-{name}-{attack}.npz"
            keep = config.evaluation.save_adversarial and attack != "clean"
            if checkpoint["accuracy"][attack] is not None and (not keep or images_path.exists()):
                continue
            images_path.unlink(missing_ok=True)  # of other settings, or of nothing that results.json knows
            same = None if keep else already_measured(results, checkpoint, attack)
            values = same or measure(attack, variables, name, images_path if keep else None)
            print_measured(name, attack, values[0])
            enter(checkpoint, attack, values)
            runs.write_json(workdir / "results.json", results)
            if attack == suite.AUTOATTACK:
                _state_path(workdir, name).unlink(missing_ok=True)
    runs.write_json(workdir / "results.json", results)


def _measure_figures(parts, workdir, results, name, load):
    """Measure what the figures of a checkpoint show, unless that is there; whether it was measured."""
    names = ("eps", "step_size", "batch_size", "figure_examples", "figure_eps")
    settings = {field: results["config"]["evaluation"][field] for field in names}
    where = {field: results["checkpoints"][name][field] for field in ("epoch", "step")}
    what = {"checkpoint": {"name": name, **where}, "settings": settings}
    if hosts.agree(figures.is_measured(workdir / "figures", **what)):
        return False
    hosts.first_does(figures.measure, parts, load(), workdir / "figures", **what)
    return True


def _draw_figures(workdir, *, step):
    """Draw them all, and show the examples in TensorBoard."""
    hosts.first_does(figures.draw_again, workdir)
    with contextlib.closing(runs.MetricsLog(workdir)) as log:
        log.write_image("examples", workdir / "figures" / "examples.png", step=step)


def _create_measure(config, parts, workdir, check):
    """Function (attack, variables, checkpoint's name, images' path) -> accuracy and details; compiled once each."""
    images, labels = accuracy.replicated(parts.dataset.test)
    key = step.replicate(parts.evaluation_key)
    evaluation = config.evaluation
    settings = {"eps": evaluation.eps, "step_size": evaluation.step_size}
    # With images to be kept another program runs: it hands them out instead of counting.
    create = accuracy.create_keeper if evaluation.save_adversarial else accuracy.create
    programs = {
        name: create(parts.evaluation_model, suite.create(name, **settings))
        for name in evaluation.attacks
        if name != suite.AUTOATTACK
    }

    def measure(attack, variables, name, images_path):
        if attack == suite.AUTOATTACK:
            logits_fn = step.logits_function(parts.evaluation_model, variables)
            paths = {"state_path": _state_path(workdir, name), "images_path": images_path}
            return _autoattack(parts, logits_fn, name, evaluation=evaluation, check=check, **paths)
        with evaluation_bar(f"{name}: {attack}", len(labels)) as bar:
            arguments = programs[attack], variables, key, images, labels
            options = {
                "batch_size": evaluation.batch_size,
                "progress": lambda number: (bar.update(number), check()),
            }
            if not evaluation.save_adversarial:
                return accuracy.measure(*arguments, **options), None
            percent, adversarial, correct = accuracy.measure_and_keep(*arguments, **options)
        if images_path:
            _save_images(images_path, adversarial, parts.dataset.test.labels, correct)
        return percent, None

    return measure


def _save_images(path, adversarial, labels, correct):
    """Write images [N, H, W, C] float32, labels and whether each is still classified correctly."""
    with files.replacing(path) as file:
        np.savez_compressed(file, images=adversarial, labels=labels, correct=correct)


def _state_path(workdir, name):
    """Where an AutoAttack that is not finished keeps how far it is."""
    return workdir / f"autoattack-{name}.npz"


def _autoattack(parts, logits_fn, name, *, evaluation, check, state_path, images_path):
    """AutoAttack's accuracy in percent, and what each of its attacks did."""
    test = parts.dataset.test

    def tell(now):
        progress(now)
        if now.together:  # hosts look at their own examples at moments of their own
            check(wait=True)

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
                progress=tell,
                state_path=state_path,
            )
        except StateError as error:
            raise UserError(f"AutoAttack of {name}: {error}") from error
    if images_path:
        _save_images(images_path, result.adversarial, test.labels, result.robust)
    for warning in result.warnings if hosts.is_first() else ():
        print(f"warning: AutoAttack of {name}: {warning}", file=sys.stderr)
    fields = ("clean_accuracy", "accuracy", "attacked", "fooled", "seconds", "num_targets", "warnings")
    return 100 * float(result.robust.mean()), {field: getattr(result, field) for field in fields}
