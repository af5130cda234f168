"""The training loop: epochs, validation, checkpoints and logs. A run that was interrupted resumes where it stopped."""

import contextlib
import dataclasses
import functools
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from jaxrw import methods, runs, settings
from jaxrw.attacks import pgd_and_kappa, suite
from jaxrw.data import Dataset, ExtraImages, load_extra
from jaxrw.runs import checkpoints
from jaxrw.runs.progress import TrainingProgress, divergence_error
from jaxrw.system import hosts, preemption
from jaxrw.system.errors import Stopped
from jaxrw.training import accuracy, step
from jaxrw.training.augment import augment
from jaxrw.training.batches import batches
from jaxrw.training.experiment import Experiment, create_experiment


def run(
    config: ConfigDict, workdir: str | pathlib.Path, *, warmup_from: str | pathlib.Path | None = None
) -> Experiment:
    """Trains, or resumes exactly where `workdir` stopped; its checkpoints and logs are the result.

    Args:
      config: resolved ConfigDict, see configs/base.py.
      workdir: directory of the run, created if need be.
      warmup_from: directory of a run trained with `checkpoint.keep_warmup` whose config differs in the method alone.
        A run that has no checkpoints yet starts from the end of that run's warm-up. None: it trains its own.

    Returns:
      The run's experiment, so that an evaluation need not read the data again.

    Raises:
      UserError: a field, the data or the directory is not usable; nothing has been written.
      RunError: the loss or a parameter is no longer finite, or the directory can no longer be written; earlier
        checkpoints are kept.
      Stopped: SIGTERM or Ctrl-C; the state after the last step is saved.
    """
    writers = runs.writers.names(config)
    experiment = create_experiment(config)
    extra = _load_extra(config, experiment)
    if warmup_from is not None and runs.has_begun(pathlib.Path(workdir)):
        own = runs.warmup.source_of(runs.read_metrics(pathlib.Path(workdir))) is None
        if own and hosts.is_first():
            words = f"{workdir} has begun with a warm-up of its own; --warmup_from has no effect"
            print(f"warning: {words}", file=sys.stderr)
        warmup_from = None
    extra_fingerprint = None if extra is None else extra.fingerprint
    if warmup_from is not None:
        runs.warmup.check(warmup_from, config, experiment.dataset.fingerprint, extra_fingerprint)
    timetable = _create_timetable(config, experiment)
    with contextlib.ExitStack() as stack:
        workdir = stack.enter_context(
            runs.open_workdir(workdir, config, data=experiment.dataset.fingerprint, extra=extra_fingerprint)
        )
        if warmup_from is not None:
            hosts.run_on_first(runs.warmup.adopt, warmup_from, workdir)
        manager = stack.enter_context(checkpoints.open_checkpoints(workdir / "checkpoints"))
        done = manager.latest_step() or 0
        num_images = len(experiment.dataset.validation.labels)
        is_validated = checkpoints.is_validated(manager, done, num_images=num_images)
        first_epoch = hosts.broadcast(
            timetable.first_epoch(done, runs.read_metrics(workdir), is_validated=is_validated)
        )
        if first_epoch == timetable.num_epochs:
            return experiment
        is_late = 0 < timetable.kept_warmup_epochs * timetable.steps_per_epoch < done
        if is_late and not runs.warmup.is_kept(workdir) and hosts.is_first():
            words = f"{workdir} is beyond its warm-up; checkpoint.keep_warmup has no effect"
            print(f"warning: {words}", file=sys.stderr)
        _print_start(config, experiment, workdir, num_extra=0 if extra is None else extra.size, done=done)
        # Lines of an epoch that was stopped in its validation are written again.
        resume_at = done if done == first_epoch * timetable.steps_per_epoch else done - 1
        with contextlib.closing(runs.MetricsLog(workdir, resume_at=resume_at, writers=writers)) as log:
            training = _Training(
                experiment,
                _load_state(manager, experiment, done),
                take_step=create_step(config, experiment),
                extra=extra,
                num_extra=settings.num_extra(config),
                renew_statistics=_create_renewal(config, experiment),
                validator=_create_validator(config, experiment),
                selection_attack=_selection_attack(config),
                timetable=timetable,
                warmup_epochs=config.method.warmup_epochs,
                manager=manager,
                log=log,
            )
            training.run(first_epoch)
    return experiment


