"""Seconds of evaluating a batch under PGD-100, ResNet-18 in float32: jaxrw against PyTorch, taking turns.

    python -m benchmarks.evaluate [--width 16 64] [--batch 128] [--steps 100] [--repeats 3] [--no-torch]

jaxrw's side is the program that `--mode evaluate` runs: attack, prediction, count. PyTorch is timed in both memory
layouts, and the faster one is the peer; `--no-torch` times jaxrw alone.
"""

import argparse
import functools
from collections.abc import Callable, Sequence

import jax

from benchmarks import problem, timing
from jaxrw.attacks import suite
from jaxrw.data import Split
from jaxrw.training import accuracy, step
from jaxrw.training.experiment import Experiment


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures each width; prints a table and writes JSON."""
    flags = timing.parse(__doc__, arguments, width=(16, 64), batch=128, steps=100, repeats=3, no_torch=False)
    part = f"PGD-{flags.steps}"
    measured = [
        {"width": width, "batch": flags.batch, "part": part, "seconds": measure(width, flags)}
        for width in flags.width
    ]
    print(timing.comparison(measured))
    print(timing.write("evaluate", measured, arguments=flags))


def measure(width: int, flags: argparse.Namespace) -> timing.Seconds:
    """Returns the seconds of jaxrw and of PyTorch for a width."""
    timed = problem.create(width, flags.batch)
    ours = evaluation(timed.experiment, timed.variables, num_steps=flags.steps, batch_size=flags.batch)
    contenders: dict[str, Callable[[], object]] = {"jaxrw": ours}
    if not flags.no_torch:
        from benchmarks import pytorch

        attack = dict(timed.config.attack, num_steps=flags.steps)
        for layout, peer in pytorch.create_peers(timed).items():
            contenders[layout] = functools.partial(pytorch.count_robust, peer, **attack)
    return timing.alternate(contenders, repeats=flags.repeats)


def evaluation(
    experiment: Experiment, variables: step.Variables, *, num_steps: int, batch_size: int
) -> Callable[[], accuracy.Measurement]:
    """Returns a function that measures jaxrw's accuracy under PGD on the first batch of test images."""
    attack = suite.create(f"pgd{num_steps}", eps=8 / 255, step_size=2 / 255)
    test = experiment.dataset.test
    split, key = Split(test.images, test.labels[:batch_size]), jax.random.key(0)
    evaluator = accuracy.Evaluator(
        experiment.evaluation_model, split, key, {"pgd": attack}, batch_size=batch_size
    )
    return functools.partial(evaluator.measure, "pgd", step.replicate(variables))


if __name__ == "__main__":
    main()
