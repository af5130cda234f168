"""Accuracy of checkpoints on every test image under the attacks of `config.evaluation`, written to results.json."""

import contextlib
import dataclasses
import functools
import hashlib
import pathlib
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxrw import data, figures, runs
from jaxrw.attacks import Progress, RobustnessWarning, autoattack, suite
from jaxrw.attacks.autoattack.bar import AutoAttackProgress
from jaxrw.attacks.autoattack.resume import StateError
from jaxrw.networks import normalizations, torch_weights
from jaxrw.runs import checkpoints
from jaxrw.runs.json_files import as_run_errors, write_json
from jaxrw.runs.metrics import log_evaluation
from jaxrw.runs.packed import pack
from jaxrw.runs.progress import evaluation_bar, print_accuracy
from jaxrw.runs.results import (
    CHECKPOINTS,
    FILE,
    Checkpoint,
    Results,
    adversarial_file,
    already_measured,
    begin_results,
    doubt,
    lost,
    record,
    write_results,
)
from jaxrw.system import files, hosts, preemption
from jaxrw.system.errors import UserError
from jaxrw.training import accuracy, step
from jaxrw.training.augment import to_pixels
from jaxrw.training.experiment import Experiment, create_experiment

# Sections of a config that describe the evaluation of a network trained elsewhere.
_SECTIONS_OF_A_FILE = ("seed", "dataset", "model", "evaluation")

# Test images on which other normalizations of a file are tried, and by how many points one is clearly better.
_NUM_PROBED, _CLEARLY = 200, 10.0

