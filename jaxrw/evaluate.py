"""Accuracy of checkpoints on every test image under the attacks of `config.evaluation`, written to results.json."""

import contextlib
import dataclasses
import hashlib
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxrw import figures, runs
from jaxrw.measure import Evaluation, Restore
from jaxrw.networks import normalizations, torch_weights
from jaxrw.runs import checkpoints
from jaxrw.runs.json_files import as_run_errors, read_object
from jaxrw.runs.metrics import log_evaluation
from jaxrw.runs.results import (
    CHECKPOINTS,
    FILE,
    Checkpoint,
    Results,
    begin_results,
    keep,
    lost,
    read_kept,
    write_results,
)
from jaxrw.system import hosts, preemption
from jaxrw.system.errors import UserError
from jaxrw.training import step
from jaxrw.training.augment import to_pixels
from jaxrw.training.experiment import Experiment, create_experiment

# Sections of a config that describe the evaluation of a network trained elsewhere.
_SECTIONS_OF_A_FILE = ("seed", "dataset", "model", "evaluation")

# Test images on which other normalizations of a file are tried, and by how many points one is clearly better.
_NUM_PROBED, _CLEARLY = 200, 10.0


def run(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    checkpoint: str | pathlib.Path | None = None,
    experiment: Experiment | None = None,
) -> Results:
    """Evaluates checkpoints and writes results.json; returns its content, accuracies in percent.

    What results.json already holds for the same checkpoint and settings is not measured again.

    Args:
      config: resolved ConfigDict; only its `evaluation` section may differ from the run's own.
      workdir: directory of a run; for a file, a directory of its own.
      checkpoint: "last", "best", or a file of PyTorch weights, see `jaxrw.networks.torch_weights`; None: last and best.
      experiment: the config's, if it exists already; None: it is created.

    Raises:
      UserError: no run or no such checkpoint there, a config that is not the run's, weights that do not fit it.
      RunError: results.json cannot be written.
      Stopped: SIGTERM or Ctrl-C; finished attacks are in results.json, and AutoAttack's state in its file.
    """
    workdir = pathlib.Path(workdir)
    writers = runs.writers.names(config)
    if checkpoint is not None and checkpoint not in CHECKPOINTS:
        return _evaluate_file(config, workdir, pathlib.Path(checkpoint))
    with (
        open_run(config, workdir, checkpoint=checkpoint, experiment=experiment) as opened,
        preemption.deferring_signals(maximum=hosts.delayed_maximum(), hint=preemption.HINT) as check,
    ):
        experiment, steps = opened.experiment, opened.steps
        config = _with_own_selection(config, workdir)
        identities = {
            name: {"epoch": (steps[name] - 1) // experiment.steps_per_epoch, "step": steps[name]}
            if name in steps
            else None
            for name in CHECKPOINTS
        }
        earlier = hosts.broadcast(runs.read_results(workdir))
        results = _begin(config, experiment, workdir, earlier, identities)
        lines = runs.read_metrics(workdir)
        results["train_seconds"] = round(sum(line.get("seconds", 0) for line in lines), 1)
        results["finished"] = opened.is_finished
        results["warmup_from"] = runs.warmup.source_of(lines)
        names = [name for name in steps if checkpoint in (None, name)]
        evaluation = Evaluation(config, experiment, workdir, check)
        evaluation.measure_missing(results, names, opened.restore)
        evaluated = {name: results["checkpoints"][name] for name in names}
        log_evaluation(workdir, evaluated, results["config"]["evaluation"], writers=writers)
        if config.evaluation.figure_examples:
            shown = names[0]  # The last, unless only the best is asked for.
            _update_figures(
                experiment,
                workdir,
                results,
                shown,
                opened.restore,
                redraw=hosts.broadcast(results != earlier),
                writers=writers,
            )
    return results


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A run whose checkpoints are open.

    Attributes:
      experiment: its config's.
      steps: of each checkpoint that there is, "last" and "best".
      restore: returns the variables of one of these.
      is_finished: whether the last one ends the training, its validation included.
    """

    experiment: Experiment
    steps: dict[str, int]
    restore: Restore
    is_finished: bool


@contextlib.contextmanager
def open_run(
    config: ConfigDict,
    workdir: pathlib.Path,
    *,
    checkpoint: str | pathlib.Path | None = None,
    experiment: Experiment | None = None,
) -> Iterator[OpenRun]:
    """Opens the checkpoints of a run; arguments and errors as of `run`, without files."""
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"--workdir {workdir} holds no checkpoints; train there first, with --mode train")
    experiment = experiment or create_experiment(config)
    with (
        runs.open_workdir(workdir, config, data=experiment.dataset.fingerprint, may_differ=("evaluation.",)),
        checkpoints.open_checkpoints(workdir / "checkpoints") as manager,
    ):
        numbers = {"last": manager.latest_step(), "best": manager.best_step()}
        steps = {name: number for name, number in numbers.items() if number is not None}
        if not steps:
            raise UserError(f"--workdir {workdir} holds no checkpoint yet; train there first")
        if checkpoint == "best" and "best" not in steps:
            raise UserError(
                "--checkpoint is 'best', but nothing has been validated (there are "
                f"{len(experiment.dataset.validation.labels)} validation images): there is only 'last'"
            )
        template = step.replicated_shapes(experiment.state_shapes())
        is_last_step = steps["last"] == experiment.steps_per_epoch * config.optim.num_epochs
        yield OpenRun(
            experiment,
            steps,
            lambda name: checkpoints.restore(manager, steps[name], template).evaluated,
            is_finished=is_last_step
            and checkpoints.is_validated(
                manager, steps["last"], num_images=len(experiment.dataset.validation.labels)
            ),
        )


def _evaluate_file(config: ConfigDict, workdir: pathlib.Path, path: pathlib.Path) -> Results:
    """Evaluates a file of PyTorch weights; only the sections of the config that describe it count."""
    if not path.is_file():
        raise UserError(
            f"--checkpoint is {str(path)!r}; choose of {', '.join(CHECKPOINTS)}, or a file of PyTorch weights, "
            "as model.pt or model.safetensors"
        )
    if (workdir / "checkpoints").is_dir():
        raise UserError(f"--workdir {workdir} holds a run; {path.name} needs a directory of its own")
    experiment = create_experiment(config)
    variables = torch_weights.load(path, model=experiment.model, num_classes=experiment.dataset.num_classes)
    if "normalization" in variables and config.model.mean is not None:
        _check_normalization(
            variables["normalization"], {"mean": config.model.mean, "std": config.model.std}, path
        )
    elif "normalization" not in variables:
        _doubt_normalization(experiment, variables, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    _read_earlier(workdir, path, digest)  # So that nothing is written if they are of others.
    sections = type(config)({name: config[name] for name in _SECTIONS_OF_A_FILE})
    identities = {FILE: {"path": str(path), "sha256": digest}}
    with (
        runs.open_workdir(
            workdir, sections, data=experiment.dataset.fingerprint, may_differ=("evaluation.",)
        ),
        preemption.deferring_signals(maximum=hosts.delayed_maximum(), hint=preemption.HINT) as check,
    ):
        results = _begin(sections, experiment, workdir, _read_earlier(workdir, path, digest), identities)
        evaluation = Evaluation(config, experiment, workdir, check)
        evaluation.measure_missing(results, [FILE], lambda name: step.replicate(variables))
    return results


def _read_earlier(workdir: pathlib.Path, path: pathlib.Path, digest: str) -> Results | None:
    """Returns earlier results of a file of weights, None if there are none; raises UserError if they are of others."""
    earlier: Results | None = hosts.broadcast(runs.read_results(workdir))
    if earlier and (earlier["checkpoints"].get(FILE) or {}).get("sha256") != digest:
        raise UserError(f"--workdir {workdir} holds results of other weights than {path}; choose another")
    return earlier


def _begin(
    config: ConfigDict,
    experiment: Experiment,
    workdir: pathlib.Path,
    earlier: Results | None,
    identities: Mapping[str, Checkpoint | None],
) -> Results:
    """Returns results before anything is measured, see `begin_results`; keeps a file that has others."""
    test = experiment.dataset.test
    kept: list[Results] = hosts.broadcast(read_kept(workdir))
    results = begin_results(
        config,
        num_examples=len(test.labels),
        chance=test.chance,
        earlier=earlier,
        kept=kept,
        identities=identities,
        data=runs.provenance.read(workdir),
    )
    if earlier and earlier not in kept and (dropped := lost(earlier, results)) and hosts.is_first():
        path = keep(workdir, earlier, dropped)
        names = ", ".join(" ".join(pair) for pair in dropped)
        print(
            f"{path} keeps what was measured with other settings of the evaluation: {names}", file=sys.stderr
        )
        # Now, because an attack that is stopped would have them kept once more.
        write_results(workdir, results)
    return results


def _with_own_selection(config: ConfigDict, workdir: pathlib.Path) -> ConfigDict:
    """Returns the config with the `selection_steps` that chose a run's best checkpoint; says so if it asks for others.

    Only training reads the field.
    """
    asked = config.evaluation.selection_steps
    own = hosts.broadcast(read_object(workdir / "config.json"))["evaluation"]["selection_steps"]
    if own == asked:
        return config
    if hosts.is_first():
        words = f"evaluation.selection_steps is {asked}; {workdir} chose its best checkpoint with {own}, which stays"
        print(f"warning: {words}", file=sys.stderr)
    config = config.copy_and_resolve_references()
    config.evaluation.selection_steps = own
    return config


def _check_normalization(
    found: dict[str, np.ndarray], configured: dict[str, Sequence[float]], path: pathlib.Path
) -> None:
    """Raises UserError if the mean and std of a file are not those of the config."""
    for field, values in found.items():
        if not np.allclose(values, configured[field], atol=1e-3):
            raise UserError(
                f"model.{field} is {tuple(configured[field])}, but {path} normalizes by "
                f"{tuple(round(float(value), 4) for value in values)} itself; leave it out"
            )


def _doubt_normalization(experiment: Experiment, variables: step.Variables, path: pathlib.Path) -> None:
    """Warns if a file without a mean and std is clearly better with usual ones than with those of the config."""
    model, test = experiment.evaluation_model, experiment.dataset.test
    images, labels = jnp.asarray(to_pixels(test.images[:_NUM_PROBED])), jnp.asarray(test.labels[:_NUM_PROBED])
    values, highest, own = normalizations.best(model, variables, images, labels)
    if highest < own + _CLEARLY or not hosts.is_first():
        return
    mean, std = values or (None, None)
    print(
        f"warning: {path} does not tell how its images were normalized: with model.mean={mean} and model.std={std} the "
        f"clean accuracy of the first {len(labels)} test images is {highest:.1f}, here {own:.1f}",
        file=sys.stderr,
    )


def _update_figures(
    experiment: Experiment,
    workdir: pathlib.Path,
    results: Results,
    name: str,
    restore: Restore,
    redraw: bool,
    writers: Sequence[str],
) -> None:
    """Measures what the figures of a checkpoint show if it is missing, and then, or with `redraw`, draws them all."""
    fields = ("norm", "eps", "step_size", "batch_size", "figure_examples", "figure_eps")
    settings = {field: results["config"]["evaluation"][field] for field in fields}
    checkpoint = {"name": name} | {field: results["checkpoints"][name][field] for field in ("epoch", "step")}
    what = {"checkpoint": checkpoint, "settings": settings}
    with as_run_errors(workdir / "figures"):
        if not hosts.broadcast(figures.is_measured(workdir / "figures", **what)):
            hosts.run_on_first(figures.measure, experiment, restore(name), workdir / "figures", **what)
        elif not redraw and hosts.broadcast(figures.are_drawn(workdir / "figures")):
            return
        hosts.run_on_first(figures.draw_again, workdir)
    with contextlib.closing(runs.MetricsLog(workdir, writers=writers)) as log:
        log.write_image("examples", workdir / "figures" / "examples.png", step=checkpoint["step"])