def _load_state(manager: ocp.CheckpointManager, experiment: Experiment, done: int) -> step.State:
    """Returns the state after `done` steps: of a checkpoint, or the one before the first step."""
    if not done:
        return step.replicate(experiment.create_state())
    return checkpoints.restore(manager, done, step.replicated_shapes(experiment.state_shapes()))


def create_step(
    config: ConfigDict, experiment: Experiment, *, devices: Sequence[jax.Device] | None = None
) -> jax.stages.Wrapped:
    """Returns the config's training step: (state, key, images, labels, index [D, b]) -> (state, sums).

    With `config.extra.path` it takes an `Extra` of [D, ...] as a last argument. It runs on all local devices, or on
    `devices`, see `step.on_all_devices`.
    """
    method, objective = methods.get(config.method.name), methods.OBJECTIVES[config.objective.name]
    normalize = config.method.normalize
    recipe = step.Recipe(
        model=experiment.model,
        optimizer=experiment.optimizer,
        loss=objective.bind(config.objective),
        needs_clean_logits=objective.needs_clean_logits,
        clean_statistics=config.objective.clean_statistics,
        weighting=method.weighting(config.method, num_steps=config.attack.num_steps),
        normalized=method.normalized if normalize is None else normalize,
        augment=functools.partial(augment, pad=config.dataset.pad, flip=config.dataset.flip),
        attack=functools.partial(pgd_and_kappa, loss=objective.attack_loss, **config.attack),
        warmup_steps=config.method.warmup_epochs * experiment.steps_per_epoch,
        steps_per_epoch=experiment.steps_per_epoch,
        grad_through_weights=config.method.grad_through_weights,
        awp_gamma=config.awp.gamma,
        awp_start=config.awp.start_epoch * experiment.steps_per_epoch,
        average=experiment.average,
    )
    per_device = functools.partial(step.train_step, recipe=recipe)
    num_split = 1 if config.extra.path is None else 2
    return step.on_all_devices(per_device, num_split=num_split, donate_state=True, devices=devices)


@dataclasses.dataclass(frozen=True)
class _Timetable:
    """When epochs end and checkpoints are written.

    Attributes:
      batch_size: the global one.
      num_epochs: epochs of the whole run.
      steps_per_epoch: steps of each.
      every_steps: steps between checkpoints within an epoch; None: there are none within an epoch.
      every_epochs: epochs between checkpoints at the end of an epoch.
      kept_warmup_epochs: length of the warm-up that is kept for other runs; 0: none is kept.
    """

    batch_size: int
    num_epochs: int
    steps_per_epoch: int
    every_steps: int | None
    every_epochs: int
    kept_warmup_epochs: int

    def first_epoch(self, done: int, lines: Sequence[dict[str, Any]], *, is_validated: bool) -> int:
        """Returns the 0-based epoch that a run resumes with after `done` steps; `num_epochs` if it is complete.

        An epoch is complete when metrics.jsonl has its line and its checkpoint is validated, if there are images for
        it. A run that was stopped before, in a validation for instance, resumes with an epoch that has no steps left.
        """
        logged = any(line["kind"] == "train" and line["step"] == done for line in lines)
        return max(done if logged and is_validated else done - 1, 0) // self.steps_per_epoch

    def saves_within_epoch(self, done: int) -> bool:
        """Whether a checkpoint is written after `done` steps although they do not end an epoch."""
        at_end = done % self.steps_per_epoch == 0
        return self.every_steps is not None and done % self.every_steps == 0 and not at_end

    def saves_after_epoch(self, epoch: int) -> bool:
        """Whether a checkpoint is written after a 0-based epoch even if it is not the best so far."""
        return epoch + 1 in (self.num_epochs, self.kept_warmup_epochs) or (epoch + 1) % self.every_epochs == 0


