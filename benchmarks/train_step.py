"""Seconds of a PGD-10 adversarial training step, ResNet-18 in float32: jaxrw against PyTorch, taking turns.

    python -m benchmarks.train_step [--width 16 64] [--batch 128 32] [--parts whole attack] [--repeats 5] [--no-torch]

whole       augmentation, attack, parameter step: the program that `launch.py` runs
attack      PGD alone
parameters  the step without an attack
unrolled    jaxrw's attack against the same with its loop written out: what the loop costs

forwards    forward passes of a batch that the compiled step computes, counted in its program; theory says 23 for PGD-10
            (benchmarks/hlo.py). On a CPU a few products with zeros come on top.

PyTorch gets its batch augmented already. It is timed in both memory layouts, and the faster one is the peer;
`--no-torch` times jaxrw alone. Before anything is timed, both sides must give the same logits and the same attack.
"""

import argparse
import copy
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from benchmarks import problem, timing
from benchmarks.compiled import forward_flops
from benchmarks.hlo import Program
from jaxrw.attacks import norms
from jaxrw.attacks.pgd import pgd
from jaxrw.attacks.types import LogitsFn
from jaxrw.methods.objectives import cross_entropy

PARTS = ("whole", "attack", "parameters", "unrolled")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures each width and batch; prints tables and writes JSON."""
    flags = timing.parse(
        __doc__,
        arguments,
        choices={"parts": PARTS},
        width=(16, 64),
        batch=(128, 32),
        parts=PARTS,
        repeats=5,
        no_torch=False,
    )
    measured = [
        {"width": width, "batch": batch, "part": part, "seconds": seconds}
        for width in flags.width
        for batch in flags.batch
        for part, seconds in measure(width, batch, flags).items()
    ]
    print(timing.comparison(measured))
    counted = []
    if "whole" in flags.parts:
        # The same for every batch, so the smallest is compiled.
        counted = [
            {"width": width, "forwards": round(forward_passes(width, min(flags.batch)), 2)}
            for width in flags.width
        ]
        print(timing.table(counted))
    print(timing.write("train_step", measured + counted, arguments=flags))


def measure(width: int, batch: int, flags: argparse.Namespace) -> dict[str, timing.Seconds]:
    """Returns the seconds of every contender by part."""
    timed = problem.create(width, batch)
    attack = _attack(timed)
    without_attack = copy.deepcopy(timed.config)
    without_attack.attack.num_steps = 0
    contenders: dict[str, dict[str, Callable[[], object]]] = {
        "whole": {"jaxrw": problem.training_step(timed.config, timed.experiment)},
        "attack": {"jaxrw": attack},
        "parameters": {"jaxrw": problem.training_step(without_attack, timed.experiment)},
        "unrolled": {"jaxrw": attack, "unrolled": _unrolled_attack(timed)},
    }
    if not flags.no_torch:
        from benchmarks import pytorch

        for layout, peer in pytorch.create_peers(timed).items():
            for part, function in pytorch.training_parts(peer, **timed.config.attack).items():
                contenders[part][layout] = function
    return {part: timing.alternate(contenders[part], repeats=flags.repeats) for part in flags.parts}


def forward_passes(width: int, batch: int) -> float:
    """Returns the forward passes of the batch that one compiled training step on this machine computes."""
    timed = problem.create(width, batch)
    program = Program(problem.lower_step(timed.config, timed.experiment).compile().as_text() or "")
    return program.total("flops") / (batch * forward_flops(timed.experiment.model))


def _attack(timed: problem.Problem) -> Callable[[], jax.Array]:
    key, logits_fn = jax.random.key(0), timed.logits_fn
    return lambda: jax.block_until_ready(
        pgd(key, logits_fn, timed.images, timed.labels, **timed.config.attack)
    )


def _unrolled_attack(timed: problem.Problem) -> Callable[[], jax.Array]:
    """Returns PGD without its random start, every step written out."""
    settings = timed.config.attack

    @jax.jit
    def attack(logits_fn: LogitsFn, images: jax.Array, labels: jax.Array) -> jax.Array:
        gradient = jax.grad(lambda x: jax.vmap(cross_entropy)(logits_fn(x), labels).sum())
        adversarial = images
        for _ in range(settings.num_steps):
            moved = adversarial + settings.step_size * jnp.sign(gradient(adversarial))
            adversarial = norms.get(settings.norm).project(moved, images, eps=settings.eps)
        return adversarial

    logits_fn = timed.logits_fn
    return lambda: jax.block_until_ready(attack(logits_fn, timed.images, timed.labels))


if __name__ == "__main__":
    main()
