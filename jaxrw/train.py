"""The training loop: epochs, validation, checkpoints, logs; goes on where a run stopped."""

import contextlib
import functools
import pathlib
import time

import jax
import numpy as np

from jaxrw import methods, runs
from jaxrw.attacks import pgd_and_kappa, suite
from jaxrw.runs import checkpoints
from jaxrw.runs.progress import TrainingProgress, not_finite
from jaxrw.system import hosts, preemption
from jaxrw.system.errors import Stopped
from jaxrw.training import accuracy, experiment, step
from jaxrw.training.augment import augment


def run(config, workdir, *, warmup_from=None):
    """Train, or go on exactly where `workdir` stopped; its checkpoints and logs are the result.

    Args:
      config: resolved ConfigDict, see configs/base.py.
      workdir: directory of the run, created if need be.
      warmup_from: directory of a run trained with `checkpoint.keep_warmup`, the same but for its method: a run that has
        not begun yet begins where that one stood when its warm-up ended. None: it begins with its own first step.

    Returns:
      The run's `Experiment`, for the evaluation that follows: reading the data once is enough.

    Raises:
      UserError: a field, the data or the directory is not usable; nothing is written then.
      RunError: the loss or a parameter is not finite any more, or the directory cannot be written any more; the
        checkpoints before it stay.
      Stopped: SIGTERM or Ctrl-C; the state after the last step is saved.
    """
    parts = experiment.create(config)
    begins = warmup_from is not None and not (pathlib.Path(workdir) / "checkpoints").exists()
    if begins:
        runs.warmup.check(warmup_from, config)
    with contextlib.ExitStack() as stack:
        workdir = stack.enter_context(runs.open_workdir(workdir, config))
        if begins:
            hosts.first_does(runs.warmup.adopt, warmup_from, workdir)
        manager = stack.enter_context(checkpoints.open_checkpoints(workdir / "checkpoints"))
        done = manager.latest_step() or 0
        if hosts.agree(_is_complete(config, parts, runs.read_metrics(workdir), done)):
            return parts
        _print_start(config, parts, workdir, done)
        if done:
            state = checkpoints.restore(manager, done, step.replicated_shapes(parts.state_shapes()))
        else:
            state = step.replicate(parts.create_state())
        with contextlib.closing(runs.MetricsLog(workdir, resume_at=done)) as log:
            _train(config, parts, manager, log, state, done)
    return parts


def _is_complete(config, parts, lines, done):
    """Whether all steps are done and all epochs validated."""
    all_steps = config.optim.num_epochs * parts.steps_per_epoch
    return done == all_steps and not _is_open(parts, lines, done)


def _is_open(parts, lines, done):
    """Whether `done` steps end an epoch that has not been validated: the run was asked to stop just then."""
    ended = any(line["kind"] == "train" and line["step"] == done for line in lines)
    return done > 0 and done % parts.steps_per_epoch == 0 and not ended