def _create_timetable(config: ConfigDict, experiment: Experiment) -> _Timetable:
    return _Timetable(
        batch_size=config.optim.batch_size,
        num_epochs=config.optim.num_epochs,
        steps_per_epoch=experiment.steps_per_epoch,
        every_steps=config.checkpoint.every_steps,
        every_epochs=config.checkpoint.every_epochs,
        kept_warmup_epochs=config.method.warmup_epochs if config.checkpoint.keep_warmup else 0,
    )


@dataclasses.dataclass
class _Training:
    """A run under way.

    Attributes:
      experiment: what is trained.
      state: after the last step.
      take_step: see `create_step`.
      extra: extra images; None: there are none.
      num_extra: of every batch.
      renew_statistics: computes BatchNorm's statistics of averaged parameters after an epoch.
      validator: measures validation accuracies; None: no images are held out.
      selection_attack: the attack whose validation accuracy chooses the best checkpoint.
      timetable: when epochs end and checkpoints are written.
      warmup_epochs: first epochs in which all weights are 1.
      manager: of the checkpoints.
      log: metrics.jsonl and what else is written to.
    """

    experiment: Experiment
    state: step.State
    take_step: jax.stages.Wrapped
    extra: ExtraImages | None
    num_extra: int
    renew_statistics: Callable[[step.State, step.Images, int], step.State]
    validator: accuracy.Evaluator | None
    selection_attack: str
    timetable: _Timetable
    warmup_epochs: int
    manager: ocp.CheckpointManager
    log: runs.MetricsLog

    def run(self, first_epoch: int) -> None:
        """Trains from the state and `first_epoch` to the end of the last epoch."""
        timetable, done = self.timetable, int(self.state.step)
        progress = TrainingProgress(
            first_step=done,
            num_steps=timetable.num_epochs * timetable.steps_per_epoch,
            batch_size=timetable.batch_size,
            num_epochs=timetable.num_epochs,
        )
        with (
            contextlib.closing(progress),
            preemption.deferring_signals(maximum=hosts.delayed_maximum()) as check,
        ):
            if (
                0 < first_epoch == timetable.kept_warmup_epochs
                and done == first_epoch * timetable.steps_per_epoch
            ):
                _keep_warmup(self.manager)  # The run may have been killed just before.
            has_doubted, epoch = False, first_epoch
            try:
                for epoch in range(first_epoch, timetable.num_epochs):
                    train = self._train_epoch(epoch, progress, check)
                    validation = self._validate(check)
                    best = self._keep(epoch, train, validation)
                    progress.epoch(epoch, train=train, validation=validation, best=best)
                    doubt = _doubt(self.experiment.dataset, train=train, validation=validation)
                    if doubt and not has_doubted and epoch + 1 >= self.warmup_epochs:
                        progress.line(doubt)
                        has_doubted = True
            except Stopped as stopped:  # Raised by `check` alone: after a step, or in a validation.
                if int(self.state.step) > done:
                    self._save(epoch, progress)
                checkpoints.wait(self.manager)
                raise Stopped(
                    f"{stopped} after step {self.manager.latest_step() or 0:,}, which is saved; "
                    "the same command goes on"
                ) from stopped

    def _train_epoch(self, epoch: int, progress: TrainingProgress, check: preemption.Check) -> dict[str, Any]:
        """Takes the steps that are left of a 0-based epoch; returns what is logged of it."""
        (images, labels), key, timetable = self._images, self._key, self.timetable
        started, first_step = time.monotonic(), int(self.state.step)
        done = first_step
        for batch in batches(
            self.experiment.order_key,
            epoch,
            size=len(labels),
            batch_size=timetable.batch_size,
            steps_per_epoch=timetable.steps_per_epoch,
            first_step=done - epoch * timetable.steps_per_epoch,
            extra=self.extra,
            num_extra=self.num_extra,
        ):
            self.state, sums = self.take_step(self.state, key, images, labels, *batch)
            progress.step(done, epoch, sums)
            done += 1
            check()
            if timetable.saves_within_epoch(done):
                self._save(epoch, progress)
        progress.flush()
        _check_finite(self.state, epoch)
        self.state = self.renew_statistics(self.state, images, epoch)
        seconds = time.monotonic() - started
        return _epoch_means(self.state.sums) | {
            "learning_rate": float(f"{self.experiment.learning_rate(epoch * timetable.steps_per_epoch):.6g}"),
            "seconds": seconds,
            "images_per_second": (done - first_step) * timetable.batch_size / seconds,
        }

    @functools.cached_property
    def _images(self) -> tuple[step.Images, jax.Array]:
        return accuracy.replicated(self.experiment.dataset.train)

    @functools.cached_property
    def _key(self) -> jax.Array:
        return step.replicate(self.experiment.step_key)

    def _validate(self, check: preemption.Check) -> dict[str, float]:
        """Returns validation accuracies in percent by attack; none if no images are held out."""
        if self.validator is None:
            return {}
        return {
            attack: self.validator.measure(attack, self.state.evaluated, lambda number: check()).accuracy
            for attack in self.validator.attacks
        }

    def _keep(self, epoch: int, train: Mapping[str, Any], validation: Mapping[str, float]) -> bool:
        """Logs a 0-based epoch and writes its checkpoint if it is due; returns whether it is the best so far.

        Logs come before the checkpoint: after a kill, lines without a checkpoint are dropped and redone.
        """
        done = int(self.state.step)
        self.log.write("train", epoch=epoch, step=done, **train)
        if validation:
            self.log.write("validation", epoch=epoch, step=done, **validation)
        selection = validation.get(self.selection_attack)
        best = selection is not None and checkpoints.is_best(self.manager, selection)
        if best or self.timetable.saves_after_epoch(epoch):
            checkpoints.save(self.manager, self.state, epoch=epoch, accuracy=selection)
        if epoch + 1 == self.timetable.kept_warmup_epochs:
            _keep_warmup(self.manager)
        return best

    def _save(self, epoch: int, progress: TrainingProgress) -> None:
        """Saves the state within an epoch unless it is not finite."""
        progress.flush()
        _check_finite(self.state, epoch)
        checkpoints.save(self.manager, self.state, epoch=epoch)


