"""Program of test_hosts.py: one of the processes of a run, on as many CPU devices as XLA_FLAGS says.

    several_hosts.py PROCESS PROCESSES PORT DIRECTORY FIRST_STEP LAST_STEP
    several_hosts.py PROCESS PROCESSES PORT DIRECTORY killed
    several_hosts.py PROCESS PROCESSES PORT DIRECTORY stopped

With steps: resumes from the checkpoint in DIRECTORY, if there is one, takes these steps, saves the state, and measures
accuracies; the first process writes it all to DIRECTORY/LAST_STEP.npz. With "killed": process 1 kills itself between
two sums over all devices. With "stopped": one process sends itself SIGTERM, among such sums and in AutoAttack, then
the other does; everyone prints in which sum and attack it has been stopped.
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import sys
import time

import jax
import numpy as np

from helpers import tiny
from helpers.linear import linear_problem
from helpers.several_devices import OneConvolution
from jaxrw import attacks, train
from jaxrw.attacks import suite
from jaxrw.runs import checkpoints
from jaxrw.system import hosts, preemption
from jaxrw.system.errors import RunError, Stopped
from jaxrw.training import accuracy, step
from jaxrw.training.batches import epoch_order
from jaxrw.training.experiment import create_experiment


def train_between(directory, first, last):
    """State after step `last`, from the checkpoint of step `first`; validation accuracy after it."""
    config = tiny.config(
        method__warmup_epochs=0, dataset__train_size=96, optim__batch_size=32, optim__learning_rate=0.02
    )
    experiment = dataclasses.replace(create_experiment(config), model=OneConvolution())
    train_step = train.create_step(config, experiment)
    images, labels = accuracy.replicated(experiment.dataset.train)
    order = epoch_order(experiment.order_key, 0, len(labels))
    with checkpoints.open_checkpoints(directory / "checkpoints") as manager:
        assert (manager.latest_step() or 0) == first
        if first:
            state = checkpoints.restore(manager, first, step.replicated_shapes(experiment.state_shapes()))
        else:
            state = step.replicate(experiment.create_state())
        for batch in np.split(order, 3)[first:last]:
            state, _ = train_step(
                state, step.replicate(experiment.step_key), images, labels, step.shard(batch)
            )
        checkpoints.save(manager, state, epoch=0, accuracy=50.0)
    attacks, done = {"fgsm": suite.create("fgsm", eps=0.1, step_size=0.1)}, []
    evaluator = accuracy.Evaluator(
        experiment.model, experiment.dataset.test, experiment.evaluation_key, attacks, batch_size=16
    )
    measured = evaluator.measure("fgsm", state.variables, done.append).correct
    assert sum(done) == 30
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.variables)]), measured


def attacked(directory, progress=None):
    """AutoAttack's flags and counts for a model whose answer is known."""
    logits_fn, images, labels, distances = linear_problem(4, size=37)
    result = attacks.autoattack(
        jax.random.key(0),
        logits_fn,
        images,
        labels,
        eps=float(np.median(distances)),
        batch_size=8,
        num_steps=5,
        num_queries=20,
        progress=progress,
        state_path=directory / "state.npz",
    )
    counts = [*result.accuracy.values(), *result.attacked.values(), *result.fooled.values()]
    return {"robust": result.robust, "adversarial": result.adversarial, "counts": np.array(counts)}


def sums():
    """Numbers of sums over all devices, each of them on its way."""
    total = jax.pmap(lambda x: jax.lax.psum(x, "d"), axis_name="d")
    for number in range(10_000):
        yield number, total(np.ones(jax.local_device_count(), np.float32))


def killed():
    """Sums until one process is no more."""
    for number, total in sums():
        total.block_until_ready()
        if number == 5 and not hosts.is_first():
            os.kill(os.getpid(), signal.SIGKILL)


def stopped(directory):
    """What is stopped twice by each process in turn; AutoAttack then ends as one that nobody stopped."""
    for process in range(jax.process_count()):
        print(f"stopped in: {stopped_in_sums(process)} {stopped_in_autoattack(process, directory)}")
    whole = directory / "whole"
    hosts.run_on_first(whole.mkdir)
    expected, found = attacked(whole), attacked(directory)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def stopped_in_sums(process):
    """Number of the sum in which `check` stopped this process."""
    with contextlib.suppress(Stopped), preemption.deferring_signals(maximum=hosts.delayed_maximum()) as check:
        for number, _ in sums():
            send_signal(process, when=number == 20)
            check()
    return number


def stopped_in_autoattack(process, directory):
    """Attack after which `check` stopped this process."""

    def look(now):
        send_signal(process, when=not names)
        names.append(now.attack)
        if now.together:
            check(wait=True)

    names = []
    with contextlib.suppress(Stopped), preemption.deferring_signals(maximum=hosts.delayed_maximum()) as check:
        attacked(directory, look)
        names.append("none")
    return names[-1]


def send_signal(process, *, when):
    """SIGTERM to that process, from itself."""
    if when and jax.process_index() == process:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)  # until a thread has taken it up; the others go on meanwhile


if __name__ == "__main__":
    process, processes, port = map(int, sys.argv[1:4])
    directory = pathlib.Path(sys.argv[4])
    if processes > 1:
        hosts.initialize(coordinator_address=f"127.0.0.1:{port}", num_processes=processes, process_id=process)
    if sys.argv[5] == "killed":
        try:
            with hosts.naming_lost_processes():
                killed()
        except RunError as error:
            print(error, file=sys.stderr)
            hosts.leave(1)
    if sys.argv[5] == "stopped":
        stopped(directory)
        sys.exit()
    first, last = map(int, sys.argv[5:])
    parameters, measured = train_between(directory, first, last)
    found = attacked(directory) if last == 3 else {}
    assert hosts.broadcast(process) == 0
    if hosts.is_first():
        np.savez(directory / f"{last}.npz", parameters=parameters, measured=measured, **found)
