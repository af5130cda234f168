"""The accuracy of a checkpoint in each column of the tables, by `config.evaluation`."""

import contextlib
import functools
import pathlib
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxrw.attacks import Progress, RobustnessWarning, autoattack, suite
from jaxrw.attacks.autoattack.bar import AutoAttackProgress
from jaxrw.attacks.autoattack.resume import StateError
from jaxrw.runs.json_files import as_run_errors
from jaxrw.runs.packed import pack
from jaxrw.runs.progress import evaluation_bar, print_accuracy
from jaxrw.runs.results import Results, adversarial_file, already_measured, doubt, record, write_results
from jaxrw.system import files, hosts, preemption
from jaxrw.system.errors import UserError
from jaxrw.training import accuracy, step
from jaxrw.training.augment import to_pixels
from jaxrw.training.experiment import Experiment, load_corruptions

# Returns the variables of a checkpoint by its name.
Restore = Callable[[str], step.Variables]


class Evaluation:
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
        self._load_corruptions = functools.partial(load_corruptions, config, experiment.dataset)

    def measure_missing(self, results: Results, names: Sequence[str], restore: Restore) -> None:
        """Measures what the results of the named checkpoints lack, and writes results.json after each attack."""
        for name in names:
            variables, checkpoint = restore(name), results["checkpoints"][name]
            for attack in self._settings.attacks:
                images_path, saves_images = self._images_path(name, attack), self._saves_images(attack)
                if checkpoint["accuracy"][attack] is not None and (not saves_images or images_path.exists()):
                    continue
                # Of another step, or of a measurement that results.json does not hold.
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
        surrogate = self._settings.surrogate
        words = [suite.ATTACKS[attack].details, name, number, None if surrogate == "none" else surrogate]
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