def _check_finite(state: step.State, epoch: int) -> None:
    """Raises RunError before a state with NaN is saved or validated: its loss would show it one step later."""
    if not step.is_finite((state.params, state.batch_stats, state.opt_state, state.sums, state.average)):
        raise divergence_error("a parameter is not finite", int(state.step), epoch)


def _keep_warmup(manager: ocp.CheckpointManager) -> None:
    """Keeps a copy of the run at the end of its warm-up, for others that start from there."""
    checkpoints.wait(manager)
    hosts.run_on_first(runs.warmup.keep, manager.directory.parent)


def _load_extra(config: ConfigDict, experiment: Experiment) -> ExtraImages | None:
    """Opens the extra images of a config, if it has any."""
    if config.extra.path is None:
        return None
    return load_extra(
        config.extra.path,
        shape=experiment.dataset.train.images.shape[1:],
        num_classes=experiment.dataset.num_classes,
        downscale=config.dataset.downscale,
    )


def _create_renewal(
    config: ConfigDict, experiment: Experiment
) -> Callable[[step.State, step.Images, int], step.State]:
    """Returns what computes BatchNorm's statistics of the averaged parameters anew after a 0-based epoch.

    Only the mean over epochs needs it. The statistics are the mean over batches of the training images as they are.
    """
    if config.average.name != "swa":
        return lambda state, images, epoch: state
    program = step.on_all_devices(
        functools.partial(step.batch_statistics, model=experiment.model), num_split=1
    )
    batch_size = config.optim.batch_size

    def renew(state: step.State, images: step.Images, epoch: int) -> step.State:
        if state.average is None or epoch < config.average.start_epoch:
            return state
        params = state.average["params"]
        # From 0 on, so that a renewal that is repeated after a stop has the same bits.
        statistics = jax.tree.map(jnp.zeros_like, state.average["batch_stats"])
        order = np.arange(experiment.steps_per_epoch * batch_size, dtype=np.int32)
        for number, index in enumerate(order.reshape(-1, batch_size)):
            statistics = program(statistics, params, images, step.replicate(number), step.shard(index))
        return dataclasses.replace(state, average={"params": params, "batch_stats": statistics})

    return renew


