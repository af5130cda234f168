"""Seconds from `launch.py` to the end of the first training step, and seconds to compile the shipped steps.

    python -m benchmarks.start [--repeats 3] [--configs resnet18_c10 wrn_c10]

The start is that of `make train` with epochs of one step, whose end the run logs: once with an empty compilation
cache, then with a warm one. Compiled is from scratch, tracing included, for this machine's devices.
"""

import argparse
import importlib
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax

from benchmarks import problem, timing
from jaxrw.training import experiment

ROOT = pathlib.Path(__file__).parents[1]


def main(arguments=None):
    """Measure, print two tables and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--configs", nargs="*", default=["resnet18_c10", "wrn_c10"])
    arguments = parser.parse_args(arguments)
    measured = {"start": starts(arguments.repeats)} if arguments.repeats else {}
    for name, seconds in measured.get("start", {}).items():
        print(f"first step after {statistics.median(seconds):.1f} s, {name} cache")
    measured["compile"] = {name: compile_seconds(name) for name in arguments.configs}
    for name, seconds in measured["compile"].items():
        print(f"{name}: step compiled in {seconds:.1f} s")
    print(timing.write("start", measured, arguments=arguments))


def starts(repeats):
    """Seconds to the first step with an empty compilation cache, and with a warm one."""
    with tempfile.TemporaryDirectory() as cache:
        cold = [start(cache)]
        return {"empty": cold, "warm": [start(cache) for _ in range(repeats)]}


def start(cache):
    """Seconds from the start of the process until a run has logged its first step."""
    with tempfile.TemporaryDirectory() as workdir:
        # One step an epoch: the end of an epoch is what a run tells.
        flags = [f"--workdir={workdir}", "--config.dataset.train_size=128"]
        began = time.perf_counter()
        run = subprocess.Popen(
            [sys.executable, "launch.py", "--config=configs/digits.py", *flags],
            cwd=ROOT,
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": cache},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        log = pathlib.Path(workdir) / "metrics.jsonl"
        while not (log.exists() and log.stat().st_size):
            time.sleep(0.02)
            if run.poll() is not None:
                raise RuntimeError(f"launch.py ended with status {run.returncode} before its first step")
        seconds = time.perf_counter() - began
        # Validation is compiled after the first step: let a cold run finish that, so that the next is warm.
        run.terminate()
        run.wait()
        return seconds


def compile_seconds(name):
    """Seconds to trace and compile a config's training step."""
    config = importlib.import_module(f"configs.{name}").get_config()
    stand_in = problem.stand_in(config.optim.batch_size, 100 if config.dataset.name == "cifar100" else 10)
    parts = experiment.assemble(config, stand_in)
    jax.config.update("jax_enable_compilation_cache", False)
    began = time.perf_counter()
    problem.compiled_step(config, parts)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