def _train(config, parts, manager, log, state, done):
    """Steps and epochs from the state after `done` steps to the end."""
    train_step, validate = create_step(config, parts), _create_validation(config, parts)
    images, labels = accuracy.replicated(parts.dataset.train)
    key = step.replicate(parts.step_key)
    num_epochs, batch_size, steps_per_epoch = (
        config.optim.num_epochs,
        config.optim.batch_size,
        parts.steps_per_epoch,
    )
    progress = TrainingProgress(
        first_step=done, num_steps=num_epochs * steps_per_epoch, batch_size=batch_size, num_epochs=num_epochs
    )
    with (
        contextlib.closing(progress),
        preemption.listen(agree=hosts.largest()) as check,
        _saving(manager, progress) as current,
    ):
        if done and done % steps_per_epoch == 0 and not _is_open(parts, log.lines, done):
            _keep_warmup(config, manager, done // steps_per_epoch - 1)  # a kill may have come just before
        first_epoch = (done - _is_open(parts, log.lines, done)) // steps_per_epoch
        for epoch in range(first_epoch, num_epochs):
            order = experiment.epoch_order(parts.order_key, epoch, len(labels))
            began, first = time.monotonic(), done
            while done < (epoch + 1) * steps_per_epoch:
                index = order[done % steps_per_epoch * batch_size :][:batch_size]
                state, sums = train_step(state, key, images, labels, step.shard(index))
                progress.step(done, epoch, sums)
                done += 1
                current.update(state=state, epoch=epoch)
                check()
                within = config.checkpoint.every_steps
                if within and done % within == 0 and done % steps_per_epoch:
                    _save(manager, progress, state, epoch=epoch)
            progress.settle()
            _check_finite(state, epoch)
            seconds = time.monotonic() - began
            validation = validate(state, check)

            # Logs come before the checkpoint: after a kill, lines that have no checkpoint are dropped and redone.
            train = _epoch_values(state.sums)
            train |= {
                "learning_rate": parts.learning_rates[epoch],
                "seconds": seconds,
                "images_per_second": (done - first) * batch_size / seconds,
            }
            log.write("train", epoch=epoch, step=done, **train)
            if validation:
                log.write("validation", epoch=epoch, step=done, **validation)
            selection = validation.get(_selection_attack(config))
            best = selection is not None and checkpoints.is_best(manager, selection)
            if best or _is_saved(config, epoch):
                checkpoints.save(manager, state, epoch=epoch, accuracy=selection)
            current.clear()
            _keep_warmup(config, manager, epoch)
            progress.epoch(epoch, train=train, validation=validation, best=best)


def _is_saved(config, epoch):
    """Whether an epoch ends with a checkpoint even if it is not the best so far."""
    return (
        epoch + 1 == config.optim.num_epochs
        or (epoch + 1) % config.checkpoint.every_epochs == 0
        or _is_warmups_end(config, epoch)
    )


def _is_warmups_end(config, epoch):
    """Whether this epoch is the last of a warm-up that is to be kept."""
    return config.checkpoint.keep_warmup and epoch + 1 == config.method.warmup_epochs


def _keep_warmup(config, manager, epoch):
    """After the last epoch of the warm-up, keep the run as it is for others that begin with it."""
    if _is_warmups_end(config, epoch):
        checkpoints.wait(manager)
        hosts.first_does(runs.warmup.keep, manager.directory.parent)


@contextlib.contextmanager
def _saving(manager, progress):
    """Within it, a wish to stop saves the state and epoch that stand in the dict it yields, if any does."""
    current = {}
    try:
        yield current
    except Stopped as stopped:
        if current:
            _save(manager, progress, **current)
        checkpoints.wait(manager)
        raise Stopped(
            f"{stopped} after step {manager.latest_step() or 0:,}, which is saved; the same command goes on"
        ) from stopped


def _save(manager, progress, state, *, epoch):
    """Save within an epoch, nothing that is not finite."""
    progress.settle()
    _check_finite(state, epoch)
    checkpoints.save(manager, state, epoch=epoch)


def _check_finite(state, epoch):
    """Stop before a state with NaN is saved or validated: its loss would tell only one step later."""
    if not step.is_finite((state.params, state.batch_stats, state.opt_state, state.sums)):
        raise not_finite("a parameter is not finite", int(state.step), epoch)


def create_step(config, parts, *, devices=None):
    """The config's training step: (state, key, images, labels, index [D, b]) -> state, sums.

    On all local devices, or on `devices`, see `step.on_all_devices`.
    """
    method = methods.get(config.method.name)
    per_device = functools.partial(
        step.train_step,
        model=parts.model,
        optimizer=parts.optimizer,
        weighting=method.weighting(config.method, num_steps=config.attack.num_steps),
        normalized=method.normalized,
        augment=functools.partial(augment, pad=config.dataset.pad, flip=config.dataset.flip),
        attack=functools.partial(pgd_and_kappa, **config.attack),
        warmup_steps=config.method.warmup_epochs * parts.steps_per_epoch,
        steps_per_epoch=parts.steps_per_epoch,
        grad_through_weights=config.method.grad_through_weights,
    )
    return step.on_all_devices(per_device, num_split=1, donate_state=True, devices=devices)


def _create_validation(config, parts):
    """Function of the state that gives validation accuracies in percent; none where nothing is held out.

    It calls its second argument after every batch.
    """
    if not len(parts.dataset.validation.labels):
        return lambda state, check: {}
    images, labels = accuracy.replicated(parts.dataset.validation)
    key = step.replicate(parts.evaluation_key)
    counters = {
        name: accuracy.create(
            parts.evaluation_model,
            suite.create(name, eps=config.evaluation.eps, step_size=config.evaluation.step_size),
        )
        for name in ("clean", _selection_attack(config))
    }

    def validate(state, check):
        settings = {"batch_size": config.evaluation.batch_size, "progress": lambda number: check()}
        return {
            name: accuracy.measure(counter, state.variables, key, images, labels, **settings)
            for name, counter in counters.items()
        }

    return validate


def _selection_attack(config):
    """Name of the attack whose validation accuracy chooses the best checkpoint."""
    return f"pgd{config.evaluation.selection_steps}"


def _epoch_values(sums):
    """Means over an epoch's examples and its histograms; accuracy in percent, under the training attack."""
    sums = {name: np.asarray(value).tolist() for name, value in sums.items()}
    return {
        "loss": sums["loss"] / sums["examples"],
        "accuracy": 100 * sums["correct"] / sums["examples"],
        "mean_weight": sums["weight"] / sums["examples"],
        "light_share": sums["light"] / sums["examples"],
        "margins": sums["margins"],
        "weights": sums["weights"],
    }


def _print_start(config, parts, workdir, done):
    """Say what is trained, on what, where, and what will be missing."""
    dataset = parts.dataset
    print(
        f"{config.method.name} on {config.dataset.name}: {len(dataset.train.labels):,} training, "
        f"{len(dataset.validation.labels):,} validation, {len(dataset.test.labels):,} test images; "
        f"{jax.device_count()} x {jax.local_devices()[0].device_kind}; in {workdir}"
    )
    if not len(dataset.validation.labels):
        print("dataset.validation_size is 0: there will be no best checkpoint, only the last")
    if methods.get(config.method.name).reweighted and config.method.warmup_epochs >= config.optim.num_epochs:
        print(
            f"method.warmup_epochs is {config.method.warmup_epochs} and optim.num_epochs {config.optim.num_epochs}: "
            f"all weights stay 1, so this run is standard adversarial training, not {config.method.name}"
        )
    if done:
        print(f"going on after step {done:,}, in epoch {done // parts.steps_per_epoch + 1}")