def _selection_attack(config: ConfigDict) -> str:
    """Returns the attack whose validation accuracy chooses the best checkpoint."""
    return f"pgd{config.evaluation.selection_steps}"


def _create_validator(config: ConfigDict, experiment: Experiment) -> accuracy.Evaluator | None:
    """Returns what measures validation accuracies, or None if no images are held out."""
    if not len(experiment.dataset.validation.labels):
        return None
    radii = {field: config.evaluation[field] for field in ("norm", "eps", "step_size")}
    return accuracy.Evaluator(
        experiment.evaluation_model,
        experiment.dataset.validation,
        experiment.evaluation_key,
        {attack: suite.create(attack, **radii) for attack in ("clean", _selection_attack(config))},
        batch_size=config.evaluation.batch_size,
    )


def _epoch_means(sums: step.Sums) -> dict[str, Any]:
    """Returns the means over an epoch's examples and its histograms; accuracy in percent, under the training attack."""
    values = {name: np.asarray(value).tolist() for name, value in sums.items()}
    return {
        "loss": values["loss"] / values["examples"],
        "accuracy": 100 * values["correct"] / values["examples"],
        "mean_weight": values["weight"] / values["examples"],
        "light_share": values["light"] / values["examples"],
        "margins": [round(count) for count in values["margins"]],
        "weights": [round(count) for count in values["weights"]],
    }


def _doubt(dataset: Dataset, *, train: Mapping[str, Any], validation: Mapping[str, float]) -> str | None:
    """Returns a line on a network that is no better than always answering one class; None: it is better."""
    if validation:
        words, accuracy, chance = "clean validation", validation["clean"], dataset.validation.chance
    else:
        words, accuracy, chance = "training (under attack)", train["accuracy"], dataset.train.chance
    if accuracy > chance:
        return None
    return (
        f"the {words} accuracy of {accuracy:.1f}% is no better than always answering one class ({chance:.1f}%): "
        "if it stays there, try another optim.learning_rate, a smaller attack.eps or more epochs"
    )


def _print_start(
    config: ConfigDict, experiment: Experiment, workdir: pathlib.Path, *, num_extra: int, done: int
) -> None:
    """Prints what is trained, on what data and devices, and what to expect."""
    splits, num_epochs = experiment.dataset, experiment.num_epochs
    method, warmup_epochs = methods.get(config.method.name), config.method.warmup_epochs
    title = methods.title(
        method, methods.OBJECTIVES[config.objective.name], perturbs_weights=config.awp.gamma is not None
    )
    more = f"{num_extra:,} extra, " if num_extra else ""
    print(
        f"{title} on {config.dataset.name}: {len(splits.train.labels):,} training, {more}"
        f"{len(splits.validation.labels):,} validation, {len(splits.test.labels):,} test images; "
        f"{jax.device_count()} x {jax.local_devices()[0].device_kind}; in {workdir}"
    )
    if not len(splits.validation.labels):
        print("there are no validation images: there will be no best checkpoint, only the last")
    if method.reweighted and warmup_epochs >= num_epochs:
        print(
            f"method.warmup_epochs is {warmup_epochs} and optim.num_epochs {num_epochs}: "
            f"all weights stay 1, so this run is the same without {method.name}"
        )
    if done:
        print(f"going on after step {done:,}, in epoch {done // experiment.steps_per_epoch + 1}")
    elif (workdir / "damaged").is_dir():
        print("beginning anew: there is no checkpoint to go on from")
