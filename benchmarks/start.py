"""Seconds from `launch.py` to the end of the first training step, and seconds to compile the shipped steps.

    python -m benchmarks.start [--repeats 3] [--configs resnet18_c10 wrn_c10]

The start is that of `make train` with epochs of one step, whose end the run logs: once with an empty compilation
cache, then with a warm one. Steps are compiled from scratch, tracing included, for this machine's devices.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence

import jax

from benchmarks import launched, problem, timing


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints a line for each number and writes JSON."""
    flags = timing.parse(__doc__, arguments, repeats=3, configs=("resnet18_c10", "wrn_c10"))
    starts = start_seconds(flags.repeats) if flags.repeats else {}
    for cache, seconds in starts.items():
        print(f"first step after {statistics.median(seconds):.1f} s, {cache} cache")
    compiled = {name: compile_seconds(name) for name in flags.configs}
    for name, second in compiled.items():
        print(f"{name}: step compiled in {second:.1f} s")
    print(timing.write("start", {"start": starts, "compile": compiled}, arguments=flags))


def start_seconds(repeats: int) -> timing.Seconds:
    """Returns the seconds to the first step with an empty compilation cache and, several times, with a warm one."""
    seconds = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(1 + repeats):
            began = time.perf_counter()
            run = launched.epochs({}, {"JAX_COMPILATION_CACHE_DIR": cache})
            next(run)
            seconds.append(time.perf_counter() - began)
            run.close()
    return {"empty": seconds[:1], "warm": seconds[1:]}


def compile_seconds(name: str) -> float:
    """Returns the seconds to trace and compile a config's training step."""
    config = problem.load(name, {})
    experiment = problem.create_experiment(config, size=config.optim.batch_size)
    jax.config.update("jax_enable_compilation_cache", False)
    began = time.perf_counter()
    problem.lower_step(config, experiment).compile()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
