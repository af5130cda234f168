"""Seconds of a PGD-10 adversarial training step, ResNet-18 in float32: jaxrw against PyTorch, taking turns.

    python -m benchmarks.train_step [--width 16 64] [--batch 128 32] [--parts whole attack] [--repeats 5] [--no-torch]

whole       augmentation, attack, parameter step: the program that `launch.py` runs
attack      PGD alone
parameters  the step without an attack
unrolled    jaxrw's attack against the same with its loop written out: what the loop costs

forwards    forward passes of a batch that the compiled step computes, counted in its program; theory says 23 for PGD-10
            (benchmarks/hlo.py). On a CPU a few products with zeros come on top.

PyTorch gets its batch augmented already. It is timed in both memory layouts, and the faster one is the peer.
Before anything is timed, both sides must give the same logits and the same attack.
"""

import argparse
import functools

import jax
import jax.numpy as jnp

from benchmarks import problem, timing, topology
from benchmarks.hlo import Program
from jaxrw.attacks.pgd import pgd, project
from jaxrw.methods.objectives import cross_entropy
from jaxrw.training import step

PARTS = ("whole", "attack", "parameters", "unrolled")


def main(arguments=None):
    """Measure each width and batch; print a table and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 32])
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-torch", action="store_true", help="time jaxrw alone")
    arguments = parser.parse_args(arguments)
    measured = [
        {"width": width, "batch": batch, "part": part, "seconds": seconds}
        for width in arguments.width
        for batch in arguments.batch
        for part, seconds in measure(width, batch, arguments).items()
    ]
    print(timing.comparison(measured))
    # The same for every batch, so the smallest is compiled.
    counted = [
        {"width": width, "forwards": forward_passes(width, min(arguments.batch))}
        for width in (arguments.width if "whole" in arguments.parts else ())
    ]
    if counted:
        print(timing.table([{**case, "forwards": f"{case['forwards']:.2f}"} for case in counted]))
    print(timing.write("train_step", measured + counted, arguments=arguments))


def measure(width, batch, arguments):
    """{part: {contender: seconds of each round}}."""
    config = problem.config_of(width, batch)
    parts, variables, images, labels = problem.create(config)
    contenders = {part: {} for part in arguments.parts}
    ours = {
        "whole": lambda: problem.training_step(config, parts),
        "attack": lambda: _attack(parts, variables, images, labels),
        "parameters": lambda: problem.training_step(problem.config_of(width, batch, num_steps=0), parts),
        "unrolled": lambda: _attack(parts, variables, images, labels),
    }
    for part, functions in contenders.items():
        functions["jaxrw"] = ours[part]()
    if "unrolled" in contenders:
        logits_fn = step.logits_function(parts.model, variables)
        contenders["unrolled"]["unrolled"] = lambda: jax.block_until_ready(
            _unrolled(logits_fn, images, labels)
        )
    if not arguments.no_torch:
        for layout, peer in problem.networks(parts, variables, images, labels, width=width).items():
            for part, function in torch_contenders(*peer).items():
                if part in contenders:
                    contenders[part][layout] = function
    return {
        part: timing.alternate(functions, repeats=arguments.repeats) for part, functions in contenders.items()
    }


def forward_passes(width, batch):
    """Forward passes of the batch in one compiled training step on this machine."""
    config = problem.config_of(width, batch)
    parts = problem.create(config)[0]
    program = Program(problem.compiled_step(config, parts).as_text())
    return program.total("flops") / (batch * topology.forward_flops(parts.model, config))


def _attack(parts, variables, images, labels):
    """PGD of jaxrw on a batch."""
    logits_fn, key = step.logits_function(parts.model, variables), jax.random.key(0)
    return lambda: jax.block_until_ready(pgd(key, logits_fn, images, labels, **problem.ATTACK))


@jax.jit
def _unrolled(logits_fn, images, labels):
    """PGD without its random start, every step written out."""
    gradient = jax.grad(lambda x: jax.vmap(cross_entropy)(logits_fn(x), labels).sum())
    adversarial = images
    for _ in range(problem.ATTACK["num_steps"]):
        moved = adversarial + problem.ATTACK["step_size"] * jnp.sign(gradient(adversarial))
        adversarial = project(moved, images, eps=problem.ATTACK["eps"])
    return adversarial


def torch_contenders(network, pixels, target):
    """{part: function} of PyTorch."""
    from benchmarks import pytorch

    attack = functools.partial(pytorch.pgd, network, pixels, target, **problem.ATTACK)
    update = functools.partial(pytorch.parameter_step, network, pytorch.sgd(network), labels=target)
    return {
        "whole": lambda: update(images=attack()),
        "attack": attack,
        "parameters": functools.partial(update, images=pixels),
    }


if __name__ == "__main__":
    main()
