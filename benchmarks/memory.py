"""Host memory: the peak of training and evaluating on full CIFAR-10, and whether a run grows over its epochs.

    python -m benchmarks.memory [--data-dir DIR] [--width 64] [--batch 128] [--epochs 60]

The peak is that of this process after reading the whole data set, two training steps and an evaluated batch of 500.
The growth is the slope of the resident memory of a small `launch.py` over the second half of its epochs; `--epochs 0`
leaves it out.
"""

import argparse
import pathlib
import resource
import statistics
import sys
from collections.abc import Sequence

from benchmarks import launched, problem, timing
from benchmarks.evaluate import evaluation
from jaxrw.training.experiment import create_experiment

MEGABYTE = 2**20


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes JSON."""
    flags = timing.parse(__doc__, arguments, data_dir="", width=64, batch=128, epochs=60)
    resident = megabytes_by_epoch(flags.epochs) if flags.epochs else []
    if resident:
        half = resident[len(resident) // 2 :]
        slope = statistics.linear_regression(range(len(half)), half).slope
        print(f"small run: {resident[0]:.0f} MB after its first epoch, {resident[-1]:.0f} MB after its last,")
        print(f"  {slope:+.2f} MB an epoch over the last {len(half)}")
    peak = peak_megabytes(flags)
    print(f"peak of training and evaluating: {peak:,.0f} MB")
    measured = {"megabytes after each epoch": resident, "peak megabytes": peak}
    print(timing.write("memory", measured, arguments=flags))


def peak_megabytes(flags: argparse.Namespace) -> float:
    """Trains and evaluates on CIFAR-10; returns the peak of this process."""
    config = problem.standard_training(flags.width, flags.batch)
    config.dataset.data_dir = flags.data_dir or None
    experiment = create_experiment(config)
    take_step = problem.training_step(config, experiment)
    take_step()
    take_step()
    # An attack needs the same memory with any number of steps.
    evaluation(experiment, experiment.create_state().variables, num_steps=2, batch_size=500)()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE


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


if __name__ == "__main__":
    main()
