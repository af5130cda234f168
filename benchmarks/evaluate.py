"""Seconds of evaluating a batch under PGD-100, ResNet-18 in float32: jaxrw against PyTorch, taking turns.

    python -m benchmarks.evaluate [--width 16 64] [--batch 128] [--steps 100] [--repeats 3] [--no-torch]

jaxrw's side is the program that `--mode evaluate` runs: attack, prediction, count. PyTorch is timed in both memory
layouts, and the faster one is the peer.
"""

import argparse

import jax

from benchmarks import problem, timing
from jaxrw.attacks import suite
from jaxrw.training import accuracy, step


def main(arguments=None):
    """Measure each width; print a table and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-torch", action="store_true", help="time jaxrw alone")
    arguments = parser.parse_args(arguments)
    measured = [
        {
            "width": width,
            "batch": arguments.batch,
            "part": f"PGD-{arguments.steps}",
            "seconds": measure(width, arguments),
        }
        for width in arguments.width
    ]
    print(timing.comparison(measured))
    print(timing.write("evaluate", measured, arguments=arguments))


def measure(width, arguments):
    """{contender: seconds of each round}."""
    parts, variables, images, labels = problem.create(problem.config_of(width, arguments.batch))
    settings = problem.ATTACK | {"num_steps": arguments.steps}
    contenders = {"jaxrw": _ours(parts, variables, arguments)}
    if not arguments.no_torch:
        for layout, peer in problem.networks(parts, variables, images, labels, width=width).items():
            contenders[layout] = _theirs(*peer, settings)
    return timing.alternate(contenders, repeats=arguments.repeats)


def _ours(parts, variables, arguments):
    """Accuracy of jaxrw under PGD on the first batch."""
    settings = {name: problem.ATTACK[name] for name in ("eps", "step_size")}
    counter = accuracy.create(parts.model, suite.create(f"pgd{arguments.steps}", **settings))
    images, labels = accuracy.replicated(parts.dataset.test)
    variables, key = step.replicate((variables, jax.random.key(0)))
    return lambda: accuracy.measure(
        counter, variables, key, images, labels[: arguments.batch], batch_size=arguments.batch
    )


def _theirs(network, pixels, target, settings):
    """PyTorch's."""
    import torch

    from benchmarks import pytorch

    def run():
        adversarial = pytorch.pgd(network, pixels, target, **settings)
        with torch.no_grad():
            return (network(adversarial).argmax(1) == target).sum().item()

    return run


if __name__ == "__main__":
    main()