# Returns the variables of a checkpoint by its name.
_Restore = Callable[[str], step.Variables]


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
    if config.evaluation.save_adversarial and jax.process_count() > 1:
        raise UserError(
            f"evaluation.save_adversarial is True on {jax.process_count()} hosts; must be False there: "
            "evaluate the run again on one"
        )
    if checkpoint is not None and checkpoint not in CHECKPOINTS:
        return _evaluate_file(config, workdir, pathlib.Path(checkpoint))
    with (
        open_run(config, workdir, checkpoint=checkpoint, experiment=experiment) as opened,
        preemption.deferring_signals(maximum=hosts.delayed_maximum(), hint=preemption.HINT) as check,
    ):
        experiment, steps = opened.experiment, opened.steps
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
        evaluation = _Evaluation(config, experiment, workdir, check)
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
    restore: _Restore
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
            and (
                not len(experiment.dataset.validation.labels)
                or checkpoints.is_validated(manager, steps["last"])
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
        evaluation = _Evaluation(config, experiment, workdir, check)
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
    results = begin_results(
        config,
        num_examples=len(test.labels),
        chance=test.chance,
        earlier=earlier,
        identities=identities,
        data=runs.provenance.read(workdir),
    )
    if (dropped := lost(earlier, results)) and hosts.is_first():
        kept = files.numbered(workdir / "results.json", first=1)
        write_json(kept, earlier)
        print(
            f"{kept} keeps what was measured with other settings of the evaluation: {', '.join(dropped)}",
            file=sys.stderr,
        )
        # Now, because an attack that is stopped would have them kept once more.
        write_results(workdir, results)
    return results


def _check_normalization(
    found: dict[str, np.ndarray], configured: dict[str, Sequence[float]], path: pathlib.Path
) -> None:
    """Raises UserError if the mean and std of a file are not those of the config."""
    for field, values in found.items():
        if not np.allclose(values, configured[field], atol=1e-3):
            raise UserError(
                f"model.{field} is {tuple(configured[field])}, but {path} normalises by "
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


class _Evaluation:
    """What measures checkpoints, by `config.evaluation`.

    Args:
      config: resolved.
      experiment: the config's.
      workdir: where results.json goes.
      check: raises `Stopped` after a signal.
    """

    def __init__(
        self, config: ConfigDict, experiment: Experiment, workdir: pathlib.Path, check: preemption.Check
    ) -> None:
        self._settings, self._experiment = config.evaluation, experiment
        self._workdir, self._check = workdir, check
        dataset = experiment.dataset
        self._load_corruptions = functools.partial(
            data.load_corruptions,
            config.evaluation.corruptions_dir,
            shape=dataset.test.images.shape[1:],
            num_classes=dataset.num_classes,
            size=config.dataset.test_size,
            downscale=config.dataset.downscale,
        )
        if suite.CORRUPTIONS in config.evaluation.attacks:
            self._load_corruptions()  # Now, because files that do not fit are better found before hours of attacks.

    def measure_missing(self, results: Results, names: Sequence[str], restore: _Restore) -> None:
        """Measures what the results of the named checkpoints lack, and writes results.json after each attack."""
        for name in names:
            variables, checkpoint = restore(name), results["checkpoints"][name]
            for attack in self._settings.attacks:
                images_path, saves_images = self._images_path(name, attack), self._saves_images(attack)
                if checkpoint["accuracy"][attack] is not None and (not saves_images or images_path.exists()):
                    continue
                # Images of other settings, or of a measurement that results.json does not hold.
                images_path.unlink(missing_ok=True)
                values = None if saves_images else already_measured(results, checkpoint, attack)
                values = values or self._measure(name, attack, variables, checkpoint.get("step"))
                print_accuracy(name, attack, values[0])
                record(checkpoint, attack, *values)
                if attack == "clean" and (words := doubt(checkpoint)) and hosts.is_first():
                    print(f"warning: {name}: {words}", file=sys.stderr)
                write_results(self._workdir, results)
                self._remove_states(name, attack)
        write_results(self._workdir, results)

    def _measure(
        self, name: str, attack: str, variables: step.Variables, number: int | None
    ) -> tuple[float, dict[str, Any] | None, str | None]:
        """Returns accuracy, details and correct images of a column as `record` takes them; saves images if asked to.

        `number`: the checkpoint's step; None: it is a file.
        """
        column, details = suite.ATTACKS[attack], None
        if column.measured is suite.Measured.CORRUPTIONS:
            return *self._measure_corruptions(name, variables), None
        if column.measured is suite.Measured.AUTOATTACK:
            measured, details = self._run_autoattack(
                name, variables, column.ensemble, self._state_path(name, attack, number)
            )
        else:
            measured = self._run_attack(f"{name}: {attack}", variables, attack, self._evaluator)
        if self._saves_images(attack):
            _save_images(self._images_path(name, attack), self._experiment.dataset.test.labels, measured)
        return measured.accuracy, details, pack(measured.correct)

    def _saves_images(self, attack: str) -> bool:
        return self._settings.save_adversarial and suite.ATTACKS[attack].is_attack

    def _images_path(self, name: str, attack: str) -> pathlib.Path:
        return self._workdir / adversarial_file(name, attack)

    def _state_path(self, name: str, attack: str, number: int | None) -> pathlib.Path:
        """Returns where the state of an AutoAttack that is not finished is; `number` as of `_measure`."""
        words = [suite.ATTACKS[attack].details, name, number]
        return self._workdir / f"{'-'.join(str(word) for word in words if word is not None)}.npz"

    def _remove_states(self, name: str, attack: str) -> None:
        """Removes the state of an AutoAttack, those of earlier steps, and parts that a kill has left."""
        if suite.ATTACKS[attack].measured is suite.Measured.AUTOATTACK:
            for path in self._workdir.glob(f"{suite.ATTACKS[attack].details}-{name}*.npz*"):
                path.unlink(missing_ok=True)

    @functools.cached_property
    def _evaluator(self) -> accuracy.Evaluator:
        return accuracy.Evaluator(
            self._experiment.evaluation_model,
            self._experiment.dataset.test,
            self._experiment.evaluation_key,
            {
                attack: suite.create(
                    attack,
                    norm=self._settings.norm,
                    eps=self._settings.eps,
                    step_size=self._settings.step_size,
                )
                for attack in self._settings.attacks
                if suite.ATTACKS[attack].measured is suite.Measured.ATTACK
            },
            batch_size=self._settings.batch_size,
            keep_images=self._settings.save_adversarial,
        )

    def _run_attack(
        self, title: str, variables: step.Variables, attack: str, evaluator: accuracy.Evaluator
    ) -> accuracy.Measurement:
        with evaluation_bar(title, evaluator.size) as update:

            def progress(number: int) -> None:
                update(number)
                self._check()

            return evaluator.measure(attack, variables, progress)

    def _measure_corruptions(self, name: str, variables: step.Variables) -> tuple[float, dict[str, float]]:
        """Returns the mean of the accuracies on corrupted test images, and each of them by name, in percent."""
        attacks = {"clean": suite.create("clean", eps=self._settings.eps, step_size=self._settings.step_size)}
        evaluator, found = None, {}
        for corruption, split in self._load_corruptions():
            if evaluator is None:
                evaluator = accuracy.Evaluator(
                    self._experiment.evaluation_model,
                    split,
                    self._experiment.evaluation_key,
                    attacks,
                    batch_size=self._settings.batch_size,
                )
            else:
                evaluator = evaluator.on(split)
            found[corruption] = self._run_attack(
                f"{name}: {corruption}", variables, "clean", evaluator
            ).accuracy
        return statistics.fmean(found.values()), found

    def _run_autoattack(
        self,
        name: str,
        variables: step.Variables,
        attacks: Sequence[str] | None,
        state_path: pathlib.Path,
    ) -> tuple[accuracy.Measurement, dict[str, Any]]:
        """Runs AutoAttack, from `state_path` if it was stopped; also returns its details for results.json.

        `attacks` None: those of the version, which otherwise is the standard one.
        """
        test = self._experiment.dataset.test

        def progress(now: Progress) -> None:
            bar(now)
            if now.together:  # Otherwise the hosts are at different examples.
                self._check(wait=True)

        with (
            as_run_errors(state_path),
            contextlib.closing(AutoAttackProgress(name)) as bar,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", RobustnessWarning)  # They are in the result, and printed below.
            try:
                result = autoattack(
                    self._experiment.evaluation_key,
                    step.logits_function(self._experiment.evaluation_model, variables),
                    np.asarray(to_pixels(test.images)),
                    test.labels,
                    norm=self._settings.norm,
                    eps=self._settings.eps,
                    version=self._settings.version if attacks is None else "standard",
                    attacks=attacks,
                    surrogate=self._experiment.surrogate(self._settings.surrogate, variables),
                    batch_size=self._settings.batch_size,
                    progress=progress,
                    state_path=state_path,
                )
            except StateError as error:
                raise UserError(f"AutoAttack of {name}: {error}") from error
        for warning in result.warnings if hosts.is_first() else ():
            print(f"warning: AutoAttack of {name}: {warning}", file=sys.stderr)
        measured = accuracy.Measurement(result.robust, result.adversarial)
        fields = (
            "norm",
            "version",
            "clean_accuracy",
            "accuracy",
            "attacked",
            "fooled",
            "seconds",
            "num_targets",
            "warnings",
        )
        details = {field: getattr(result, field) for field in fields}
        return measured, details | {
            "surrogate": self._settings.surrogate,
            "unconfirmed": len(result.unconfirmed),
        }


def _save_images(path: pathlib.Path, labels: np.ndarray, measured: accuracy.Measurement) -> None:
    arrays: dict[str, Any] = {"images": measured.adversarial, "labels": labels, "correct": measured.correct}
    with as_run_errors(path), files.replacing(path) as file:
        np.savez_compressed(file, **arrays)


def _update_figures(
    experiment: Experiment,
    workdir: pathlib.Path,
    results: Results,
    name: str,
    restore: _Restore,
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
        elif not redraw:
            return
        hosts.run_on_first(figures.draw_again, workdir)
    with contextlib.closing(runs.MetricsLog(workdir, writers=writers)) as log:
        log.write_image("examples", workdir / "figures" / "examples.png", step=checkpoint["step"])
