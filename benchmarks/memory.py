"""Host memory: the peak of training and evaluating on full CIFAR-10, and whether a run grows over its epochs.

    python -m benchmarks.memory [--data-dir DIR] [--width 64] [--batch 128] [--epochs 60]

The peak is that of this process after reading the whole data set, some training steps and an evaluated batch of 500.
The growth is the slope of the resident memory of a small `launch.py` over the second half of its epochs.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import jax

from benchmarks import problem, timing
from jaxrw.attacks import suite
from jaxrw.training import accuracy, experiment, step

ROOT = pathlib.Path(__file__).parents[1]
MEGABYTE = 2**20


def main(arguments=None):
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="where CIFAR-10 lies; default: as tensorflow-datasets")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=2, help="training steps")
    parser.add_argument("--epochs", type=int, default=60, help="of the small run; 0: none")
    arguments = parser.parse_args(arguments)
    measured = {}
    if arguments.epochs:
        measured["megabytes after each epoch"] = resident = over_epochs(arguments.epochs)
        half = resident[len(resident) // 2 :]
        slope = statistics.linear_regression(range(len(half)), half).slope
        measured["megabytes an epoch"] = slope
        print(f"small run: {resident[0]:.0f} MB after its first epoch, {resident[-1]:.0f} MB after its last,")
        print(f"  {slope:+.2f} MB an epoch over the last {len(half)}")
    if arguments.steps:
        measured["peak megabytes"] = peak(arguments)
        for what, megabytes in measured["peak megabytes"].items():
            print(f"peak after {what}: {megabytes:,.0f} MB")
    print(timing.write("memory", measured, arguments=arguments))


def peak(arguments):
    """Peak of this process in MB after each stage of training and evaluating on CIFAR-10."""
    config = problem.config_of(arguments.width, arguments.batch)
    config.dataset.data_dir = arguments.data_dir
    stages = {"imports": _peak()}
    parts = experiment.create(config)
    stages["reading the data"] = _peak()
    run = problem.training_step(config, parts)
    for _ in range(arguments.steps):
        run()
    stages["training steps"] = _peak()
    test = parts.dataset.test
    images, labels = accuracy.replicated(test)
    variables, key = step.replicate((parts.create_state().variables, jax.random.key(0)))
    # As many steps as an attack has, the memory is that of one.
    counter = accuracy.create(parts.evaluation_model, suite.create("pgd2", eps=8 / 255, step_size=2 / 255))
    accuracy.measure(counter, variables, key, images, labels[:500], batch_size=500)
    return stages | {"an evaluated batch": _peak()}


def over_epochs(epochs):
    """Resident memory in MB of a small run, when each of its epochs was logged."""
    with tempfile.TemporaryDirectory() as workdir:
        flags = ["--workdir", workdir, "--config.dataset.train_size=128", "--config.model.width=4"]
        flags += [f"--config.optim.num_epochs={epochs}", "--config.attack.num_steps=1"]
        flags += ["--config.evaluation.attacks=('clean',)", "--config.evaluation.selection_steps=1"]
        command = [sys.executable, "launch.py", "--config=configs/digits.py", *flags]
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        log, resident = pathlib.Path(workdir) / "metrics.jsonl", {}
        while run.poll() is None and len(resident) < epochs:
            lines = log.read_text().splitlines() if log.exists() else []
            done = sum(json.loads(line)["kind"] == "train" for line in lines[:-1])
            if done and done not in resident:
                resident[done] = _resident(run.pid)
            time.sleep(0.05)
        if run.wait():
            raise RuntimeError(f"launch.py ended with status {run.returncode}")
        return list(resident.values())


def _resident(process):
    """Resident memory of a process in MB."""
    pages = int(pathlib.Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MEGABYTE


def _peak():
    """Peak of this process in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE


if __name__ == "__main__":
    main()
