"""Host memory: the peak of training and evaluating on full CIFAR-10, and whether a run grows over its epochs.

    python -m benchmarks.memory [--data-dir DIR] [--width 64] [--batch 128] [--steps 2] [--epochs 60]

The peak is that of this process after reading the whole data set, some training steps and an evaluated batch of 500.
The growth is the slope of the resident memory of a small `launch.py` over the second half of its epochs. 0 steps or
epochs leave out the one or the other.
"""

import argparse
import pathlib
import resource
import statistics
import sys
from collections.abc import Sequence

import jax

from benchmarks import launched, problem, timing
from jaxrw.attacks import suite
from jaxrw.data import Split
from jaxrw.training import accuracy, step
from jaxrw.training.experiment import create_experiment

MEGABYTE = 2**20


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes JSON."""
    flags = timing.parse(__doc__, arguments, data_dir="", width=64, batch=128, steps=2, epochs=60)
    measured: dict[str, object] = {}
    if flags.epochs:
        measured["megabytes after each epoch"] = resident = megabytes_by_epoch(flags.epochs)
        half = resident[len(resident) // 2 :]
        slope = statistics.linear_regression(range(len(half)), half).slope
        print(f"small run: {resident[0]:.0f} MB after its first epoch, {resident[-1]:.0f} MB after its last,")
        print(f"  {slope:+.2f} MB an epoch over the last {len(half)}")
    if flags.steps:
        measured["peak megabytes"] = peaks = peak_megabytes(flags)
        for stage, megabytes in peaks.items():
            print(f"peak after {stage}: {megabytes:,.0f} MB")
    print(timing.write("memory", measured, arguments=flags))


def peak_megabytes(flags: argparse.Namespace) -> dict[str, float]:
    """Returns the peak of this process after each stage of training and evaluating on CIFAR-10."""
    fields = {"model.width": flags.width, "optim.batch_size": flags.batch, "method.name": "standard"}
    config = problem.load("resnet18_c10", fields | {"dataset.data_dir": flags.data_dir or None})
    stages = {"imports": _peak()}
    experiment = create_experiment(config)
    stages["reading the data"] = _peak()
    run = problem.training_step(config, experiment)
    for _ in range(flags.steps):
        run()
    stages["training steps"] = _peak()
    test = experiment.dataset.test
    # An attack needs the same memory with any number of steps.
    attacks = {"pgd2": suite.create("pgd2", eps=8 / 255, step_size=2 / 255)}
    evaluator = accuracy.Evaluator(
        experiment.evaluation_model,
        Split(test.images, test.labels[:500]),
        jax.random.key(0),
        attacks,
        batch_size=500,
    )
    evaluator.measure("pgd2", step.replicate(experiment.create_state().variables))
    return stages | {"an evaluated batch": _peak()}


def megabytes_by_epoch(epochs: int) -> list[float]:
    """Returns the resident memory of a small run when each of its epochs was logged."""
    flags = {
        "model.width": 4,
        "optim.num_epochs": epochs,
        "attack.num_steps": 1,
        "evaluation.attacks": ("clean",),
        "evaluation.selection_steps": 1,
    }
    page = resource.getpagesize() / MEGABYTE
    return [
        page * int(pathlib.Path(f"/proc/{process}/statm").read_text().split()[1])
        for process in launched.epochs(flags, {})
    ]


def _peak() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE


if __name__ == "__main__":
    main()
